"""Runs the CUDA kernels on the CPU, so that what they compute is tested where there is no GPU."""

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.msda import plain
from models.dino.ops import compiler

HERE = Path(__file__).resolve().parent
KERNELS = ("forward", "backward_samples", "backward_value", "deterministic")
NUMBERS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
MARGIN = 64


def build(folder: Path) -> ctypes.CDLL:
    """Compiles the kernels with the host's compiler against the headers in this folder."""
    host = compiler.find_host_compiler()
    flags = [
        "-std=c++17",
        "-O1",
        "-fPIC",
        "-Wno-unknown-pragmas",
        f"-I{HERE}",
        f"-I{compiler.SOURCES / 'cuda'}",
    ]
    objects = []
    for source in (*(compiler.SOURCES / "cuda" / f"{name}.cu" for name in KERNELS), plain.SOURCE):
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([host, *flags, "-x", "c++", "-c", source, "-o", objects[-1]], check=True)
    library = folder / "kernels.so"
    subprocess.run([host, *flags, "-shared", HERE / "emulator.cpp", *objects, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.set_numbers_for_64_bits.argtypes = [ctypes.c_int64]
    return loaded


@dataclass(frozen=True)
class Results:
    """What the kernels wrote: the output and the gradients of value, positions and attention."""

    output: Tensor
    value: Tensor
    positions: Tensor
    attention: Tensor


class Room:
    """Memory for one output, poisoned, between margins that nothing may touch."""

    def __init__(self, shape, dtype: torch.dtype, fill: float = float("nan")) -> None:
        count = 1
        for size in shape:
            count *= size
        self.memory = torch.full((count + 2 * MARGIN,), 17.0, dtype=torch.float64).to(dtype)
        self.tensor = self.memory[MARGIN : MARGIN + count].view(shape)
        self.tensor.fill_(fill)

    def taken(self) -> Tensor:
        assert (self.memory[:MARGIN] == 17).all(), "written before its begin"
        assert (self.memory[-MARGIN:] == 17).all(), "written behind its end"
        return self.tensor


def run(
    library: ctypes.CDLL,
    shapes: list[tuple[int, int]],
    value: Tensor,
    positions: Tensor,
    attention: Tensor,
    grad_output: Tensor,
    reference: Tensor | None = None,
    mask: Tensor | None = None,
    deterministic: bool = False,
    pixel_gradients: bool = False,
) -> Results:
    """All kernels of one call: the plain form without `reference`, else the fused form."""
    batch, tokens, heads, channels = value.shape
    queries, levels, points = positions.shape[1], len(shapes), positions.shape[4]
    working = torch.float64 if value.dtype == torch.float64 else torch.float32
    output = Room((batch, queries, heads * channels), value.dtype)
    grad_value = Room(value.shape, working, 0.0)
    grad_positions = Room(positions.shape, working if pixel_gradients else positions.dtype)
    grad_attention = Room(attention.shape, attention.dtype)
    # Shares memory with the result where the types agree, as the binding does.
    kept = grad_attention if attention.dtype == working else Room(attention.shape, working)
    bounded = attention if reference is None else attention.amax(-1)  # as the binding has it
    bounds = torch.stack([x.abs().max().to(working) for x in (grad_output, bounded)])
    sums = torch.zeros(value.shape, dtype=torch.int64)
    tensors = [value, positions, attention, reference, mask, output.tensor, grad_output, grad_value.tensor]
    tensors += [grad_positions.tensor, grad_attention.tensor, kept.tensor, bounds, sums]
    tensors = [None if x is None else x.contiguous() for x in tensors]
    pointers = (ctypes.c_void_p * len(tensors))(*(None if x is None else x.data_ptr() for x in tensors))
    sizes = (ctypes.c_int64 * 7)(batch, tokens, queries, heads, channels, levels, points)
    table, start = [], 0
    for height, width in shapes:
        table += [height, width, start]
        start += height * width
    pixels = int(pixel_gradients)
    form = 0 if reference is None else 1 if reference.shape[-1] == 2 else 2
    for kernel in (b"forward", b"samples", b"deterministic" if deterministic else b"value"):
        array = (ctypes.c_int32 * len(table))(*table)
        status = library.emulate(kernel, sizes, array, form, NUMBERS[value.dtype], pixels, pointers)
        assert status == 0, f"{kernel} returned {status}"
    return Results(
        output.taken(), grad_value.taken().to(value.dtype), grad_positions.taken(), grad_attention.taken()
    )
