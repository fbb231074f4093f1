"""Grids, budgets, and the table; `test_a_killed_ablation` trains."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from datasets.run_data import RunSettings
from tests.source_files import ROOT
from tests.test_cli import TINY
from tests.tools.tail_report.evaluations import write_data, write_evaluation
from tools.ablate import main
from tools.ablation.budget import find_budget
from tools.ablation.grid import Grid, read_grid
from tools.ablation.plan import check_unchanged, plan_runs
from tools.ablation.results import ClassScore, Point, Result
from tools.ablation.table import markdown, table_content
from util.errors import UserError

ROWS = {"boxes alone": {"use_imagenet": False}, "both": {}}
TRAINING = {**TINY, "tracker": ["none"], "use_rfs": False, "batch_size": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Data, and the config of all rows."""
    root = write_data(tmp_path_factory.mktemp("ablation"))
    (root / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TRAINING.items()))
    return root


@pytest.fixture
def grid(root) -> Grid:
    return Grid(str(root / "tiny.py"), ROWS, images=24, seeds=(1, 2), baseline="boxes alone")


def write_grid(path: Path, **values) -> Path:
    path.write_text("\n".join(f"{name} = {value!r}" for name, value in values.items()))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "ablation").glob("*.py")), ids=lambda p: p.stem)
def test_shipped_grids(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    grid = read_grid(path)
    assert all(grid.config_of(row) for row in grid.rows)


def test_the_script_makes_what_the_grids_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    script = (ROOT / "scripts" / "ablation.sh").read_text()
    paths = {path.stem: path for path in (ROOT / "config" / "ablation").glob("*.py")}
    assert set(re.findall(r"^ *ablate (\w+)", script, re.M)) == set(paths)
    for grid in map(read_grid, paths.values()):
        configs = [grid.config_of(row) for row in grid.rows]
        files = {grid.data} | {c.clip_pretrained for c in configs} | {c.backbone_weights for c in configs}
        for file in (file for file in files if file.startswith("runs/")):
            place = file.removeprefix("runs/ablation/").removesuffix("/mini_clip.safetensors")
            assert place in script, file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": 8}, r"unknown name 'image'. Did you mean 'images'\?"),
        ({"images": None}, "images = None must be a whole number"),
        ({"images": 0}, "images = 0 must be at least 1"),
        ({"rows": {"a": 1}}, "rows = .* must be a dict of dicts"),
        ({"rows": {"A": {}, "a!": {}}}, "'A' and 'a!' need names that differ in a letter"),
        ({"rows": {"全部": {}}}, "row '全部' needs a letter a to z, or a digit"),
        ({"rows": {"a|b": {}}}, r"row 'a\|b': a name has no line breaks and no"),
        ({"rows": {"a" * 101: {}}}, "a name has at most 100 letters"),
        ({"data": "a\0b"}, r"data = 'a\\x00b' must be a folder name"),
        ({"compare": [("both", "both")]}, "compare: 'both' beside itself"),
        ({"rows": {"a": {"epochs": 3}}}, "row 'a': epochs is not a row's to say"),
        ({"baseline": "both streams"}, "baseline: 'both streams' is no row"),
        (
            {"compare": [("both", "boxs alone")]},
            "compare: 'boxs alone' is no row. Did you mean 'boxes alone'",
        ),
        ({"only": "both"}, "only = 'both' must be a list of rows"),
        ({"only": ["boxes alone", "booth"]}, r"only: 'booth' is no row\. Did you mean 'both'"),
        ({"only": ["both"]}, "only leaves out the baseline, 'boxes alone'"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"folds": 1}, "folds = 1 must be 0 or"),
    ],
)
def test_a_wrong_grid_is_named(tmp_path, values, message):
    right = {"config": "c.py", "rows": ROWS, "images": 24}
    path = write_grid(tmp_path / "grid.py", **{**right, **values})
    with pytest.raises(UserError, match=f"grid {path}: .*{message}"):
        read_grid(path)


def test_a_grid_keeps_rows_of_its_base(tmp_path):
    rows = {"third": {}, **ROWS}
    pairs = [("third", "both"), ("both", "boxes alone")]
    write_grid(
        tmp_path / "base.py", config="c.py", rows=rows, images=24, baseline="boxes alone", compare=pairs
    )
    kept = read_grid(write_grid(tmp_path / "k.py", _base_=["base.py"], only=["both", "boxes alone"]))
    assert list(kept.rows.items()) == [("both", {}), ("boxes alone", ROWS["boxes alone"])]
    assert kept.compare == (("both", "boxes alone"),)
    everything = read_grid(write_grid(tmp_path / "e.py", _base_=["k.py"], only=[]))
    assert list(everything.rows) == list(rows) and everything.compare == tuple(pairs)


