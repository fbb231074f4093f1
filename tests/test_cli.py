"""`python main.py` from the command line to files and printed numbers, with real parts on tiny data."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import main as program
from config.command_line import build_parser, parse_arguments, run_section
from datasets.evaluation.dataset_record import DatasetRecord
from datasets.evaluation.lvis import METRICS
from engine.run_log import read_log
from tests.checkpoints import read_checkpoint
from tests.datasets.tiny import categories, write_all
from tests.source_files import ROOT
from tools.mini_clip.model import MiniClipSize, build, model_config
from util.checkpoint import save_checkpoint
from util.errors import UserError

# The official flags, under their official spellings. A new setting is a config key, not a flag.
OFFICIAL_FLAGS = [
    *("--config_file", "-c", "--options", "--dataset_file", "--data_path", "--output_dir", "--note"),
    "--device",
    *("--seed", "--resume", "--pretrain_model_path", "--finetune_ignore", "--finetune_ignore_all", "--eval"),
    *("--start_epoch", "--test", "--debug", "--num_workers", "--find_unused_params", "--save_results"),
    *("--save_log", "--fix_size", "--amp", "--world_size", "--rank", "--dist_url", "--local_rank"),
    *("--remove_difficult", "--coco_panoptic_path"),
]
OURS = ["-h", "--help", "--local-rank", "--names", "--add_names", "--prompts", "--examples", "--select_by"]
OURS += ["--add-names", "--timeout", "--time_limit", "--allow_outside"]

TINY = {
    "use_visual_distill": False,
    "use_language": False,
    "backbone": "resnet10t",
    "backbone_weights": "none",
    "backbone_args": {"channels": [16, 16, 32, 32], "stem_width": 8},
    "return_interm_indices": [2, 3],
    "num_feature_levels": 2,
    "hidden_dim": 32,
    "nheads": 2,
    "dim_feedforward": 32,
    "enc_layers": 1,
    "dec_layers": 2,
    "num_queries": 10,
    "num_select": 20,
    "dn_number": 4,
    "data_aug_scales": [64],
    "data_aug_max_size": 96,
    "data_aug_scales2_resize": [64],
    "data_aug_scales2_crop": [48, 64],
    "mosaic_size": 64,
    "epochs": 2,
    "lr": 1e-3,
    "lr_drop": 2,
    "use_ema": True,
    "ema_decay": 0.5,
    "log_interval": 2,
    "eval_batch_size": 2,
    "amp": False,
}


@pytest.fixture(scope="module", autouse=True)
def few_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    return path


def run(*words, options: tuple[str, ...] = ()) -> int:
    """main.py on the CPU, without loader processes."""
    arguments = [str(word) for word in words] + ["--device", "cpu", "--num_workers", "0"]
    return program.main(arguments + (["--options", *options] if options else []))


def train(config_file, data, folder, *words, options: tuple[str, ...] = ()) -> Path:
    assert run("-c", config_file, "--data_path", data, "--output_dir", folder, *words, options=options) == 0
    return folder / "checkpoint.pth"


@pytest.fixture(scope="module")
def trained(config_file, data, tmp_path_factory) -> Path:
    """The checkpoint of a short run."""
    return train(config_file, data, tmp_path_factory.mktemp("runs") / "run", "--note", "first try")


def table(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.split(" ")[0] in METRICS]


def errors(capsys) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_the_flags_are_frozen():
    flags = [flag for action in build_parser()._actions for flag in action.option_strings]
    assert sorted(flags) == sorted(OFFICIAL_FLAGS + OURS)


def test_an_official_command_line_parses():
    words = (
        "--output_dir OUT -c config.py --data_path DATA --options dn_box_noise_scale=1.0 --find_unused_params"
    )
    args = parse_arguments([*words.split(), "--world_size", "8", "--dist_url", "env://", "--local_rank=3"])
    assert args.options == ["dn_box_noise_scale=1.0"]
    assert args.local_rank == 3
    assert parse_arguments([*words.split(), "--local-rank", "4"]).local_rank == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no config"),
        ("-c a.py --output_dir o --evl", "Did you mean '--eval'"),
        ("-c a.py", "training needs --output_dir"),
        ("-c a.py --eval", "name it with --resume"),
        ("--resume a.pth --eval --test --output_dir o", "mutually exclusive"),
        ("--resume a.pth --test", "name a folder with --output_dir"),
        ("--resume a.pth --pretrain_model_path b.pth --output_dir o", "give one of them"),
        ("-c a.py --output_dir o --finetune_ignore head", "needs --pretrain_model_path"),
        ("-c a.py --output_dir o --start_epoch -1", "must be 0 or more"),
        ("-c a.py --output_dir o --num_workers -2", "must be 0 or more"),
        ("-c a.py --output_dir o --dataset_file voc", "lvis"),
        ("-c a.py --output_dir o --seed x", "--seed"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words, message, capsys):
    with pytest.raises(UserError, match=message):
        parse_arguments(words.split())
    assert program.main(words.split()) == 2
    assert errors(capsys).startswith("error: ")


def test_given_flags_win_over_saved_ones_and_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = parse_arguments(["-c", "a", "--output_dir", "o", "--data_path", "D"])
    assert run_section(args, {}) == {
        "data_path": str(tmp_path / "D"),
        "dataset_file": "lvis",
        "seed": 42,
        "fix_size": False,
    }
    saved = {"data_path": "/there", "dataset_file": "coco", "seed": 7, "fix_size": True}
    assert run_section(parse_arguments(["--resume", "c", "--eval"]), saved) == saved
    args = parse_arguments(["--resume", "c", "--eval", "--dataset_file", "lvis", "--seed", "0"])
    assert run_section(args, saved) == {**saved, "dataset_file": "lvis", "seed": 0}
    args = parse_arguments(["-c", "a", "--output_dir", "o", "--data_path", "D", "../E"])
    assert run_section(args, saved)["data_path"] == [str(tmp_path / "D"), str(tmp_path.parent / "E")]


def test_the_run_directory(trained):
    folder = trained.parent
    names = {path.name for path in folder.iterdir()}
    assert {"config.py", "log.jsonl", "log.txt", "checkpoint.pth", "checkpoint_best.pth", "eval"} <= names
    content = read_checkpoint(trained)
    assert content.class_names == ["red_square", "green_square", "blue_square"]
    assert content.note == "first try"
    assert content.config["hidden_dim"] == 32
    kinds = [entry["kind"] for entry in read_log(folder / "log.jsonl")]
    assert kinds.count("epoch") == 2 and kinds.count("step") > 2
    assert "million parameters" in (folder / "log.txt").read_text()


def test_the_dumped_config_starts_an_equal_run(trained, data, tmp_path):
    again = train(trained.parent / "config.py", data, tmp_path / "again")
    first, second = read_checkpoint(trained), read_checkpoint(again)
    assert first.config == second.config
    assert all(torch.equal(first.model[name], second.model[name]) for name in first.model)


def test_evaluation_needs_only_the_checkpoint_and_prints_the_same_numbers(
    config_file, data, tmp_path, capsys
):
    checkpoint = train(config_file, data, tmp_path / "run")
    after_training = table(capsys.readouterr().out)[-13:]
    assert run("--eval", "--resume", checkpoint) == 0
    evaluated = table(capsys.readouterr().out)
    assert [line.split()[0] for line in evaluated] == list(METRICS)
    assert evaluated == after_training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_predictions_and_metrics_are_kept_where_asked(trained, tmp_path):
    assert run("--eval", "--resume", trained, "--output_dir", tmp_path, "--save_results") == 0
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert list(metrics) == list(METRICS)
    assert [c.train_images for c in DatasetRecord.read(tmp_path / "eval").classes] == [9, 5, 1]
    predictions = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    assert {p["image_id"] for p in predictions} == {100, 101, 102, 103, 104}
    assert {p["category_id"] for p in predictions} <= {1, 2, 5}


def test_predictions_need_only_a_list_of_images(trained, data, tmp_path, capsys):
    folder = write_all(tmp_path / "data")
    path = folder / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    listed = json.loads(path.read_text())
    images = [{k: i[k] for k in ("id", "height", "width", "coco_url")} for i in listed["images"]]
    path.write_text(json.dumps({"images": images, "categories": categories()}))
    capsys.readouterr()
    out = tmp_path / "out"
    assert run("--test", "--resume", trained, "--data_path", folder, "--output_dir", out) == 0
    assert not table(capsys.readouterr().out)
    predictions = json.loads((out / "eval" / "predictions.json").read_text())
    assert {p["image_id"] for p in predictions} == {i["id"] for i in images}


def test_data_that_is_annotated_exhaustively_gets_the_metrics_of_coco(trained, tmp_path, capsys):
    folder = write_all(tmp_path / "data")
    path = folder / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        del image["neg_category_ids"]
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert run("--eval", "--resume", trained, "--data_path", folder, "--output_dir", tmp_path) == 0
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("A")]
    recalls = ["AR@1", "AR@10", "AR@100", "ARs@100", "ARm@100", "ARl@100"]
    assert printed == ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", *recalls]
    result = json.loads((tmp_path / "eval" / "result.json").read_text())
    assert "COCO box AP" in result["protocols"][0]
    assert run("--eval", "--resume", trained, "--data_path", folder, options=("fixed_ap=True",)) == 2
    assert "leave fixed_ap out" in errors(capsys)


def test_a_resumed_run_equals_an_uninterrupted_one(trained, config_file, data, tmp_path):
    part = train(config_file, data, tmp_path / "part", options=("epochs=1",))
    assert read_checkpoint(part).epoch == 1
    assert run("--resume", part, "--output_dir", part.parent, options=("epochs=2",)) == 0
    whole, resumed = read_checkpoint(trained), read_checkpoint(part)
    for kind in ("model", "optimizer"):
        for name, value in getattr(whole, kind).items():
            for a, b in zip(_tensors(value), _tensors(getattr(resumed, kind)[name]), strict=True):
                assert torch.equal(a, b), name
    assert all(torch.equal(v, resumed.ema["model"][k]) for k, v in whole.ema["model"].items())
    totals = [[e["total"] for e in read_log(c.parent / "log.jsonl")] for c in (trained, part)]
    assert totals[0] == totals[1]


def _tensors(value) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [v for _, v in sorted(value.items())]


def test_nothing_resumes_unasked(trained, config_file, data, capsys):
    words = ("-c", config_file, "--data_path", data, "--output_dir", trained.parent)
    capsys.readouterr()
    assert run(*words) == 2
    assert "holds another run: continue it with --resume" in errors(capsys)


def test_other_classes_are_named_when_resuming(trained, tmp_path, capsys):
    other = tmp_path / "checkpoint.pth"
    renamed = ["red_square", "green_circle", "blue_square"]
    save_checkpoint(other, replace(read_checkpoint(trained), class_names=renamed))
    capsys.readouterr()
    assert run("--resume", other, "--output_dir", tmp_path / "run") == 2
    assert "class 1 is 'green_circle' in the checkpoint, 'green_square' in the data" in errors(capsys)
    assert run("--eval", "--resume", other) == 2
    assert "class 'green_square'" in errors(capsys)


def test_another_shape_is_named_when_resuming(trained, tmp_path, capsys):
    capsys.readouterr()
    for words in (("--eval",), ("--output_dir", tmp_path / "run")):
        assert run("--resume", trained, *words, options=("dim_feedforward=64",)) == 2
        assert "ffn" in errors(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--eval", "--resume", "absent.pth"), "absent.pth: no such checkpoint"),
        (("--eval", "--resume", "RUN", "--data_path", "nowhere"), "nowhere"),
        (("--eval", "--resume", "RUN", "--device", "tpu"), "--device tpu"),
        (("-c", "absent.py", "--data_path", "DATA", "--output_dir", "OUT"), "absent.py"),
        (("-c", "CONFIG", "--output_dir", "OUT"), "no data: name its folder with --data_path"),
    ],
)
def test_what_a_user_can_mend_is_one_line(words, message, trained, data, config_file, tmp_path, capsys):
    places = {"RUN": trained, "DATA": data, "CONFIG": config_file, "OUT": tmp_path / "out"}
    capsys.readouterr()
    assert program.main([str(places.get(word, word)) for word in words]) == 2
    assert message in errors(capsys)
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_names_the_nearest_key(trained, capsys):
    capsys.readouterr()
    assert run("--eval", "--resume", trained, options=("num_selct=5",)) == 2
    assert "Did you mean 'num_select'" in errors(capsys)


def test_debug_and_start_epoch(config_file, data, tmp_path, capsys):
    checkpoint = train(config_file, data, tmp_path / "run", "--debug", "--start_epoch", "1")
    content = read_checkpoint(checkpoint)
    assert content.epoch == 2
    entries = read_log(checkpoint.parent / "log.jsonl")
    assert {entry["epoch"] for entry in entries} == {2}


def test_fine_tuning_takes_what_fits(trained, config_file, data, tmp_path, caplog):
    words = ("--pretrain_model_path", trained, "--finetune_ignore", "query_selection", "--debug")
    checkpoint = train(
        config_file, data, tmp_path / "run", *words, options=("lr=0", "lr_backbone=0", "epochs=1")
    )
    source, found = read_checkpoint(trained).ema["model"], read_checkpoint(checkpoint).model
    assert torch.equal(found["head.classifier.weight"], source["head.classifier.weight"])
    content = "query_selection.content.weight"
    assert not torch.equal(found[content], source[content])
    assert "(--finetune_ignore query_selection)" in (tmp_path / "run" / "log.txt").read_text()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> tuple[str, ...]:
    """Options that name a tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    size = MiniClipSize(
        embed_dim=32, vision_width=8, image_size=64, text_width=16, text_heads=2, text_layers=1
    )
    torch.manual_seed(0)
    (folder / "tiny_clip.json").write_text(json.dumps(model_config(size)))
    torch.save(build(size).state_dict(), folder / "tiny_clip.pt")
    files = (f"clip_model={folder / 'tiny_clip.json'}", f"clip_pretrained={folder / 'tiny_clip.pt'}")
    text = (f"text_cache_dir={folder}", "use_language=True")
    return (*files, *text, "use_visual_distill=True", "check_teacher=False")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_richsem_trains_and_evaluates_in_every_precision(
    precision, teacher, config_file, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("util.precision.cpu_has_bfloat16", lambda: True)
    mixed = () if precision == "float32" else ("amp=True", f"amp_dtype={precision}")
    options = (*teacher, *mixed, "epochs=1")
    checkpoint = train(config_file, data, tmp_path / "run", options=options)
    printed = table(capsys.readouterr().out)
    entry = read_log(checkpoint.parent / "log.jsonl")[-1]
    assert entry["losses"]["loss_distill"] > 0
    content = read_checkpoint(checkpoint)
    assert not [name for name in content.model if "clip" in name or "teacher" in name]
    assert run("--eval", "--resume", checkpoint) == 0
    assert table(capsys.readouterr().out) == printed


def test_the_vocabulary_changes_by_fine_tuning(teacher, config_file, data, tmp_path):
    first = train(config_file, data, tmp_path / "first", "--debug", options=(*teacher, "epochs=1"))
    folder = write_all(tmp_path / "data")
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace("green_square", "emerald_box"))
    words = ("--pretrain_model_path", first, "--debug")
    second = train(config_file, folder, tmp_path / "second", *words, options=(*teacher, "epochs=1", "lr=0"))
    old, new = read_checkpoint(first), read_checkpoint(second)
    assert new.class_names == ["red_square", "emerald_box", "blue_square"]
    text = "head.classifier.text.raw"
    same = [torch.equal(a, b) for a, b in zip(old.model[text], new.model[text], strict=True)]
    assert same == [True, False, True]
    projection = "head.classifier.projection.weight"
    assert torch.equal(new.model[projection], old.ema["model"][projection])


def test_two_processes_by_the_script(trained, config_file, data, tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    script = ["bash", str(ROOT / "scripts" / "richsem_dist.sh"), "2"]
    words = ["-c", str(config_file), "--data_path", str(data), "--output_dir", "out", "--num_workers", "0"]
    done = subprocess.run(
        [*script, *words, "--options", "epochs=1", "batch_size=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(table(done.stdout)) == 13
    content = read_checkpoint(tmp_path / "out" / "checkpoint.pth")
    assert len(content.rng) == 2
