"""The plain CUDA kernel to measure against: `python -m benchmarks.msda.plain` compiles it (no GPU needed).

float32, images below 2^31 numbers. It stands for the op's first implementation, so PyTorch does what is
around it, in memory: softmax, locations, zeroed results.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.dino.ops import compiler

from .inputs import Inputs, level_tensors

SOURCE = Path(__file__).with_name("plain.cu")


def build(folder: Path, architectures: list[str]) -> Path:
    """Compiles the kernel into `folder`. Raises `models.dino.ops.compiler.BuildError`."""
    library = folder / "plain.so"
    flags = ["-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "-ccbin", compiler.find_host_compiler()]
    command = [str(compiler.find_nvcc()), *flags, *compiler.architecture_flags(architectures)]
    # The shared runtime is the one that PyTorch has loaded.
    command += ["-cudart", "shared", str(SOURCE), "-o", str(library)]
    compiler.run(compiler.Step(tuple(command), library))
    return library


def load() -> ctypes.CDLL:
    """The kernel for the GPUs at hand, compiled anew."""
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(str(build(Path(folder), compiler.architectures())))


def attention(library: ctypes.CDLL, stream: Callable[[], int] | None = None) -> Callable[[Inputs], Tensor]:
    """The op on the kernel, with gradients.

    Args:
        stream: gives the CUDA stream; None: PyTorch's current one.
    """
    stream = stream or (lambda: torch.cuda.current_stream().cuda_stream)

    def call(function, sizes: ctypes.Array, *tensors: Tensor) -> None:
        pointers = (ctypes.c_void_p(x.data_ptr()) for x in tensors)
        status = function(sizes, *pointers, ctypes.c_void_p(stream()))
        if status:
            raise RuntimeError(f"the plain kernel failed with CUDA status {status}")

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value, shapes, starts, locations, weights):
            batch, tokens, heads, channels = value.shape
            queries, points = locations.shape[1], locations.shape[4]
            sizes = (ctypes.c_int32 * 7)(batch, tokens, queries, heads, channels, len(starts), points)
            output = value.new_zeros(batch, queries, heads * channels)
            call(library.plain_forward, sizes, value, shapes, starts, locations, weights, output)
            ctx.save_for_backward(value, shapes, starts, locations, weights)
            ctx.sizes = sizes
            return output

        @staticmethod
        def backward(ctx, grad_output):
            value, shapes, starts, locations, weights = ctx.saved_tensors
            gradients = [torch.zeros_like(x) for x in (value, locations, weights)]
            arguments = (value, shapes, starts, locations, weights, *gradients)
            call(library.plain_backward, ctx.sizes, grad_output.contiguous(), *arguments)
            return gradients[0], None, None, gradients[1], gradients[2]

    def attend(inputs: Inputs) -> Tensor:
        levels = level_tensors(inputs.shapes, inputs.value.device)
        locations, weights = inputs.plain()
        return Plain.apply(inputs.value, *levels, locations.contiguous(), weights.contiguous())

    return attend


if __name__ == "__main__":
    try:
        with tempfile.TemporaryDirectory() as scratch:
            build(Path(scratch), ["8.0", "9.0"])
    except compiler.AbsentError as error:
        print(f"{SOURCE.name} not compiled: {error}")
        sys.exit()
    except compiler.BuildError as error:
        sys.exit(f"error: {error}\n{error.log}")
    print(f"{SOURCE.name} compiles for sm_80 and sm_90")
