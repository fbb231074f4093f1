"""`python -m models.dino.ops`: what runs the op here, and why. Builds the kernels if need be."""

import sys
from collections.abc import Callable

import torch

from . import compiler, extension


def _tool(find: Callable[[], object]) -> str:
    try:
        return str(find())
    except compiler.BuildError as error:
        return f"none: {error}"


def main() -> int:
    """Print the report. Status 0 when every kind of device at hand has compiled kernels, else 1."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"torch         {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"instructions  {compiler.local_instruction_set()}")
    print(f"C++ compiler  {_tool(compiler.find_host_compiler)}")
    print(f"nvcc          {_tool(compiler.find_nvcc)}")
    print(f"GPUs          {', '.join(gpus) or 'none'}")
    print(f"cache         {extension.cache_directory()}")
    print(f"RICHSEM_OPS   {extension.mode()}")
    kinds = ["cpu", "cuda"] if gpus else ["cpu"]
    found = {kind: extension.status(kind) for kind in kinds}
    for kind, status in found.items():
        print(f"{kind:13s} {'compiled kernels' if status.compiled else 'REFERENCE'}: {status.reason}")
    return 0 if all(status.compiled for status in found.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except extension.OpsError as error:
        sys.exit(f"error: {error}")
