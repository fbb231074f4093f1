"""CLIP's own image trunk as the detector's backbone (`backbone='clip'`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from models.dino.backbone import Backbone
from models.richsem.clip_resnet import STAGES, stage_maps, tower_pixels
from util.errors import UserError

# The value of `backbone` that selects it.
NAME = "clip"
_STATE = "backbone.body.trunk."


class ClipTrunk(nn.Module):
    """An attention-pooled ResNet without its pool: (B, 3, H, W) in the student's normalisation -> maps.

    stages: 0..3, ascending; stage i has stride 4 * 2^i.
    Batch norm, stem and first stage are frozen, as the release freezes its pretrained ResNets.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, visual: ModifiedResNet, stages: Sequence[int]):
        super().__init__()
        trunk = copy.deepcopy(visual).requires_grad_(True)
        trunk.attnpool = nn.Identity()
        self.trunk = freeze_batch_norm_2d(trunk)
        self.stages = tuple(stages)
        for name, parameter in self.trunk.named_parameters():
            parameter.requires_grad_(name.startswith(STAGES[1:]))
        scale, shift = tower_pixels(visual)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        maps = stage_maps(self.trunk, x * self.scale + self.shift, self.stages[-1] + 1)
        return [maps[i] for i in self.stages]


def clip_backbone(visual: nn.Module, stages: Sequence[int]) -> Backbone:
    """A trainable copy of a CLIP image tower's trunk.

    Raises UserError unless the tower is an attention-pooled ResNet.
    """
    if not isinstance(visual, ModifiedResNet):
        raise UserError(
            f"backbone={NAME!r} needs an attention-pooled ResNet as clip_model (RN50, ...); its image tower "
            f"is a {type(visual).__name__}"
        )
    width = visual.conv3.out_channels
    return Backbone(ClipTrunk(visual, stages), [width * 4 * 2**i for i in stages], [4 * 2**i for i in stages])


def clip_backbone_of_state(state: Mapping[str, Tensor], stages: Sequence[int]) -> Backbone:
    """A trunk with the shape of the one in a checkpoint's model state; its weights are loaded with the rest.

    Raises UserError when the state has another backbone.
    """
    names = [name.removeprefix(_STATE) for name in state if name.startswith(_STATE)]
    if not names:
        raise UserError(f"the checkpoint has no backbone={NAME!r}, which this config asks for")
    stem = state.get(f"{_STATE}conv3.weight")
    blocks = [len({n.split(".")[1] for n in names if n.startswith(f"{stage}.")}) for stage in STAGES]
    if stem is None or not stem.dim() or not all(blocks):
        raise UserError(f"the checkpoint's backbone={NAME!r} is incomplete: it lacks the stem or a stage")
    width = len(stem)
    # The pool's sizes do not matter: ClipTrunk drops the pool.
    return clip_backbone(ModifiedResNet(blocks, output_dim=1, heads=1, image_size=32, width=width), stages)
