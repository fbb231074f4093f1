"""The neck: projects the backbone's maps to one width and adds coarser levels."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Neck(nn.Module):
    """1x1 convolutions to width D, and 3x3 convolutions of stride 2 for levels beyond the backbone's.

    The first extra level comes from the backbone's last map, each further one from the level before
    (Deformable DETR, Zhu et al. 2021, A.4; official `num_feature_levels`).

    stride: of its last level, relative to the backbone's last map.
    """

    def __init__(self, channels: Sequence[int], dim: int, num_levels: int):
        super().__init__()
        layers = [_projection(c, dim, kernel=1) for c in channels]
        previous = channels[-1]
        for _ in range(num_levels - len(channels)):
            layers.append(_projection(previous, dim, kernel=3))
            previous = dim
        self.projections = nn.ModuleList(layers)
        self.stride = 2 ** (len(layers) - len(channels))

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        """[(B, channels[i], h_i, w_i), ...] -> [(B, D, h_l, w_l), ...], finest first."""
        levels = [p(x) for p, x in zip(self.projections, features, strict=False)]
        coarser = features[-1]
        for projection in self.projections[len(features) :]:
            coarser = projection(coarser)
            levels.append(coarser)
        return levels


def _projection(channels: int, dim: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, dim, kernel, stride=2 if kernel == 3 else 1, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(32, dim))
