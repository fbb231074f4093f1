"""Compares this project with what the official release computes, on weights that anyone can rebuild.

    python tools/parity.py PREFIX... [--synth FILE] [--dtype float64] [--manifest FILE]

A case is PREFIX.json (inputs, losses, gradient norms), PREFIX.safetensors (what inference computed) and
PREFIX.manifest.json (the official checkpoint's names and shapes). Its checkpoint is synthesised, written as
an official file, and imported as a user's would be. A case whose objective looks at predicted boxes has no
teacher embeddings of the ground truth; that is printed, and everything else is still required. A PREFIX that
ends in `text_embed` compares text embeddings. Prints one row per quantity; the last line is
`N passed, M failed`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import load
from datasets.annotations.json_errors import load_json
from models.richsem import official_checkpoint as official
from models.richsem.build import ModelParts, build_official
from models.richsem.classifier import TextEmbeddings
from models.richsem.text_embeddings import encode
from util.checkpoint import read_content
from util.errors import UserError, run_command
from util.pixels import IMAGENET_MEAN, IMAGENET_STD
from util.structures import PaddedImages, Target, Targets

ROOT = Path(__file__).resolve().parents[1]
# Losses and gradients: relative error. Everything else: absolute.
TOLERANCE = {"value": 1e-5, "pixel": 1e-2, "loss": 1e-5, "gradient": 1e-3}
# Detections whose scores differ by less may swap ranks.
SCORE_TIE = 1e-6
FIRST_COLUMNS = 64
MEMORY_STRIDE = 97


@dataclass
class Report:
    """Rows of compared quantities."""

    rows: list[tuple[str, float, float]] = field(default_factory=list)

    def add(self, name: str, error: float, tolerance: float) -> None:
        self.rows.append((name, error, tolerance))
        verdict = "ok  " if self.passed(error, tolerance) else "FAIL"
        print(f"{verdict} {name:<90} worst error {error:.3e}  tolerance {tolerance:.0e}")

    def absolute(self, name: str, ours: Tensor, expected: Mapping[str, Tensor], tolerance: float) -> None:
        """Compares a tensor with the case's tensor of that name; a case without it fails."""
        if name not in expected:
            return self.missing(name, "the case")
        theirs = expected[name]
        if ours.shape != theirs.shape:
            print(f"     {name}: shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
            return self.add(name, float("inf"), tolerance)
        return self.add(name, float((ours.double() - theirs.double()).abs().max()), tolerance)

    def missing(self, name: str, where: str) -> None:
        self.add(f"{name} (missing in {where})", float("inf"), 0)

    def relative(self, name: str, ours: float, theirs: float, tolerance: float) -> None:
        self.add(name, abs(ours - theirs) / max(abs(theirs), 1e-12), tolerance)

    @staticmethod
    def passed(error: float, tolerance: float) -> bool:
        return error <= tolerance  # False for NaN

    def summary(self) -> tuple[int, int]:
        good = sum(self.passed(error, tolerance) for _, error, tolerance in self.rows)
        return good, len(self.rows) - good


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison; 0 when everything compared is within its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("prefixes", nargs="+", metavar="PREFIX")
    parser.add_argument("--synth", type=Path, help="synth.py; default: beside the first PREFIX")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--manifest", type=Path, help="CLIP weights of text_embed; default: richsem_r50's")
    options = parser.parse_args(arguments)
    report = Report()
    synth = load_synth(options.synth or Path(options.prefixes[0]).parent / "synth.py")
    for prefix in options.prefixes:
        print(f"== {prefix}")
        if prefix.endswith("text_embed"):
            compare_text(prefix, options.manifest, synth, report)
        else:
            compare_model(prefix, synth, getattr(torch, options.dtype), report)
    good, bad = report.summary()
    print(f"{good} passed, {bad} failed")
    return 0 if good and not bad else 1


def load_synth(path: Path):
    """The module that makes the weights and images."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; name the synth.py of the cases with --synth")
    spec = importlib.util.spec_from_file_location("parity_synth", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare_model(prefix: str, synth, dtype: torch.dtype, report: Report) -> None:
    """All quantities of one detector case."""
    case = load_json(f"{prefix}.json")
    theirs = load_file(f"{prefix}.safetensors")
    parts, checkpoint = imported(case, load_json(f"{prefix}.manifest.json"), synth, dtype)
    images, targets = batch(case, synth, dtype)
    compare_inference(parts, images, theirs, report)
    compare_training(parts, checkpoint, images, targets, case, theirs, report)


def imported(
    case: dict, manifest: dict, synth, dtype: torch.dtype
) -> tuple[ModelParts, official.OfficialCheckpoint]:
    """The case's official checkpoint, written to a file and read back like a downloaded one."""
    config = load(ROOT / case["config"], {**case["overrides"], "amp": False})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "official.pth"
        arguments = argparse.Namespace(**{**config.to_dict(), "num_classes": case["num_classes"]})
        torch.save({"model": synth.synth_state_dict(manifest), "args": arguments}, path)
        checkpoint = official.as_official(read_content(path), path)
    if checkpoint is None:
        raise UserError(f"{case['config']}: the synthesised checkpoint is not recognised as an official one")
    columns = case["num_classes"]
    text = None
    if official.embedded_clip(checkpoint.weights) is not None:
        # The case's vocabulary is synthetic too, not an encoding of names.
        raw = synth.synth_tensor("text_embed.weight", (columns, text_width(checkpoint.weights)))
        text = TextEmbeddings(raw, official.logit_scale(checkpoint.weights))
    names = [f"column {i}" for i in range(columns)]
    parts = build_official(config, checkpoint, names, [1] * columns, text=text)
    parts.model.to(dtype)
    if parts.teacher is not None:
        parts.teacher.to(dtype)
    return parts, checkpoint


def text_width(model: dict[str, Tensor]) -> int:
    """Width of the CLIP space that the official model projects to."""
    return next(v.shape[1] for k, v in model.items() if k.endswith("clip.text_projection"))


def batch(case: dict, synth, dtype: torch.dtype) -> tuple[PaddedImages, Targets]:
    """The case's tensors, normalised and padded, and their ground truth."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=dtype).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=dtype).view(3, 1, 1)
    tensors = [
        (synth.synth_image(case["image_seed"] + i, h, w).to(dtype) - mean) / std
        for i, (h, w) in enumerate(case["sizes"])
    ]
    images = PaddedImages.from_list(tensors)
    targets = [
        Target(torch.tensor(boxes, dtype=dtype).view(-1, 4), torch.tensor(labels).long(), i, size, size)
        for i, (boxes, labels, size) in enumerate(
            zip(case["targets"]["boxes"], case["targets"]["labels"], images.sizes, strict=True)
        )
    ]
    return images, Targets.from_list(targets)


@torch.no_grad()
def compare_inference(parts: ModelParts, images: PaddedImages, theirs: dict, report: Report) -> None:
    """Backbone, memory, proposals, predictions and detections."""
    parts.model.eval()
    memory = []
    hook = parts.model.encoder.register_forward_hook(lambda module, inputs, out: memory.append(out.tokens))
    output = parts.model(images)
    hook.remove()
    value = TOLERANCE["value"]
    computed = {
        "pred_boxes": output.final.boxes_cxcywh,
        "pred_logits_first64": output.final.logits[..., :FIRST_COLUMNS],
        "interm_top_logits": output.encoder.logits.amax(-1),
        "memory_stride97": memory[0][:, ::MEMORY_STRIDE],
        "memory_abs_mean": memory[0].abs().mean(),
        "backbone_c5_mean": parts.model.backbone(images.tensor)[-1].mean((2, 3)),
    }
    for name, ours in computed.items():
        report.absolute(name, ours, theirs, value)
    for i, found in enumerate(parts.postprocess(output, images.sizes)):
        scores, labels = theirs.get(f"scores_{i}"), theirs.get(f"labels_{i}")
        order = slice(None)
        if scores is not None and labels is not None:
            order = matching_order(found.scores, found.labels, scores, labels)
        report.absolute(f"scores_{i}", found.scores[order], theirs, value)
        report.absolute(f"labels_{i}", found.labels[order], theirs, 0)
        report.absolute(f"boxes_{i}", found.boxes_xyxy[order], theirs, TOLERANCE["pixel"])


def matching_order(scores: Tensor, labels: Tensor, their_scores: Tensor, their_labels: Tensor) -> Tensor:
    """Permutation that puts our detections in the release's order where scores are tied."""
    order = list(range(len(scores)))
    for rank in range(min(len(order), len(their_labels))):
        ties = [
            k for k in range(rank, len(order))
            if abs(float(scores[order[k]] - their_scores[rank])) < SCORE_TIE
            and labels[order[k]] == their_labels[rank]
        ]  # fmt: skip
        if ties and ties[0] != rank:
            order.insert(rank, order.pop(ties[0]))
    return torch.tensor(order)


def compare_training(
    parts: ModelParts,
    checkpoint: official.OfficialCheckpoint,
    images: PaddedImages,
    targets: Targets,
    case: dict,
    theirs: dict,
    report: Report,
) -> None:
    """Teacher, losses, gradient norms and frozen parameters."""
    parts.model.train()
    output = parts.model(images, targets)
    semantic = None
    if parts.teacher is not None:
        semantic = parts.teacher(images, targets)
        compare_teacher(parts, semantic.ground_truth.split(targets.counts), theirs, report)
    losses = parts.criterion(output, targets, semantic)
    expected = case.get("losses", {})
    for name in sorted(losses.named.keys() | expected.keys()):
        if name in losses.named and name in expected:
            report.relative(name, float(losses.named[name]), expected[name], TOLERANCE["loss"])
        else:
            report.missing(name, "the case" if name in losses.named else "ours")
    if "total" in case:
        report.relative("total", float(losses.total.detach()), case["total"], TOLERANCE["loss"])
    else:
        report.missing("total", "the case")
    losses.total.backward()
    parameters = dict(parts.model.named_parameters())
    compare_gradients(parameters, case.get("grad_norms", {}), report)
    for name in case.get("frozen", ()):
        parameter = parameters.get(official.our_name(name) or "")
        gradient = None if parameter is None else parameter.grad
        report.add(f"frozen {name}", 0.0 if gradient is None else float(gradient.norm()), 0)


def compare_gradients(parameters: Mapping[str, Tensor], norms: Mapping[str, float], report: Report) -> None:
    """Gradient norms by official name; a trainable parameter without one in the case fails."""
    compared = set()
    for name, norm in norms.items():
        ours = official.our_name(name)
        if ours not in parameters:
            report.missing(f"gradient of {name}", "ours")
            continue
        compared.add(id(parameters[ours]))
        gradient = parameters[ours].grad
        value = 0.0 if gradient is None else float(gradient.norm())
        report.relative(f"gradient of {name}", value, norm, TOLERANCE["gradient"])
    for name, parameter in parameters.items():
        if parameter.requires_grad and id(parameter) not in compared:
            report.missing(f"gradient of {name}", "the case")


def compare_teacher(
    parts: ModelParts, embeddings: Sequence[Tensor], theirs: Mapping[str, Tensor], report: Report
) -> None:
    """The teacher's embeddings (N, E) of each image's boxes and their class logits, if the case has them."""
    for i, embedding in enumerate(embeddings):
        logits = parts.model.head.classifier.text.logits(embedding)[:, :FIRST_COLUMNS]
        for name, ours in ((f"teacher_embed_{i}", embedding), (f"teacher_logits_{i}", logits)):
            if name in theirs:
                report.absolute(name, ours, theirs, TOLERANCE["value"])
            else:
                print(f"     {name} is absent from the case: not compared")


def compare_text(prefix: str, manifest: Path | None, synth, report: Report) -> None:
    """Text embeddings of class names by the CLIP inside a synthetic official checkpoint."""
    import open_clip

    case = load_json(f"{prefix}.json")
    theirs = load_file(f"{prefix}.safetensors")
    manifest = manifest or Path(prefix).parent / "richsem_r50.manifest.json"
    clip_names = {k: v for k, v in load_json(manifest).items() if k.startswith("class_embed.clip.")}
    clip = official.embedded_clip(synth.synth_state_dict(clip_names))
    categories = {int(i): c["name"] for i, c in case["categories"].items()}
    columns = max(categories) + 1
    names = official.column_names(categories, columns)
    unused = official.unused_columns(categories, columns)
    ours = encode(clip.double(), open_clip.get_tokenizer("RN50"), names, unused)
    for name, rows in theirs.items():
        expected = {f"{name}[{i}] {names[i]}": row for i, row in enumerate(rows)}
        for row, key in zip(ours, expected, strict=True):
            report.absolute(key, row, expected, TOLERANCE["value"])


if __name__ == "__main__":
    sys.exit(run_command(main))
