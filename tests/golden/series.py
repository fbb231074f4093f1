"""Ten training steps of a tiny RichSem, the same on every machine.

    python -m tests.golden.series            # compare with losses.json, print the worst difference
    python -m tests.golden.series --write    # store a new series

A refactor reproduces `losses.json`. A change that is meant to alter numerics stores a new series in the
same commit and says why. Everything runs in float64 on the CPU; weights, images and boxes come from
NumPy, as functions of names and numbers; torch's own numbers (noise of the denoising) are seeded anew
before every step. So neither the number of threads nor the kind of processor moves the losses by more
than rounding (threads by 1e-14, other vector instructions by 1e-8).
"""

import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.build import build_settings, build_state
from engine.train_epoch import Task, TrainStep
from tests.models.tiny import NAMES, build, target, tiny_config
from util.structures import PaddedImages, Targets

FILE = Path(__file__).with_name("losses.json")
STEPS = 10
TOLERANCE = 1e-6
CONFIG = {
    # Two channels to a group of the neck's norm: with one, a level of one cell would be constant.
    "hidden_dim": 64,
    "lr": 1e-3,
    "lr_backbone": 1e-4,
    "lr_drop": 1,
    "warmup_iters": 3,
    "dn_box_noise_scale": 0.4,
    # All classes that have images: which of them were sampled would depend on torch's sampler.
    "fed_num_sample_cats": len(NAMES),
    "use_dynamic_distill_weight": True,
    "distill_aux_layers": True,
}
# Boxes in the images of each step's batch; None for one image-level image with a box for the whole.
COUNTS = ((2, 1), (3, 2), None, (1, 4), (0, 2), None, (0, 0), (2, 2), None, (1, 3))
SIZES = ((64, 96), (96, 64), (80, 80))


def fill(module: nn.Module) -> None:
    """Puts numbers that depend on names and shapes alone in place of all weights and statistics."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("log_scale", "logit_scale"):
                tensor.fill_(np.log(20.0))
                continue
            values = numbers(name, tuple(tensor.shape))
            if leaf == "running_var":
                values = 0.5 + 0.25 * np.abs(values)
            elif "sampling_offsets" in name:
                values = values * (1.5 if leaf == "bias" else 0.02)
            elif leaf == "weight" and tensor.ndim == 1:
                values = 1 + 0.1 * values
            elif tensor.ndim < 2:
                values = 0.1 * values
            else:
                values = values / np.sqrt(np.prod(tensor.shape[1:]))
            tensor.copy_(torch.from_numpy(values))


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers of a name."""
    return np.asarray(np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape))


def batch(step: int) -> tuple[PaddedImages, Targets]:
    """Two images and what is on them."""
    random = np.random.Generator(np.random.PCG64(1000 + step))
    images, targets = [], []
    for i in range(2):
        height, width = SIZES[(step + i) % len(SIZES)]
        images.append(torch.from_numpy(random.standard_normal((3, height, width))))
        counts = COUNTS[step]
        if counts is None:
            boxes, labels = [[0.5, 0.5, 1.0, 1.0]], random.integers(len(NAMES), size=1)
        else:
            sides = random.uniform(0.1, 0.5, (counts[i], 2))
            centres = sides / 2 + (1 - sides) * random.uniform(size=(counts[i], 2))
            boxes = np.concatenate((centres, sides), axis=1).tolist()
            labels = random.integers(len(NAMES), size=counts[i])
        targets.append(target(boxes, labels.tolist(), image_level=counts is None, dtype=torch.float64))
    return PaddedImages.from_list(images), Targets.from_list(targets)


def train() -> list[dict[str, float]]:
    """Losses, their total and the gradients' norm at every step."""
    config = tiny_config(**CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        parts = build(config, folder)
    model, teacher, criterion = parts.model.double(), parts.teacher.double(), parts.criterion.double()
    fill(model)
    fill(teacher.encoder)
    device = torch.device("cpu")
    state = build_state(config, model, STEPS, device)
    stepper = TrainStep(Task(model, criterion, teacher), state, build_settings(config, device), STEPS)
    series = []
    for step in range(STEPS):
        torch.manual_seed(step)
        losses: dict[str, Tensor] = stepper(step, batch(step))
        series.append({name: float(losses[name]) for name in sorted(losses)})
    return series


def differences(found: list[dict[str, float]], stored: list[dict[str, float]]) -> list[tuple[float, str]]:
    """(relative difference, where), the worst first; infinite where a loss is absent or not a number."""
    worst = [(float("inf"), "number of steps")] if len(found) != len(stored) else []
    for step, (ours, theirs) in enumerate(zip(found, stored, strict=False)):
        for name in sorted(ours.keys() | theirs.keys()):
            a, b = ours.get(name), theirs.get(name)
            gap = float("nan") if a is None or b is None else abs(a - b) / max(abs(b), 1e-9)
            gap = gap if gap >= 0 else float("inf")  # not a number, ours or theirs
            worst.append((gap, f"step {step} {name}: {a}, stored {b}"))
    return sorted(worst, reverse=True)


def main() -> int:
    found = train()
    if "--write" in sys.argv[1:]:
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        print(f"wrote {FILE}")
        return 0
    gap, where = differences(found, json.loads(FILE.read_text()))[0]
    print(f"worst relative difference {gap:.2e} ({where})")
    return int(gap > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
