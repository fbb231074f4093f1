"""torch.compile where it pays in a detector: in the layers of encoder and decoder."""

from __future__ import annotations

import torch
from torch.utils._triton import has_triton

from models.dino.detector import Detector
from util.errors import UserError


def compile_layers(model: Detector, device: torch.device, backend: str = "inductor") -> None:
    """Has the layers of encoder and decoder compiled when they are first called.

    A layer is a graph of its own, without breaks; layers of a kind share it, and sizes are symbols in it. So
    it is compiled once or twice, for images of all sizes, in a minute instead of many. Backbone, criterion
    and teacher stay as they are: they are convolutions, or depend on the targets. Parameters keep their
    names.

    backend: of torch.compile. Raises UserError where its compiler is missing.
    """
    if backend == "inductor":
        _check_compiler(device)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.compile(dynamic=True, backend=backend)


def _check_compiler(device: torch.device) -> None:
    """Here, in words, and not from within the first step."""
    if device.type == "cuda":
        if not has_triton():
            raise UserError("torch.compile needs Triton for this GPU (pip install triton)")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError("torch.compile needs a C++ compiler, and there is none") from None
