"""torch.hub from another folder: our modules do not get in the way of others of the same names."""

import subprocess
import sys
from types import ModuleType

import pytest

import hubconf
from tests.inference.tiny import make_checkpoint
from tests.source_files import ROOT

PROGRAM = """
import sys
import numpy as np, torch
import datasets
model = torch.hub.load({repo!r}, "richsem", checkpoint={checkpoint!r}, device="cpu", score=0, source="local")
again = torch.hub.load({repo!r}, "richsem", checkpoint={checkpoint!r}, device="cpu", source="local")
assert {repo!r} not in sys.path
assert sys.modules["datasets"] is datasets and datasets.load_dataset() == "theirs"
try:
    import models
    raise SystemExit("our models are still importable")
except ImportError:
    pass
found = model(np.zeros((40, 50, 3), np.uint8))
assert len(found) == 20 and len(again.class_names) == 3
print("ok")
"""


def test_torch_hub_leaves_other_modules_alone(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text("def load_dataset():\n    return 'theirs'\n")
    checkpoint = make_checkpoint(tmp_path / "checkpoint.pth")
    (tmp_path / "program.py").write_text(PROGRAM.format(repo=str(ROOT), checkpoint=str(checkpoint)))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout.endswith("ok\n"), done.stderr


def test_from_the_checkout_it_is_an_ordinary_import(tmp_path):
    from hubconf import richsem
    from inference.predictor import Predictor

    assert isinstance(richsem(make_checkpoint(tmp_path / "checkpoint.pth"), device="cpu"), Predictor)


@pytest.mark.parametrize(
    ("file", "ours"),
    [
        ("datasets/__init__.py", True),
        ("datasets.py", True),
        (".venv-ci/lib/python3.12/site-packages/datasets/__init__.py", False),
        ("examples/datasets/__init__.py", False),
    ],
)
def test_another_library_in_the_checkouts_own_environment_is_not_ours(file, ours):
    module = ModuleType("datasets")
    module.__file__ = str(ROOT / file)
    assert hubconf._is_ours(module) == ours
    module.__file__ = None
    assert not hubconf._is_ours(module)
