"""Exported files say what the checkpoint says, run without it, and a wrong one is not verified."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from inference.export.graph import trace
from inference.export.verify import verify
from inference.load import load_predictor
from inference.pt2_model import Pt2Model
from tests.inference.tiny import NAMES, make_checkpoint
from tests.source_files import ROOT
from tools import predict
from tools.export import main
from util.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.pth")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """None fills the canvas: padding, and boxes in another scale than the network's."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(150, 100), (60, 90), (130, 300), (96, 128), (200, 200), (50, 99)]):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pt2(checkpoint, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.pt2"
    assert main([str(checkpoint), "--format", "torch", "--output", str(path), "--images", str(images)]) == 0
    return path


@pytest.mark.ci
def test_a_torch_file_is_verified_and_predicts(pt2, checkpoint, images):
    exported = load_predictor(pt2, score=0)
    assert exported.class_names == tuple(NAMES) and exported.model.frequencies == ("r", "c", "f")
    ours = load_predictor(checkpoint, device="cpu", score=0)
    for path in sorted(images.iterdir()):
        a, b = ours(path), exported(path)
        # The two resize with different libraries, by a grey level at most.
        assert len(a) == len(b) and np.abs(np.sort(a.scores) - np.sort(b.scores)).max() < 0.02
        assert b.size == a.size and b.file == str(path)


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_float16_file_is_smaller_and_says_its_tolerances(kind, checkpoint, images, tmp_path, capsys):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path / {"onnx": "model.onnx", "torch": "model.pt2"}[kind]
    words = [str(checkpoint), "--format", kind, "--output", str(path), "--images", str(images)]
    assert main([*words, "--precision", "float16"]) == 0
    assert "tolerances: box 8.0 px, score 0.05" in capsys.readouterr().out
    model = load_predictor(path).model
    assert model.info.precision == "float16"
    if kind == "torch":
        kinds = [tensor.dtype for tensor in torch.export.load(path).state_dict.values()]
        assert kinds.count(torch.float16) > 50


@pytest.mark.ci
def test_no_operator_of_ours_is_left(pt2):
    program = torch.export.load(pt2)
    namespaces = {
        n.target.namespace for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)
    }
    assert namespaces == {"aten"}


@pytest.mark.ci
def test_a_file_of_other_weights_is_not_verified(pt2, images, tmp_path):
    other = load_predictor(make_checkpoint(tmp_path / "other.pth"), device="cpu", precision="float32").model
    with torch.no_grad():
        other.trained.model.head.classifier.bias += 0.01
    result = verify(other.trained, Pt2Model(pt2), sorted(images.iterdir()))
    assert result.line.startswith("NOT VERIFIED: ")


def test_what_cannot_be_exported_is_one_line(checkpoint, tmp_path):
    def export(*words):
        main([str(word) for word in words])

    with pytest.raises(UserError, match=r"ends in \.onnx"):
        export(checkpoint, "--format", "onnx", "--output", tmp_path / "model.pt2")
    with pytest.raises(UserError, match="--size 12x900"):
        export(checkpoint, "--format", "torch", "--output", tmp_path / "m.pt2", "--size", "12x900")
    with pytest.raises(UserError, match="is an exported file already"):
        export("model.onnx", "--format", "torch", "--output", tmp_path / "m.pt2")
    with pytest.raises(UserError, match="fixed classes"):
        load_predictor("model.onnx", names="cup")
    with pytest.raises(UserError, match="fixed classes"):
        predict.load(predict.parse_arguments(["model.onnx", "a.jpg", "--examples", "folder"]))
    for flags in (["--precision", "float16"], ["--compile"]):
        with pytest.raises(UserError, match=r"model\.onnx: an exported file has its own precision"):
            predict.load(predict.parse_arguments(["model.onnx", "a.jpg", *flags]))
    with pytest.raises(UserError, match="an exported file has its own precision"):
        load_predictor("model.pt2", precision="float16")
    (tmp_path / "text.pt2").write_text("no model")
    with pytest.raises(UserError, match=r"text\.pt2: is no \.pt2 file"):
        load_predictor(tmp_path / "text.pt2")


def test_an_operator_that_cannot_be_followed_is_one_line(checkpoint):
    trained = load_predictor(checkpoint, device="cpu").model.trained

    class Reads(torch.nn.Module):
        def forward(self, x):
            return [x] * int(x.sum().item())

    trained.model.neck = Reads()
    with pytest.raises(UserError, match="cannot follow this model"):
        trace(trained.model, trained.postprocess, (96, 128))


@pytest.mark.ci
def test_an_onnx_file_is_verified_and_predicts_without_torch(checkpoint, images, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    words = ["--format", "onnx", "--output", str(path), "--images", str(images), "--size", "any"]
    # In a process of its own: sizes that are symbols are no `int` for the type checks of these tests.
    export = [sys.executable, "tools/export.py", str(checkpoint), *words]
    done = subprocess.run(export, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("verified: worst box ")
    program = (
        "import sys; from tools.predict import main; "
        f"main([{str(path)!r}, {str(images)!r}, '--output', {str(tmp_path / 'out')!r}, '--score', '0']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(entries) == 6 and all(len(e["detections"]) == 20 for e in entries)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match="onnxruntime cannot load it"):
        load_predictor(tmp_path / "text.onnx")


@pytest.mark.ci
def test_a_resnet50_at_480x640(images, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    changes = {
        "backbone": "resnet50",
        "backbone_args": {},
        "hidden_dim": 256,
        "nheads": 8,
        "num_queries": 100,
    }
    path = make_checkpoint(tmp_path / "r50.pth", **changes)
    output = tmp_path / "r50.onnx"
    words = ["--format", "onnx", "--output", str(output), "--images", str(images), "--size", "480x640"]
    assert main([str(path), *words, "--best", "100"]) == 0
