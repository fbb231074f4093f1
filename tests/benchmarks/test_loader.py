"""The loader's benchmark, few and small: both pipelines do the same work."""

import json

import pytest
import torch

from benchmarks.images import jpeg
from benchmarks.loader import main


@pytest.fixture(autouse=True)
def _threads():
    """The benchmark runs on one thread; the tests after it keep theirs."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_both_pipelines_give_the_same_tensors(tmp_path, capsys):
    only = ["--only", "loader/640x480*", "--only", "loader/mosaic", "--only", "loader/tar_index"]
    assert main(["--quick", "--json", str(tmp_path / "out.json"), *only]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    cases = [row["case"] for row in content["rows"]]
    assert cases == [
        "loader/640x480",
        "loader/640x480/draft",
        "loader/640x480/tar",
        "loader/mosaic",
        "loader/tar_index",
    ]
    assert all(row["candidate"] > 0 and row["reference"] > 0 for row in content["rows"])
    assert "loader/640x480: grey levels between ours and PIL's: at most" in capsys.readouterr().out


def test_images_are_as_large_as_photographs_and_repeatable():
    assert jpeg(480, 640, 1) == jpeg(480, 640, 1) != jpeg(480, 640, 2)
    assert 30_000 < len(jpeg(480, 640, 1)) < 150_000