def test_a_wrong_key_names_its_row(grid):
    with pytest.raises(UserError, match=r"row 'bad': unknown key 'lrr'\. Did you mean 'lr'"):
        replace(grid, rows={"bad": {"lrr": 1}}).config_of("bad")


def test_a_row_replaces_a_dict_of_the_config(grid, root):
    """The first use took `_delete_` out of the grid, or was without effect."""
    assert grid.config_of("both").backbone_args["stem_width"]
    row = {"backbone_args": {"_delete_": True, "channels": [8, 8]}}
    options = {"backbone_args": {"stem_width": 4}}
    for grown in (replace(grid, rows={"both": row}), replace(grid, rows={"both": row}, options=options)):
        for _ in range(2):
            assert grown.config_of("both").backbone_args == {"channels": [8, 8]}
    emptied = replace(grid, rows={"both": options}, options=row)
    assert emptied.config_of("both").backbone_args == {"channels": [8, 8], "stem_width": 4}


def test_budgets_are_equal_in_images_of_both_streams(grid, root, tmp_path):
    alone, both = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)[:2]
    # 9 images are 4 batches of 2; each is followed by an image-level one where both streams are on.
    assert alone.budget.images_at == (8, 16, 24) and alone.budget.image_level == 0
    assert both.budget.images_at == (16, 24) and both.budget.image_level == 12
    assert alone.config.max_steps == both.config.max_steps == 12


def test_a_start_below_1_is_a_share_of_the_budget(grid, root, tmp_path):
    # 8 of the 9 images an epoch; image-level ones take every other place of an epoch that has them.
    late = replace(grid, images=48, rows={"late": {"image_level_start": 2 / 3}})
    run = plan_runs(late, tmp_path, {0: root}, allow_outside=False)[0]
    epochs = len(run.budget.images_at)
    assert epochs > TINY["epochs"]
    assert run.config.epochs == epochs and run.config.image_level_start == int(2 / 3 * epochs)
    assert 0 < run.budget.image_level < 24
    never = replace(late, rows={"never": {"image_level_start": 9, "epochs": 20}})
    with pytest.raises(UserError, match=r"row 'never': image_level_start=9 with .* leaves no epoch"):
        plan_runs(never, tmp_path, {0: root}, allow_outside=False)


def test_a_budget_that_ends_within_a_step_is_refused(grid, root, tmp_path):
    settings = RunSettings(str(root))
    config = replace(grid.config_of("both"), sub_batch_size=3, accumulate_steps=2)
    assert find_budget(config, settings, 25).steps == 5
    with pytest.raises(UserError, match=r"24 images end within a step: 4 steps are 20, 5 are 25"):
        find_budget(config, settings, 24)
    uneven = replace(grid, rows={"uneven": {"sub_batch_size": 3}})
    with pytest.raises(UserError, match="row 'uneven': 24 images end within a step"):
        plan_runs(uneven, tmp_path, {0: root}, allow_outside=False)


def finish(run, ap: float, *, wrong: float | None = None, **machine: str) -> None:
    """As if the run had been trained. wrong: share of its predictions; None leaves none."""
    if wrong is None:
        metrics, classes = dict.fromkeys(("AP", "APr", "APc", "APf"), ap), ()
    else:
        write_evaluation(run.folder.path, run.data, seed=run.seed, wrong=wrong)
        found = json.loads((run.folder.path / "eval" / "result.json").read_text())
        metrics = found["metrics"]
        classes = tuple(ClassScore(c["name"], c["frequency"], c["ap"]) for c in found["classes"])
    Result(
        **run.identity,
        curve=(Point(24, metrics),),
        classes=classes,
        train_seconds=2.0,
        eval_seconds=1.0,
        revision="x",
        torch="y",
        **machine,
    ).write(run.result_file)


def test_a_changed_row_is_refused_until_it_is_made_again(grid, root, tmp_path):
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    for run in runs[:2]:
        finish(run, 0.5)
    check_unchanged(runs, again=False)
    changed = replace(grid, rows={**ROWS, "both": {"lr": 0.5}})
    runs = plan_runs(changed, tmp_path, {0: root}, allow_outside=False)
    with pytest.raises(UserError, match=r"^both, seed 1: changed since it was made: lr 0\.001 -> 0\.5\."):
        check_unchanged(runs, again=False)
    check_unchanged(runs, again=True)
    assert [run.result_file.exists() for run in runs[:2]] == [True, False]
    # A run that is under way has its config alone.
    runs[0].prepare()
    runs[1].prepare()
    runs[0].config_file.replace(runs[1].folder.config)
    with pytest.raises(
        UserError, match=r"both, seed 1: changed since it was made: .*use_imagenet False -> True"
    ):
        check_unchanged(runs, again=False)


