"""The running average of the weights, which is what is evaluated."""

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


class WeightAverage(ModelEmaV3):
    """timm's average, in one operator for all weights and one for the buffers of each type.

    timm copies buffers one by one, which is a launch for each: 159 with a ResNet-50. Weights are found once
    instead of in every step, so `update` takes the model that the average was made of.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = False) -> None:
        """decay: of one step.  warmup: it rises to `decay` as (1 + t) / (10 + t), so that the first weights
        are soon forgotten.
        """
        super().__init__(
            model, decay, use_warmup=warmup, warmup_gamma=9, warmup_power=1, exclude_buffers=True
        )
        self.module.requires_grad_(False)
        self._averages, self._weights = tuple(self.module.parameters()), tuple(model.parameters())

    def apply_update_no_buffers_(self, model: nn.Module, decay: float) -> None:
        """The name that timm calls: averages the weights and copies the buffers."""
        torch._foreach_lerp_(self._averages, self._weights, weight=1.0 - decay)
        of_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for average, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            averages, buffers = of_type.setdefault(buffer.dtype, ([], []))
            averages.append(average)
            buffers.append(buffer)
        for averages, buffers in of_type.values():
            torch._foreach_copy_(averages, buffers)
