"""A batch that was not finite, kept by a real run and computed again."""

from pathlib import Path

import pytest
import torch

import main as program
from datasets.loader import Collate
from tests.datasets.tiny import write_all
from tests.test_cli import TINY
from tools.replay_batch import main
from util.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run that stopped at its first image-level batch: a box of it is not finite."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    words = ["-c", f"{folder / 'tiny.py'}", "--data_path", f"{write_all(folder / 'data')}", "--device", "cpu"]
    out = folder / "run"
    words += ["--num_workers", "0", "--output_dir", str(out), "--options", "tracker=none", "save_interval=1"]
    collate = Collate.__call__

    def spoiled(self, batch):
        images, targets = collate(self, batch)
        if targets.image_level:
            targets.boxes_cxcywh[0, 0] = float("nan")
        return images, targets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collate, "__call__", spoiled)
        assert program.main(words) == 2
    return out


def test_the_run_names_the_files_and_the_stream(run):
    (file,) = run.glob("nonfinite_step*.pt")
    content = torch.load(file, weights_only=True)
    assert "image-level images" in content["where"]
    files = content["targets"]["files"]
    assert all(len(names) == 4 for names in files)
    for name in files[0]:
        assert name in content["where"]


def test_replay_says_where_it_begins(run, capsys):
    assert main([str(run), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "not finite again"
    assert "first gradient that is not finite" in lines[-2] and "none" not in lines[-2]
    total = next(line.split() for line in lines if line.strip().startswith("total"))
    assert total[1:] == ["nan", "nan"]


def test_a_folder_without_one_is_one_line(tmp_path):
    with pytest.raises(UserError, match="has no nonfinite_stepN"):
        main([str(tmp_path)])