def test_a_change_of_the_data_is_refused(grid, root, tmp_path):
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    finish(runs[0], 0.5)
    # A run that is under way.
    runs[1].prepare()
    shutil.copy(runs[1].config_file, runs[1].folder.config)
    check_unchanged(runs, again=False)
    for run, other in product(runs[:2], ({"fingerprint": "x"}, {"trained_on": "x"})):
        changed = replace(run, budget=replace(run.budget, **other))
        with pytest.raises(UserError, match="changed since it was made: the data"):
            check_unchanged([changed], again=False)


def test_what_is_trained_on_counts(grid, root, tmp_path):
    (before,) = plan_runs(replace(grid, seeds=(1,)), tmp_path, {0: root}, allow_outside=False)[1:]
    for name in ("lvis_v1/annotations/lvis_v1_train.json", "imagenet-lvis/imagenet_lvis_image_info.json"):
        copy = tmp_path / Path(name).name
        shutil.copytree(root, copy)
        content = json.loads((copy / name).read_text())
        if content.get("annotations"):
            content["annotations"][0]["bbox"][2] -= 1
        else:
            content["images"].pop()
        (copy / name).write_text(json.dumps(content))
        (after,) = plan_runs(replace(grid, seeds=(1,)), tmp_path, {0: copy}, allow_outside=False)[1:]
        assert after.budget.fingerprint == before.budget.fingerprint, name
        assert after.budget.trained_on != before.budget.trained_on, name


def test_the_result_of_another_seed_is_refused(grid, root, tmp_path):
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    finish(runs[0], 0.5)
    shutil.copy(runs[0].result_file, runs[2].result_file)
    with pytest.raises(UserError, match=r"boxes-alone-2\.json: is of 'boxes alone', seed 1; remove it"):
        check_unchanged(runs, again=False)


def test_predictions_of_another_run_give_no_interval(grid, root, tmp_path):
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    for run in runs:
        finish(run, 0.0, wrong=0.0 if run.row == "both" else 0.9)
    shutil.rmtree(runs[1].folder.path)
    write_evaluation(runs[1].folder.path, root, seed=1, wrong=0.9)
    content = table_content("g", grid, runs, {}, replicates=60)
    assert content["differences"][0]["metrics"]["AP"]["interval"] is None
    assert content["without_predictions"] == ["both, seed 1"]


def test_a_ratio_that_leaves_no_image_level_batch_is_refused(grid, root, tmp_path):
    rows = {"never": {"main_weight": 5}}
    with pytest.raises(UserError, match="row 'never': with main_weight=5 no image-level image comes"):
        plan_runs(replace(grid, rows=rows), tmp_path, {0: root}, allow_outside=False)


def test_epochs_are_those_of_the_budget(grid, root, tmp_path):
    late = replace(grid, images=96, rows={"late": {"image_level_start": 3}})
    run = plan_runs(late, tmp_path, {0: root}, allow_outside=False)[0]
    assert TINY["epochs"] < 3 < run.config.epochs and run.budget.image_level


def test_differences_have_the_sign_of_the_better_row(grid, root, tmp_path):
    grid = replace(grid, compare=(("boxes alone", "both"),))
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    for run in runs:
        finish(run, 0.0, wrong=0.0 if run.row == "both" else 0.9)
    content = table_content("g", grid, runs, {}, replicates=60)
    better, worse = (d["metrics"]["AP"] for d in content["differences"])
    assert better["mean"] > 0.2 and better["mean"] == -worse["mean"]
    assert better["interval"][0] > 0 and worse["interval"][1] < 0
    assert better["interval"][0] < better["mean"] < better["interval"][1]
    aps = [[r["metrics"]["AP"] for r in row["runs"]] for row in content["rows"]]
    assert content["rows"][1]["metrics"]["AP"]["mean"] == pytest.approx(sum(aps[1]) / 2)
    assert better["mean"] == pytest.approx((sum(aps[1]) - sum(aps[0])) / 2)
    # One image shows the rare class: too few for an interval.
    assert content["differences"][0]["metrics"]["APr"]["interval"] is None
    text = markdown(content)
    assert f"| both | {100 * sum(aps[1]) / 2:.1f} ± " in text and "not finished" not in text


def test_a_table_without_predictions_and_of_unfinished_runs_says_so(grid, root, tmp_path):
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    for run, ap in zip(runs[:3], (0.5, 0.25, 0.75), strict=True):
        finish(run, ap)
    content = table_content("g", grid, runs, {runs[3]: "no memory"}, replicates=60)
    first, second = content["rows"]
    assert first["seeds"] == [1, 2] and first["metrics"]["AP"]["mean"] == 0.625
    assert second["seeds"] == [1] and second["failed"][0]["why"] == "no memory"
    # The seeds that both have.
    assert content["differences"][0]["metrics"]["AP"] == {"mean": -0.25, "sd": None, "interval": None}
    text = markdown(content)
    assert "- failed: both, seed 2: no memory\n- not finished: both, seed 2\n" in text
    assert "no interval: boxes alone, seed 1; both, seed 1; boxes alone, seed 2\n" in text


