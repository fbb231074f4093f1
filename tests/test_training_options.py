"""Config keys that change how `python main.py` trains, on the tiny data and model of test_cli."""

from pathlib import Path

import pytest

import main as program
from tests.datasets.tiny import write_all
from tests.test_cli import TINY


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The command line of a training run on the CPU, without its folder and options."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    data = write_all(folder / "data")
    return ["-c", f"{folder / 'tiny.py'}", "--data_path", f"{data}", "--device", "cpu", "--num_workers", "0"]


def run(words: list[str], folder: Path, *options: str) -> int:
    return program.main([*words, "--output_dir", str(folder), "--options", *options])


def test_a_part_to_freeze_that_is_not_there_names_the_nearest(words, tmp_path, capsys):
    assert run(words, tmp_path / "run", "freeze=backbone,encoder.layer") == 2
    assert "Did you mean 'encoder.layers'" in capsys.readouterr().err
