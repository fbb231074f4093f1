"""Config files: bases, errors, official files, the shipped ones, options on top, and the way back."""

from pathlib import Path

import pytest

import config
from config import Config, dump, load, parse_options, with_overrides
from tests.config.official_values import official_source
from util.errors import UserError

ROOT = Path(config.__file__).parent
SHIPPED = sorted([*ROOT.glob("RichSem/*.py"), *ROOT.glob("quickstart/*.py")])


def write(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def refusal(path, overrides=None) -> str:
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_official_file_runs_as_it_is(tmp_path, caplog):
    loaded = load(write(tmp_path, "richsem_4scale.py", official_source()))
    assert loaded.num_classes == loaded.dn_labelbook_size == 1204
    assert loaded.data_aug_scales[-1] == 800
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "coco_transformer.py" in said[0] and str(ROOT / "RichSem") in said[0]
    assert said[1].startswith("ignored 45 keys")


def test_an_official_file_prefers_the_base_beside_it(tmp_path, caplog):
    write(tmp_path, "coco_transformer.py", "data_aug_scales = [320]\ndata_aug_max_size = 640\n")
    loaded = load(write(tmp_path, "mine.py", official_source()))
    assert loaded.data_aug_scales == (320,) and loaded.data_aug_max_size == 640
    assert not [r for r in caplog.records if "coco_transformer" in r.message]


def test_later_wins_along_and_across_bases(tmp_path):
    write(tmp_path, "a.py", "epochs = 1\nlr_drop = 1\nbatch_size = 1\n")
    write(tmp_path, "deep/b.py", "_base_ = '../a.py'\nlr_drop = 2\nbatch_size = 2\n")
    write(tmp_path, "c.py", "batch_size = 3\n")
    loaded = load(write(tmp_path, "d.py", "_base_ = ['deep/b.py', 'c.py']\nweight_decay = 0\n"))
    assert (loaded.epochs, loaded.lr_drop, loaded.batch_size, loaded.weight_decay) == (1, 2, 3, 0.0)
    assert load(tmp_path / "d.py", {"batch_size": 7}).batch_size == 7


def test_dicts_merge_and_can_replace(tmp_path):
    write(tmp_path, "a.py", "backbone_args = {'channels': [8, 16], 'stem_width': 8}\n")
    merged = load(write(tmp_path, "b.py", "_base_ = 'a.py'\nbackbone_args = {'stem_width': 16}\n"))
    assert merged.backbone_args == {"channels": [8, 16], "stem_width": 16}
    replaced = load(
        write(tmp_path, "c.py", "_base_ = 'a.py'\nbackbone_args = {'_delete_': True, 'depth': 1}\n")
    )
    assert replaced.backbone_args == {"depth": 1}
    assert (
        load(tmp_path / "b.py", parse_options(["backbone_args.stem_width=4"])).backbone_args["stem_width"]
        == 4
    )


def test_plain_python_is_allowed(tmp_path):
    source = "import math\n_side = 160\ndata_aug_scales = [_side, 2 * _side]\nlr = math.sqrt(4) * 1e-4\n"
    loaded = load(write(tmp_path, "a.py", source))
    assert loaded.data_aug_scales == (160, 320) and loaded.lr == pytest.approx(2e-4)


def test_bases_in_a_circle(tmp_path):
    write(tmp_path, "a.py", "_base_ = 'b.py'\n")
    write(tmp_path, "b.py", "_base_ = 'a.py'\n")
    assert "a.py -> b.py -> a.py" in refusal(tmp_path / "a.py")
    assert "own.py -> own.py" in refusal(write(tmp_path, "own.py", "_base_ = 'own.py'\n"))


def test_two_ways_to_one_base_are_no_circle(tmp_path):
    write(tmp_path, "root.py", "epochs = 3\n")
    write(tmp_path, "a.py", "_base_ = 'root.py'\n")
    write(tmp_path, "b.py", "_base_ = 'root.py'\n")
    assert load(write(tmp_path, "c.py", "_base_ = ['a.py', 'b.py']\n")).epochs == 3


def test_missing_files_are_named(tmp_path):
    write(tmp_path, "richsem.py", "")
    message = refusal(tmp_path / "richsen.py")
    assert str(tmp_path / "richsen.py") in message and "Did you mean 'richsem.py'?" in message
    message = refusal(write(tmp_path, "a.py", "_base_ = 'absent.py'\n"))
    assert "a.py" in message and "'absent.py'" in message and str(tmp_path / "absent.py") in message
    assert "does not exist" in refusal(tmp_path / "no_folder" / "x.py")
    assert "_base_" in refusal(write(tmp_path, "b.py", "_base_ = 3\n"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("lr = = 1\n", "line 1"),
        ("epochs = 1\nlr = undefined\n", "line 2: NameError"),
        ("1 / 0\n", "ZeroDivision"),
    ],
)
def test_a_broken_file_names_its_line(tmp_path, source, expected):
    message = refusal(write(tmp_path, "a.py", source))
    assert "a.py" in message and expected in message


HOSTILE = {
    "leaves": ("import sys\nsys.exit(7)\n", "line 2: SystemExit: 7"),
    "leaves without a word": ("raise SystemExit\n", "line 1: SystemExit"),
    "recurses": ("def f():\n    f()\nf()\n", "RecursionError"),
    "takes all memory": ("x = bytes(1 << 60)\n", "MemoryError"),
    "has an error without words": (
        "class E(Exception):\n    def __str__(self):\n        raise E\nraise E\n",
        "line 4: E: E",
    ),
    "has an error of many lines": ("raise ValueError('a\\nb' * 999)\n", "ValueError: a"),
    "is brackets": ("x = " + "[" * 10_000, "config.py"),
    "is zeros": ("\0" * 10, "config.py"),
    "holds itself": ("backbone_args = {}\nbackbone_args['x'] = backbone_args\n", "a value holds itself"),
    "is deep": ("x = {}\nfor _ in range(5000): x = {'x': x}\nbackbone_args = x\n", "nested too deeply"),
    "lists itself": (
        "lr_drop_list = x = []\nx.append(x)\n",
        "a value holds itself",
    ),
    "has a base of no name": ("_base_ = 'a\\0b.py'\n", "does not exist"),
    "has a base of a long name": ("_base_ = 'a' * 5000\n", "does not exist"),
    "has bases of bases": ("_base_ = [['x.py']]\n", "must be a file name or a list"),
    "has a million bases": ("_base_ = ['richsem_4scale.py'] * 10**6\n", "500 in all"),
}


@pytest.mark.parametrize(("source", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path, source, expected):
    assert expected in refusal(write(tmp_path, "config.py", source))


def test_bases_without_end_are_one_line(tmp_path):
    for i in range(60):
        write(tmp_path, f"{i}.py", f"_base_ = '{i + 1}.py'\n")
    assert "leads through more than 50 files in a row" in refusal(tmp_path / "0.py")
    for i in range(12):
        write(tmp_path, f"{i}.py", f"_base_ = ['{i + 1}.py'] * 2\n")
    write(tmp_path, "12.py", "")
    assert "500 in all" in refusal(tmp_path / "0.py")
    (tmp_path / "link.py").symlink_to("link.py")
    assert "does not exist" in refusal(tmp_path / "link.py")


def test_errors_name_where_the_value_stands(tmp_path):
    write(tmp_path, "base.py", "lr = 'fast'\n")
    child = write(tmp_path, "child.py", "_base_ = 'base.py'\n")
    assert refusal(child).startswith(str(tmp_path / "base.py"))
    assert (
        refusal(child, {"lr": 1e-4, "epoch": 3}) == "--options: unknown key 'epoch'. Did you mean 'epochs'?"
    )
    assert load(child, {"lr": 1e-4}).lr == 1e-4


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_load_and_survive_a_dump(path, tmp_path):
    loaded = load(path)
    source = dump(loaded)
    assert load(write(tmp_path, "config.py", source)) == loaded
    assert max(map(len, source.splitlines())) <= 110


def test_shipped_official_names_have_official_values():
    assert load(ROOT / "RichSem/richsem_4scale.py") == Config()
    baseline = load(ROOT / "RichSem/baseline_4scale.py")
    changed = {k: v for k, v in baseline.to_dict().items() if v != Config().to_dict()[k]}
    official = {"epochs": 12, "lr_drop": 11, "use_language": False, "use_visual_distill": False}
    assert changed == {**official, "use_imagenet": False}
    assert load(ROOT / "RichSem/richsem_4scale_r5021k.py").resnet_pretrain_path.endswith(".pth")


def test_dump_keeps_awkward_text(tmp_path):
    awkward = Config(clip_pretrained='it\'s "a" path\\with/äöü', backbone_args={"x": None, "y": [1, 2.5]})
    assert load(write(tmp_path, "config.py", dump(awkward))) == awkward


def test_overrides_on_a_checkpoints_config():
    saved = Config(epochs=3, lr=1e-3).to_dict()
    changed = with_overrides(Config.from_dict(saved), parse_options(["epochs=5"]))
    assert (changed.epochs, changed.lr) == (5, 1e-3)
    with pytest.raises(UserError, match=r"^--options: unknown key 'epoch'"):
        with_overrides(Config(), {"epoch": 1})
    assert with_overrides(Config(), None) == Config()
