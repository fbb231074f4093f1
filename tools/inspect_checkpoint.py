"""Says what is in a checkpoint, and whether it is whole: position, config, classes, tensors, checksum.

    python tools/inspect_checkpoint.py CHECKPOINT... [--tensors] [--json]

Takes what `--resume` takes: files of this project or of the official release, and published folders. Exits
with 1 where one of them is damaged, or is something else.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import Config
from models.richsem.load import checkpoint_config, open_checkpoint
from models.richsem.official_checkpoint import OfficialCheckpoint
from util.checkpoint import Checkpoint, has_checksum
from util.errors import UserError, run_command
from util.hub import resolve
from util.structures import tensors_in

_SHOWN_NAMES = 5


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--tensors", action="store_true", help="list every tensor of the model")
    parser.add_argument("--json", action="store_true", help="print JSON: a list with an object for each file")
    return parser.parse_args(arguments)


def describe(name: str) -> dict[str, Any]:
    """What is in a checkpoint. Raises UserError where it is damaged or is none."""
    path = resolve(name)
    checkpoint = open_checkpoint(path)
    official = isinstance(checkpoint, OfficialCheckpoint)
    schedule = checkpoint.scheduler or {}
    return {
        "file": str(path),
        "bytes": _size_on_disk(Path(path)),
        "kind": "official release"
        if official
        else "training"
        if checkpoint.optimizer is not None
        else "weights",
        "epoch": checkpoint.epoch,
        "iteration": checkpoint.iteration,
        "step": schedule.get("position"),
        "steps_per_epoch": schedule.get("steps_per_epoch"),
        "evaluated": checkpoint.evaluated,
        "best_ap": checkpoint.best_ap,
        "ranks": len(checkpoint.rng or ()),
        "classes": len(checkpoint.class_names),
        "class_names": list(checkpoint.class_names),
        "note": checkpoint.note,
        "run": dict(checkpoint.run),
        "config": config_differences(checkpoint),
        "entry_bytes": entry_sizes(checkpoint),
        "tensors": {
            tensor_name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype), "bytes": tensor.nbytes}
            for tensor_name, tensor in checkpoint.model.items()
        },
        "checksum": "right" if has_checksum(path) else "none in the file",
        "finite": True,  # or it would not have opened
    }


def config_differences(checkpoint: Checkpoint) -> dict[str, Any]:
    """Keys whose values are not the defaults. Raises UserError where the config is invalid."""
    if not checkpoint.config and not isinstance(checkpoint, OfficialCheckpoint):
        return {}
    default = Config().to_dict()
    return {k: v for k, v in checkpoint_config(checkpoint).to_dict().items() if v != default[k]}


def entry_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes of the tensors in each entry that has some."""
    entries = {f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint)}
    sizes = {name: sum(tensor.nbytes for tensor in tensors_in(value)) for name, value in entries.items()}
    return {name: size for name, size in sizes.items() if size}


def _size_on_disk(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def lines(found: Mapping[str, Any], every_tensor: bool) -> Iterator[str]:
    """The same for people."""
    yield f"{found['file']}: {_megabytes(found['bytes'])}, {_KINDS[found['kind']]}"
    yield f"  position   {_position(found)}"
    yield f"  best AP    {_percent(found['best_ap'])}"
    names = ", ".join(found["class_names"][:_SHOWN_NAMES])
    more = ", ..." if found["classes"] > _SHOWN_NAMES else ""
    yield f"  classes    {found['classes'] or 'not known'}{f': {names}{more}' if names else ''}"
    if found["run"]:
        yield f"  run        {', '.join(f'{k}={v}' for k, v in found['run'].items())}"
    if found["note"]:
        yield f"  note       {' '.join(found['note'].split())}"
    changed = " ".join(f"{k}={v}" for k, v in found["config"].items())
    yield f"  config     {changed or 'the defaults'}"
    numbers = sum(math.prod(t["shape"]) for t in found["tensors"].values())
    yield f"  model      {len(found['tensors'])} tensors, {numbers / 1e6:.2f} million numbers, all finite"
    yield f"  tensors of {', '.join(f'{k} {_megabytes(v)}' for k, v in found['entry_bytes'].items())}"
    yield f"  checksum   {found['checksum']}"
    for name, tensor in found["tensors"].items() if every_tensor else ():
        shape = "x".join(map(str, tensor["shape"])) or "one number"
        yield f"    {name}  {shape}  {tensor['dtype'].removeprefix('torch.')}  {tensor['bytes']:,} bytes"


_KINDS = {
    "training": "a run that --resume continues",
    "weights": "weights without training state",
    "official release": "a checkpoint of the official release",
}


def _position(found: Mapping[str, Any]) -> str:
    words = f"epoch {found['epoch']}"
    if found["iteration"]:
        words += f" and {found['iteration']} batches"
    if found["step"] is not None:
        words += f", step {found['step']} ({found['steps_per_epoch']} an epoch), {found['ranks']} ranks"
    return words if found["evaluated"] else f"{words}, not evaluated yet"


def _percent(ap: float | None) -> str:
    if ap is None:
        return "none yet"
    return f"{100 * ap:.2f}" if ap >= 0 else "undefined"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_arguments(arguments)
    found, damaged = [], False
    for name in args.checkpoints:
        try:
            found.append(describe(name))
        except UserError as error:
            damaged = True
            found.append({"file": name, "problem": str(error)})
    if args.json:
        print(json.dumps(found, indent=1))
        return int(damaged)
    for one in found:
        print(one["problem"] if "problem" in one else "\n".join(lines(one, args.tensors)))
    return int(damaged)


if __name__ == "__main__":
    sys.exit(run_command(main))
