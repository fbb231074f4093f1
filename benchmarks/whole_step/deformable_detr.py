"""The Deformable DETR of the package transformers as a side."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .spec import CLASSES, SMALL, Spec, random_batch


class Transformers:
    """Deformable DETR of the package transformers: two stages, box refinement, losses on every layer.

    It has no denoising, no teacher and no federated loss, so it does less than ours.
    """

    def __init__(self, spec: Spec) -> None:
        transformers.logging.set_verbosity_error()
        self.spec, self.device = spec, torch.device(spec.device)
        small: dict[str, Any] = {}
        if spec.small:
            small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2}
            small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        width, queries = (SMALL["dim_feedforward"], SMALL["num_queries"]) if spec.small else (2048, 900)
        config = transformers.DeformableDetrConfig(
            use_timm_backbone=True,
            backbone="resnet18" if spec.small else "resnet50",
            use_pretrained_backbone=False,
            two_stage=True,
            with_box_refine=True,
            auxiliary_loss=True,
            num_labels=CLASSES,
            num_queries=queries,
            two_stage_num_proposals=queries,
            encoder_ffn_dim=width,
            decoder_ffn_dim=width,
            dropout=0.0,
            **small,
        )
        self.model = transformers.DeformableDetrForObjectDetection(config).to(self.device)
        self.model.train(spec.what != "inference")
        self.dtype = getattr(torch, spec.autocast) if spec.autocast else None
        self.precision = f"{self.dtype or torch.float32}".removeprefix("torch.")
        if self.dtype is not None:
            self.model.model.backbone.to(memory_format=torch.channels_last)
        pixels, targets = random_batch(spec, torch.Generator().manual_seed(1))
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.pixels = (pixels / 255 - mean[:, None, None]) / deviation[:, None, None]
        self.labels = [{"class_labels": labels, "boxes": boxes} for boxes, labels in targets]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)
        self.run = self._detect if spec.what == "inference" else self._step

    def modules(self) -> dict[str, nn.Module]:
        """Its own names are others; only the whole is compared."""
        return {}

    def _forward(self, labels: list[dict[str, Tensor]] | None) -> Any:
        with torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=bool(self.dtype)):
            return self.model(pixel_values=self.pixels.to(self.device), labels=labels)

    def _step(self) -> Tensor:
        labels = [{name: tensor.to(self.device) for name, tensor in t.items()} for t in self.labels]
        loss = self._forward(labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.inference_mode()
    def _detect(self) -> Tensor:
        output = self._forward(None)
        scores, places = output.logits.sigmoid().flatten(1).topk(300)
        boxes = output.pred_boxes.gather(1, (places // CLASSES)[..., None].expand(-1, -1, 4))
        scores, _ = scores.cpu(), boxes.cpu()
        return scores[0, 0]
