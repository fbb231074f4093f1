"""Two sides that compute the same agree; a planted change is found; bad input is one line."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_files import PACKAGES, ROOT
from tools import compare_revisions
from tools.revisions.compare import compare, read_numbers, report
from util.errors import run_command

# A stand-in for main.py: it writes what a run writes. LOSS and SCORE are replaced.
FAKE = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
(out / "eval").mkdir(parents=True)
if "--eval" in sys.argv:
    (out / "eval" / "metrics.json").write_text(json.dumps({"AP": 0.25, "APr": -1.0}))
    found = [{"image_id": 3, "category_id": 1, "bbox": [1.0, 2.0, 30.0, 40.0], "score": s} for s in (SCORE)]
    (out / "eval" / "predictions.json").write_text(json.dumps(found))
else:
    assert pathlib.Path("main.py").exists()
    step = {"kind": "step", "epoch": 1, "step": 1, "total": LOSS, "losses": {"loss_ce": LOSS}, "seconds": 1}
    (out / "log.jsonl").write_text(json.dumps(step))
    (out / "checkpoint.pth").touch()
"""


@pytest.fixture
def without_libraries(monkeypatch):
    """Stand-ins for main.py import no libraries."""
    monkeypatch.setattr(compare_revisions, "LIBRARIES", ())


def fake(folder: Path, loss: str = "1.5", score: str = "0.5, 0.25") -> str:
    folder.mkdir()
    (folder / "main.py").write_text(FAKE.replace("LOSS", loss).replace("SCORE", score))
    return str(folder)


def status(*words: object) -> int:
    """The exit status of the command line."""
    return run_command(lambda: compare_revisions.main([str(word) for word in words]))


@pytest.mark.ci
def test_a_changed_loss_weight_is_found(tmp_path, capsys):
    copy = tmp_path / "changed"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    guard = 'if __name__ == "__main__":\n'
    change = '    "--eval" in sys.argv or sys.argv.extend(["--options", "giou_loss_coef=2.0001"])\n'
    source = (ROOT / "main.py").read_text()
    assert guard in source
    (copy / "main.py").write_text(source.replace(guard, f"{guard}    import sys\n\n{change}"))
    assert status(ROOT, copy, "--steps", 2, "--configs", "richsem") == 1
    *rows, verdict = capsys.readouterr().out.splitlines()
    assert verdict.startswith("DIFFERENT: ")
    differences = {row.split()[1]: float(row.split("numbers")[1].split()[0]) for row in rows}
    assert differences["lr"] == 0
    assert 1e-7 < differences["total"] < 1e-2
    assert {"loss_distill", "loss_ce_dn", "grad_norm", "metrics", "scores", "boxes"} <= differences.keys()


def test_equal_sides_are_the_same(without_libraries, tmp_path, capsys):
    a, b = fake(tmp_path / "a"), fake(tmp_path / "b", score="0.25, 0.5")
    assert status(a, b) == 0
    *rows, verdict = capsys.readouterr().out.splitlines()
    assert verdict == "same: 28 numbers"
    assert [row.split()[:3] for row in rows if row.startswith("dino")] == [
        ["dino", "total", "1"],
        ["dino", "loss_ce", "1"],
        ["dino", "metrics", "of"],
        ["dino", "scores", "2"],
        ["dino", "boxes", "8"],
    ]


def test_the_tolerance_decides(without_libraries, tmp_path, capsys):
    a, b = fake(tmp_path / "a"), fake(tmp_path / "b", loss="1.500003")
    words = (a, b, "--configs", "dino", "--steps", 2)
    assert status(*words) == 1
    assert "DIFFERENT: 2 of 5 quantities" in capsys.readouterr().out
    assert status(*words, "--rtol", "1e-5") == 0
    assert "same: 14 numbers, largest relative difference 2.00e-06" in capsys.readouterr().out
    assert status(*words, "--rtol", "1e-6", "--keep", tmp_path / "kept") == 1
    assert (tmp_path / "kept" / "B" / "dino" / "log.jsonl").is_file()


def test_a_run_that_fails_is_named(without_libraries, tmp_path, capsys):
    a, b = fake(tmp_path / "a"), fake(tmp_path / "b", loss="1 / 0")
    assert status(a, b, "--configs", "dino", "--steps", 2) == 2
    assert capsys.readouterr().err == f"error: {b}: main.py failed: ZeroDivisionError: division by zero\n"
    (Path(a) / "main.py").write_text("import sys\nsys.exit('error: no such key')")
    assert status(a, b, "--configs", "dino", "--steps", 2) == 2
    assert capsys.readouterr().err == f"error: {a}: main.py failed: error: no such key\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((".", "no-such-revision"), "no-such-revision: neither a folder nor a git revision"),
        ((ROOT, "EMPTY"), "not a checkout of this project (it has no main.py)"),
        ((ROOT, ROOT, "--steps", "3"), "--steps must be an even number of at least 2, not 3."),
        ((ROOT, ROOT, "--rtol", "-1"), "--rtol must not be negative"),
        ((ROOT, ROOT, "--keep", "FULL"), "not empty"),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "FULL": tmp_path}
    assert status(*(places.get(word, word) for word in words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_git_revision_is_exported(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "main.py").write_text("print('committed')\n")
    for words in (["init", "-q"], ["add", "main.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "main.py").write_text("print('not committed')\n")
    monkeypatch.setattr(compare_revisions, "ROOT", tmp_path)
    folder = compare_revisions.checkout("HEAD", tmp_path / "tree")
    assert (folder / "main.py").read_text() == "print('committed')\n"
    assert compare_revisions.checkout(str(tmp_path), tmp_path / "unused") == tmp_path


def test_what_differs_is_found():
    a = {"total": {"step 1": 4.0, "step 2": 8.0}, "boxes": {"x": 1e-3, "y": 100.0}, "lr": {"step 1": None}}
    b = {"total": {"step 1": 4.0, "step 2": 8.4}, "boxes": {"x": 2e-3, "y": 100.0}, "lr": {"step 1": None}}
    rows = {row.quantity: row for row in compare(a, b)}
    assert (rows["total"].count, rows["total"].place) == (2, "step 2")
    assert rows["total"].difference == pytest.approx(0.4 / 8.4)
    assert rows["boxes"].difference == pytest.approx(1e-5)
    assert rows["lr"].difference == 0
    assert all(row.difference == 0 for row in compare(a, a))


@pytest.mark.parametrize("other", [{}, {"step 1": None}, {"step 1": math.nan}, {"step 2": 1.0}])
def test_what_only_one_side_has_differs(other, capsys):
    (row,) = compare({"total": {"step 1": 1.0}}, {"total": other})
    assert row.difference == math.inf
    assert not report({"dino": [row]}, rtol=1.0)
    assert "dino total at step 1" in capsys.readouterr().out


def test_files_of_another_format_are_named(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"kind": "step"}))
    assert run_command(lambda: read_numbers(tmp_path)) == 2
    assert run_command(lambda: read_numbers(tmp_path / "absent")) == 2


def test_help_is_short():
    command = [sys.executable, str(ROOT / "tools" / "compare_revisions.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--rtol" in done.stdout
