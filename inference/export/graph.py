"""A trained model as one graph of standard operators: from normalised images to detections."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from inference.export.half import to_half
from inference.export.info import INPUTS, Precision
from models.dino.detector import Detector
from models.dino.ops import standard_operators
from models.dino.postprocess import PostProcess
from util.errors import UserError, first_line
from util.pixels import Size
from util.structures import PaddedImages

MAX_BATCH = 64
# Inputs of any size: levels of strides 8 to 64 then have whole cells, and the graph knows their shapes.
ANY_SIZE_DIVISOR = 64
_ANY_SIZE_LIMIT = 4096

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


class ExportGraph(nn.Module):
    """Detector and post-processing in one."""

    def __init__(self, model: Detector, postprocess: PostProcess) -> None:
        super().__init__()
        self.model = model
        self.postprocess = postprocess

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"],
        original_sizes: Int64[Tensor, "B 2"],
    ) -> Outputs:
        """Detections of a batch, best first.

        images:         normalised, each at the top left, padding 0.
        sizes:          (height, width) of each image without its padding.
        original_sizes: (height, width) of each file, whose pixels the boxes are in.

        Returns scores (B, K), labels (B, K), boxes_xyxy (B, K, 4), and proposals (B, Q): the encoder tokens
        that became queries, best first, with which another runtime's ranking can be followed. Where new words
        have queries of their own, theirs come after the others.
        """
        proposals: list[Tensor] = []
        with ExitStack() as stack:
            for part in self.model.selections:
                hook = part.register_forward_hook(
                    lambda module, inputs, selection: proposals.append(selection.proposals)
                )
                stack.callback(hook.remove)
            output = self.model(PaddedImages(images, padding_mask(images, sizes), ()))
        return (*self.postprocess.select(output.final, original_sizes), torch.cat(proposals, dim=1))


def padding_mask(images: Float[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"]) -> Bool[Tensor, "B H W"]:
    """(B, H, W), True outside each image's (height, width)."""
    height, width = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    below = height[None, :, None] >= sizes[:, 0, None, None]
    beside = width[None, None, :] >= sizes[:, 1, None, None]
    return below | beside


def trace(
    model: Detector, postprocess: PostProcess, canvas: Size | None, precision: Precision = "float32"
) -> ExportedProgram:
    """The graph for any number of images, traced on the CPU. Inputs and outputs are float32.

    canvas: (height, width) of the images; None for all multiples of ANY_SIZE_DIVISOR.
    Raises UserError where the model does something that torch.export cannot follow.
    """
    graph = ExportGraph(copy.deepcopy(model).eval().cpu(), postprocess)
    if precision == "float16":
        to_half(graph.model)
    # Neither 1 nor equal sides: torch.export takes such sizes for constants.
    height, width = canvas or (4 * ANY_SIZE_DIVISOR, 5 * ANY_SIZE_DIVISOR)
    # Two tensors: one object as both inputs would become one input of the graph, used for both.
    sizes = [torch.tensor([[height, width]]).repeat(2, 1) for _ in range(2)]
    batch = Dim("batch", min=1, max=MAX_BATCH)
    dynamic: dict[str, dict[int, Any]] = {name: {0: batch} for name in INPUTS}
    if canvas is None:
        for axis, name in ((2, "height"), (3, "width")):
            cells = Dim(f"{name}_64", min=1, max=_ANY_SIZE_LIMIT // ANY_SIZE_DIVISOR)
            dynamic["images"][axis] = ANY_SIZE_DIVISOR * cells
    try:
        with torch.no_grad(), standard_operators():
            return torch.export.export(
                graph, (torch.zeros(2, 3, height, width), *sizes), dynamic_shapes=dynamic, strict=False
            )
    except Exception as error:  # torch.export raises many kinds
        raise UserError(f"torch.export cannot follow this model: {first_line(error)}") from error
