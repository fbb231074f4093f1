"""Raw predictions to detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.dino.output import DetectorOutput
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
        logits = output.final.logits
        # Scores leave here in float32, whatever the precision of the forward pass.
        scores = logits.sigmoid() if logits.dtype == torch.float64 else logits.float().sigmoid()
        if self.unused:
            scores[..., list(self.unused)] = -1
        batch, queries, classes = scores.shape
        count = min(self.num_select, queries * (classes - len(self.unused)))
        best, index = scores.flatten(1).topk(count, dim=1)
        query = torch.div(index, classes, rounding_mode="floor")
        boxes = box_cxcywh_to_xyxy(output.final.boxes_cxcywh.to(scores.dtype))
        boxes = boxes.gather(1, query[..., None].expand(-1, -1, 4))
        scale = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=boxes.dtype).to(boxes.device)
        boxes = boxes * scale[:, None]
        return [Detections(best[i], index[i] % classes, boxes[i]) for i in range(batch)]
