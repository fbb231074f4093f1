"""Real runs of both streams with loader processes: stopped and resumed, they end as if they never stopped."""

from pathlib import Path

import pytest

import main as program
from engine.run_directory import RunDirectory
from engine.saving import Saver
from tests.datasets.tiny import write_all
from tests.engine.test_resume import assert_same_run
from tests.test_cli import TINY

# The denoising and the federated loss draw from the generators of torch.
OPTIONS = [
    "tracker=none",
    "batch_size=2",
    "dn_box_noise_scale=0.4",
    "fed_num_sample_cats=2",
    "eval_interval=2",
    # The first epoch takes more than one pass over the boxes, the second begins in the middle of another.
    "image_level_start=1",
]


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    return ["-c", f"{folder / 'tiny.py'}", "--data_path", f"{write_all(folder / 'data')}", "--device", "cpu"]


def run(words: list[str], folder: Path, workers: int, *options: str) -> int:
    where = ["--output_dir", str(folder), "--resume", "auto", "--num_workers", str(workers)]
    return program.main([*words, *where, "--options", *OPTIONS, "save_interval=2", *options])


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> RunDirectory:
    """A run that nothing stops, without loader processes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(words, folder, 0) == 0
    return RunDirectory(folder)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.ci)])
def test_results_do_not_depend_on_the_number_of_workers(words, whole, tmp_path, workers):
    assert run(words, tmp_path / "run", workers) == 0
    assert_same_run(whole, RunDirectory(tmp_path / "run"))


@pytest.mark.parametrize("workers", [1, pytest.param(0, marks=pytest.mark.ci)])
def test_a_run_that_was_stopped_twice_ends_as_one_that_was_not(words, whole, tmp_path, workers, monkeypatch):
    real, left = Saver.save, [0]

    def save(self, state, **named):
        real(self, state, **named)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Saver, "save", save)
    for saves in (1, 3):
        left[0] = saves
        assert run(words, tmp_path / "run", workers) == 130
    left[0] = 0
    assert run(words, tmp_path / "run", workers) == 0
    assert_same_run(whole, RunDirectory(tmp_path / "run"))
