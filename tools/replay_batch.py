"""Computes a batch again that training has kept because it was not finite, and says where that begins.

    python tools/replay_batch.py RUN_OR_FILE [--checkpoint CKPT]

With the weights of the run's latest checkpoint: those before the batch, or some steps older.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.device import use_tf32
from engine.nonfinite import KeptBatch, read_batch
from engine.random_state import load_model_random_state
from engine.train_epoch import Task
from models.richsem.build import build_model
from models.richsem.load import checkpoint_config, open_checkpoint
from util import distributed
from util.checkpoint import Checkpoint
from util.errors import UserError, run_command
from util.precision import choose_precision
from util.structures import tensors_in


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("batch", type=Path, help="nonfinite_stepN.pt, or a run's folder for its last one")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: checkpoint.pth beside the batch)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    return parser.parse_args(words)


def find(path: Path) -> Path:
    """The file, or the last that a run's folder has. Raises UserError where it has none."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("nonfinite_step*.pt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError(f"{path}: has no nonfinite_stepN.pt")
    return found[-1]


class FirstBad:
    """Notes the first module of a model whose output is not finite. -inf is what masks are made of."""

    def __init__(self, model: nn.Module) -> None:
        self.name = ""
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, _: Any, output: Any) -> None:
            numbers = (t for t in tensors_in(output) if t.is_floating_point())
            if not self.name and any(bool((t.isnan() | t.isposinf()).any()) for t in numbers):
                self.name = f"{name or 'the model'} ({type(module).__name__})"

        return look


def replay(batch: KeptBatch, checkpoint: Checkpoint, device: torch.device) -> list[str]:
    """Lines for people: losses then and now, and where numbers stop being finite."""
    config = checkpoint_config(checkpoint)
    parts = build_model(
        config,
        class_names=checkpoint.class_names,
        image_counts=checkpoint.image_counts,
        device=device,
        state=checkpoint.model,
        source=checkpoint.path,
    )
    use_tf32(config.tf32)
    dtype = choose_precision(config.amp, config.amp_dtype, device).dtype
    first = FirstBad(parts.model.train())
    load_model_random_state(batch.rng)
    task = Task(parts.model, parts.criterion, parts.teacher)
    losses = task.losses((batch.images, batch.targets), device, dtype)
    losses.total.backward()
    now = {
        "total": float(losses.total.detach()),
        **{name: float(value) for name, value in losses.named.items()},
    }
    step = (checkpoint.scheduler or {}).get("position", 0)
    lines = [batch.where, f"weights: {checkpoint.path}, step {step}"]
    lines += [
        f"  {name:<24}{batch.losses.get(name, float('nan')):>14.6g}{value:>14.6g}"
        for name, value in now.items()
    ]
    gradients = {n: p.grad for n, p in parts.model.named_parameters() if p.grad is not None}
    bad = next((name for name, gradient in gradients.items() if not gradient.isfinite().all()), "")
    lines.append(f"first output that is not finite: {first.name or 'none'}")
    lines.append(f"first gradient that is not finite: {bad or 'none'}")
    again = first.name or bad or not losses.total.isfinite()
    lines.append(
        "not finite again" if again else "finite with these weights: those of the step were the cause"
    )
    return lines


def main(words: list[str] | None = None) -> int:
    args = parse_arguments(words)
    batch = read_batch(find(args.batch))
    path = args.checkpoint or batch.checkpoint
    print("\n".join(replay(batch, open_checkpoint(path), distributed.choose_device(args.device))))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