def test_a_table_names_a_few_of_many_unfinished_runs(grid, root, tmp_path):
    grid = replace(grid, seeds=(1, 2, 3))
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    content = table_content("g", grid, runs, {}, replicates=60)
    assert "; boxes alone, seed 2; both, seed 2 and 2 more\n" in markdown(content)
    assert len(content["unfinished"]) == 6


def test_one_seed_has_no_spread(grid, root, tmp_path):
    for seeds, said in (((1,), "a run, 1 seed. Differences"), ((1, 2), "a run, 2 seeds. Mean ± standard")):
        runs = plan_runs(replace(grid, seeds=seeds), tmp_path, {0: root}, allow_outside=False)
        assert said in markdown(table_content("g", replace(grid, seeds=seeds), runs, {}, replicates=60))


def test_a_table_says_in_what_it_was_computed(grid, root, tmp_path):
    runs = plan_runs(grid, tmp_path, {0: root}, allow_outside=False)
    finish(runs[0], 0.5, device="A chip", precision="bfloat16")
    text = markdown(table_content("g", grid, runs, {}, replicates=60))
    assert "\nComputed in bfloat16 on A chip (torch y).\n" in text
    for run in runs[1:]:
        finish(run, 0.5, device="Another", precision="float32")
    text = markdown(table_content("g", grid, runs, {}, replicates=60))
    assert "Computed in float32 on Another (torch y, 3 runs); bfloat16 on A chip (torch y, 1 runs)." in text


@pytest.mark.parametrize("number", ["19", "100001"])
def test_replicates_have_bounds(number, capsys):
    with pytest.raises(SystemExit):
        main(["grid.py", "--output", "out", "--bootstrap", number])
    assert f"argument --bootstrap: {number} is not in 20..100000" in capsys.readouterr().err


def test_the_table_alone(root, tmp_path, capsys):
    path = write_grid(tmp_path / "grid.py", config=str(root / "tiny.py"), rows=ROWS, images=24, seeds=[3])
    words = [str(path), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="does not say 'data': name it with --data_path"):
        main([*words, "--table_only"])
    assert main([*words, "--table_only", "--data_path", str(root)]) == 0
    assert "| boxes alone | - |" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"


def without_seconds(folder: Path) -> tuple[str, dict]:
    """Table and content, but for the times."""
    content = json.loads((folder / "table.json").read_text())
    for row in content["rows"]:
        assert row.pop("seconds") > 0
    return re.sub(r"\| \d+ (\| \d/\d \|\n)", r"\1", (folder / "table.md").read_text()), content


@pytest.mark.ci
def test_an_ablation_killed_twice_gives_the_table_of_one_that_was_not(root, tmp_path):
    values = {"config": str(root / "tiny.py"), "data": str(root), "rows": ROWS, "images": 40, "seeds": [1]}
    path = write_grid(tmp_path / "grid.py", **values, options={"save_interval": 1})
    command = [sys.executable, ROOT / "tools" / "ablate.py", path, "--device", "cpu"]
    assert subprocess.run([*command, "--output", tmp_path / "whole"]).returncode == 0
    part = tmp_path / "part"
    for row, number, status in (("boxes-alone", signal.SIGKILL, -9), ("both", signal.SIGTERM, 143)):
        checkpoint = part / "runs" / row / "1" / "checkpoint.pth"
        with subprocess.Popen([*command, "--output", part]) as process:
            deadline = time.monotonic() + 300
            while not checkpoint.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(process.pid, number)
        assert process.returncode == status
    assert len(list((part / "results").glob("*.json"))) == 1
    assert subprocess.run([*command, "--output", part, "-j", "2"]).returncode == 0
    assert without_seconds(part) == without_seconds(tmp_path / "whole")


@pytest.mark.ci
def test_a_run_that_fails_is_named_and_the_others_go_on(root, tmp_path, capfd):
    rows = {"bad": {"backbone_args": {"channels": "x"}}, "good": {"use_imagenet": False}}
    path = write_grid(tmp_path / "grid.py", config=str(root / "tiny.py"), rows=rows, images=8, seeds=[1])
    assert main([str(path), "--output", str(tmp_path / "out"), "--data_path", str(root)]) == 1
    printed = capfd.readouterr().out
    assert re.search(r"^\[0/2\] bad, seed 1: failed: .*\(exit status \d+\)$", printed, re.M)
    assert "[1/2] good, seed 1: AP" in printed
    (result,) = (tmp_path / "out" / "results").glob("*.json")
    assert json.loads(result.read_text())["precision"] in ("float32", "bfloat16")
    assert "- failed: bad, seed 1: " in (tmp_path / "out" / "table.md").read_text()
