"""Writes a weight file under timm's names: for `backbone_weights` where another package named its tensors.

python tools/timm_weights.py tf_efficientnet_lite0 WEIGHTS.pth OUT.safetensors

The file's tensors must be those of timm's model in number, order and shape, or have timm's names already.
"""

import argparse
import sys
from pathlib import Path

from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.mini_clip.trunk import timm_state
from util.errors import run_command
from util.files import atomic_path


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="timm's name, such as tf_efficientnet_lite0")
    parser.add_argument("weights", type=Path, help="the file to read (.pth or .safetensors)")
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_arguments(words)
    state = {k: v.contiguous() for k, v in timm_state(args.model, args.weights).items()}
    with atomic_path(args.output) as temporary:
        save_file(state, temporary)
    print(f"{args.output}: {len(state)} tensors of {args.model}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
