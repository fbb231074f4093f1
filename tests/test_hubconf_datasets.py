"""torch.hub beside Hugging Face's `datasets`, which has the name of a package of ours: the real library."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.inference.test_vocabulary import write_clip
from tests.inference.tiny import make_checkpoint
from tests.source_files import ROOT

try:
    version("datasets")
except PackageNotFoundError:
    pytest.skip("Hugging Face's datasets is not installed", allow_module_level=True)

pytestmark = pytest.mark.ci

# `theirs` uses a part of the library that it imports when it is asked for; `detects` runs the network.
PRELUDE = """
import sys
from pathlib import Path
import numpy as np
import torch

OURS = ("config", "datasets", "engine", "inference", "models", "util")

def load(checkpoint=CHECKPOINT, **options):
    return torch.hub.load(REPO, "richsem", checkpoint=checkpoint, device="cpu", source="local", **options)

def detects(model):
    return len(model(np.zeros((40, 50, 3), np.uint8), score=0)) == 20

def ours(file):
    # Their library may be in a virtual environment inside the checkout.
    return Path(file).is_relative_to(REPO) and "site-packages" not in Path(file).parts

def theirs():
    import datasets
    assert not ours(datasets.__file__), datasets.__file__
    doubled = datasets.Dataset.from_dict(dict(a=[1, 2, 3])).map(lambda row: dict(a=2 * row["a"]))
    return doubled["a"][:] == [2, 4, 6] and isinstance(doubled, sys.modules["datasets"].Dataset)

def nothing_of_ours_is_left():
    files = (getattr(sys.modules.get(name), "__file__", None) for name in OURS)
    return REPO not in sys.path and not any(file and ours(file) for file in files)
"""
PROGRAMS = {
    "theirs first": """
        assert theirs()
        model = load()
        assert nothing_of_ours_is_left() and theirs() and detects(model)
    """,
    "ours first": """
        model = load()
        assert nothing_of_ours_is_left() and detects(model)
        assert theirs() and detects(model)
    """,
    "theirs between two loads, and loads in between of theirs": """
        first = load()
        assert theirs()
        second = load(score=0.5)
        assert type(first) is type(second) and detects(first) and detects(second)
        import datasets.iterable_dataset, datasets.packaged_modules.csv.csv
        assert theirs() and nothing_of_ours_is_left() and detects(load())
    """,
    "an error leaves theirs as they were, and is itself at the second time": """
        assert theirs()
        kinds = []
        for checkpoint in ("absent.pth", "absent.pth", CHECKPOINT):
            try:
                load(checkpoint, score={"no such class": 0.5})
            except Exception as error:
                assert "absent.pth: no such" in str(error) or "'no such class'" in str(error), error
                kinds.append(type(error))
        assert len(kinds) == 3 and len(set(kinds)) == 1 and kinds[0].__name__ == "UserError"
        assert nothing_of_ours_is_left() and theirs() and detects(load())
    """,
    "folders, files and drawings after the repository left the path": """
        from PIL import Image
        Path("images").mkdir()
        for name in ("a.png", "b.jpg"):
            Image.new("RGB", (60, 40), "gray").save(Path("images") / name)
        model = load()
        assert theirs()
        found = model("images", score=0, batch_size=2)
        assert [Path(p.file).name for p in found] == ["a.png", "b.jpg"] and len(found[0]) == 20
        assert found[0].draw(Image.open("images/a.png")).size
        try:
            model("images/absent.png")
        except Exception as error:
            assert "absent.png" in str(error) and type(error).__name__ == "ImageError"
    """,
    "a user's own module and folder of our names": """
        Path("util.py").write_text("WHOSE = 'mine'\\n")
        Path("models").mkdir()
        Path("models/net.py").write_text("WHOSE = 'mine'\\n")
        sys.path.insert(0, "")
        import util
        model = load()
        import models.net, util as again
        assert util is again and util.WHOSE == models.net.WHOSE == "mine" and "models.dino" not in sys.modules
        assert theirs() and detects(model) and detects(load()) and models.net is sys.modules["models.net"]
    """,
    "theirs first, then the checkout on the path, as in a notebook": """
        assert theirs()
        sys.path.insert(0, REPO)
        from hubconf import richsem
        model = richsem(CHECKPOINT, device="cpu")
        assert detects(model) and theirs() and detects(richsem(CHECKPOINT, device="cpu"))
    """,
    "other words, at the first load and at a later one": """
        first = load(LANGUAGE, names="oat milk, cup")
        assert theirs() and detects(first) and first.class_names == ("oat milk", "cup")
        second = load(LANGUAGE, add_names=["jar"])
        assert second.class_names == ("cup", "plate", "urn", "jar") and detects(second) and detects(first)
        assert nothing_of_ours_is_left() and theirs()
    """,
    "a process that is forked or copied": """
        import copy
        model = load()
        assert theirs() and detects(copy.deepcopy(model))
        import multiprocessing
        def count(_):
            return detects(model)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            torch.set_num_threads(1)
            assert pool.map(count, [0]) == [True]
    """,
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_beside_datasets(case, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint.pth")
    lines = PROGRAMS[case].splitlines()
    body = "\n".join(line.removeprefix(" " * 8) for line in lines)
    language = make_checkpoint(tmp_path / "language.pth", **write_clip(tmp_path, 0))
    paths = f"REPO, CHECKPOINT, LANGUAGE = {str(ROOT)!r}, {str(checkpoint)!r}, {str(language)!r}\n"
    source = paths + PRELUDE + body + '\nprint("ok")\n'
    (tmp_path / "program.py").write_text(source)
    done = run(tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("ok\n"), done.stderr[-3000:]


def run(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
