"""The notebook runs from its first cell to its last, on a tiny setting, and is stored without outputs."""

import json

import pytest

from tests.docs.stand_in import TRAINING
from tests.source_files import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def parameters(output: str) -> str:
    """The parameter cell, made small."""
    training = {**TRAINING, "epochs": 2, "eval_interval": 2, "num_queries": 10}
    options = [f"{key}={value}" for key, value in training.items() if not key.startswith("clip_")]
    data = ["--train", "16", "--val", "6", "--image_level", "2", "--workers", "1"]
    return f"REPOSITORY = ''\nOUTPUT = {output!r}\nDATA_OPTIONS = {data}\nTRAINING_OPTIONS = {options}\n"


def test_it_is_stored_without_outputs_and_has_one_cell_of_parameters():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assigned = {line.split(" = ")[0] for line in parameters("").splitlines()}
    assert {line.split(" = ")[0] for line in tagged[0]["source"] if " = " in line} == assigned


@pytest.mark.ci
def test_it_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = parameters(str(tmp_path / "runs"))
    # Scores of so short a training are low.
    for cell in notebook.cells:
        cell.source = cell.source.replace('source="local")', 'source="local", score=0.01)')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    outputs = [[output for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]
    drawn, listed, report = outputs[-3:]
    assert any("image/png" in output.get("data", {}) for output in drawn)
    assert len(listed[0]["text"].splitlines()) > 0
    assert any("srcdoc" in output.get("data", {}).get("text/html", "") for output in report)
    evaluated = "".join(output.get("text", "") for output in outputs[4])
    assert "AP50" in evaluated and "APr" in evaluated
    assert (tmp_path / "runs" / "report.html").stat().st_size > 10_000
