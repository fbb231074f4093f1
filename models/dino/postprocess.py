"""Raw predictions to detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Real
from torch import Tensor

from models.dino.output import DetectorOutput, LayerOutput
from util.boxes import box_cxcywh_to_xyxy
from util.structures import Detections


class PostProcess:
    """The best `num_select` of all pairs of query and class, as boxes in the pixels of the file.

    Boxes are not clamped to the image, as in the release. unused: class columns that are no class (column
    0 of an imported official model) and are never reported.
    """

    def __init__(self, num_select: int, unused: Sequence[int] = ()):
        self.num_select = num_select
        self.unused = tuple(unused)

    @torch.no_grad()
    def __call__(self, output: DetectorOutput, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """sizes: (height, width) of each image's file."""
        pixels = torch.tensor(sizes).view(-1, 2).to(output.final.logits.device)
        scores, labels, boxes_xyxy = self.select(output.final, pixels)
        return [Detections(scores[i], labels[i], boxes_xyxy[i]) for i in range(len(scores))]

    def select(
        self, output: LayerOutput, sizes: Real[Tensor, "B 2"]
    ) -> tuple[Float[Tensor, "B K"], Int64[Tensor, "B K"], Float[Tensor, "B K 4"]]:
        """Scores, labels and boxes_xyxy of every image's K detections, best first.

        sizes: (height, width) of each image's file, whose pixels the boxes are in.
        """
        logits = output.logits
        # Scores leave here in float32, whatever the precision of the forward pass.
        scores = logits.sigmoid() if logits.dtype == torch.float64 else logits.float().sigmoid()
        if self.unused:
            scores[..., list(self.unused)] = -1
        queries, classes = scores.shape[1:]
        count = min(self.num_select, queries * (classes - len(self.unused)))
        best, index = scores.flatten(1).topk(count, dim=1)
        query = torch.div(index, classes, rounding_mode="floor")
        boxes = box_cxcywh_to_xyxy(output.boxes_cxcywh.to(scores.dtype))
        boxes = boxes.gather(1, query[..., None].expand(-1, -1, 4))
        scale = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
        return best, index % classes, boxes * scale[:, None]
