"""Any timm backbone as a feature pyramid. Pretrained ResNets are frozen as in the release."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from models.dino.folding import KeptParameters, call_folded, make_foldable
from models.dino.pixel_statistics import PixelStatistics
from models.dino.recompute import recomputed
from models.dino.simple_pyramid import SimpleFeaturePyramid
from util.errors import UserError, first_line, nearest
from util.hub import offline_if_unreachable
from util.pixels import IMAGENET_MEAN, IMAGENET_STD
from util.torch_file import bare_name, read_torch_file

logger = logging.getLogger(__name__)

# Parts of a classifier that no feature extractor has; a ViT's last norm is one of them.
_CLASSIFIER = ("fc.", "head.", "classifier.", "norm.", "fc_norm.")
# The release starts from torchvision's first ImageNet-1k weights; timm's default tag is another recipe.
DEFAULT_TAGS = {"resnet50": "resnet50.tv_in1k", "resnet101": "resnet101.tv_in1k"}


# Of a detector whose backbone takes other pixels than ImageNet's.
_PIXELS = "backbone.pixels.scale"


class Backbone(nn.Module):
    """Feature maps of an image: (B, 3, H, W) -> [(B, channels[i], H / strides[i], W / strides[i]), ...].

    pixels: brings images, which come in ImageNet's normalisation, to the body's; None where it is the same.
    recompute: backward computes the body again, and only the image is kept.
    """

    recompute = False

    def __init__(
        self,
        body: nn.Module,
        channels: Sequence[int],
        strides: Sequence[float],
        pixels: PixelStatistics | None = None,
    ):
        super().__init__()
        self.body = body
        self.pixels = pixels
        # Swin transformers give (B, H, W, C).
        self.is_nhwc = getattr(body, "output_fmt", "NCHW") == "NHWC"
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.folds = make_foldable(body)
        self._kept = KeptParameters()

    def take_pixels_of(self, state: Collection[str]) -> None:
        """Before a detector's weights with these names are loaded: pixels come as they did to it.

        Nothing where none of the names is of this body.
        """
        parameters = dict(self.body.named_parameters(prefix="backbone.body"))
        if any(name in state for name in parameters):
            device = next(iter(parameters.values())).device
            self.pixels = PixelStatistics().to(device) if _PIXELS in state else None

    def train(self, mode: bool = True) -> Backbone:
        """Begins training or evaluation, neither of which knows what the other did to the weights."""
        self._kept.forget()
        return super().train(mode)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        if self.pixels is not None:
            x = self.pixels(x)
        if torch.compiler.is_compiling():
            features = self.body(x)
        elif not self.training and not torch.is_grad_enabled():
            features = self._kept(self.body, self.folds, x)
        else:
            features = recomputed(self.recompute, call_folded, self.body, self.folds, x)
        if self.is_nhwc:
            features = [f.permute(0, 3, 1, 2) for f in features]
        # The neck's group norm is several times faster on contiguous maps than on channels-last ones.
        return [f.contiguous() for f in features]


class PlainBackbone(Backbone):
    """A backbone whose maps all have one stride, such as a ViT: its last map becomes a pyramid.

    patch: stride of the body. levels: as in `make_backbone`; with a patch of 16 level i has stride 4 * 2^i,
    with another one the nearest stride that is patch * 2^n.
    The pyramid is new and trains at `lr`; the body trains at `lr_backbone`.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: int,
        patch: int,
        levels: Sequence[int],
        pixels: PixelStatistics | None = None,
    ):
        octaves = [round(math.log2(patch / (4 * 2**level))) for level in levels]
        pyramid = SimpleFeaturePyramid(channels, octaves)
        super().__init__(body, pyramid.channels, [patch / 2**octave for octave in octaves], pixels)
        self.patch = patch
        self.pyramid = pyramid

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """As Backbone, for images of any size; the maps' sizes are H and W over the strides, rounded up.

        Images are zero-padded to whole patches; cells that lie in that padding alone are cut off again.
        """
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        (features,) = super().forward(x)
        return [
            level[..., : math.ceil(height / stride), : math.ceil(width / stride)].contiguous()
            for level, stride in zip(self.pyramid(features), self.strides, strict=True)
        ]


def make_backbone(
    name: str,
    levels: Sequence[int],
    weights: str,
    pretrain_path: str = "",
    freeze_keywords: Sequence[str] = (),
    arguments: dict | None = None,
    load: bool = True,
) -> Backbone:
    """A timm model as the detector's backbone.

    name: timm's name. levels: the release's `return_interm_indices`, level i has stride 4 * 2^i. A model
    whose maps all have one stride (a ViT) becomes a `PlainBackbone`.
    weights: 'default', 'none', a timm tag or a local file. pretrain_path: the release's
    `resnet_pretrain_path`, a local file of ImageNet-21k weights; then everything trains.
    freeze_keywords: parameters of the timm model whose names contain one are frozen too ('model.' freezes a
    whole ViT). arguments: more keyword arguments for timm. load: False where a checkpoint brings the weights;
    the structure is the same, nothing is read or downloaded: a name of the Hub is refused.

    Pretrained weights freeze batch norm, stem and first stage, as in the release; from scratch ('none')
    everything trains, batch norm included. Models without batch norm train whole.
    Raises UserError for an unknown name, a level that the model lacks, a model that takes images of one size
    only, or weights that do not fit.
    """
    if not load and ":" in name:  # hf-hub:, local-dir:
        raise UserError(
            f"backbone {name!r} is described elsewhere, and what a checkpoint names is not fetched: give the "
            "timm model that it is with --options backbone=NAME"
        )
    tag = _timm_tag(name, weights, pretrain_path) if load else None
    arguments = dict(arguments or {})
    with torch.device("meta"):
        meta_model = _create(name, pretrained=False, **arguments)
    meta_info: Any = meta_model.feature_info
    strides = meta_info.reduction()
    plain = len(strides) > 1 and len(set(strides)) == 1
    indices = [-1] if plain else _timm_indices(name, levels, strides)
    _accept_any_size(name, meta_model, arguments)
    body = _create(tag or name, pretrained=tag is not None, out_indices=indices, **arguments)
    local = pretrain_path or (weights if Path(weights).is_file() else "")
    if load and local:
        load_weights(body, local)
    pretrained = weights != "none" or bool(pretrain_path)
    if pretrained and any(isinstance(m, nn.BatchNorm2d) for m in body.modules()):
        body = freeze_batch_norm_2d(body)
        if not pretrain_path and not plain:
            _freeze_first_stage(body)
    for parameter_name, parameter in body.named_parameters():
        if any(keyword in parameter_name for keyword in freeze_keywords):
            parameter.requires_grad_(False)
    info: Any = body.feature_info
    pixels = _pixel_statistics(body) if pretrained else None
    if plain:
        return PlainBackbone(body, info.channels()[-1], info.reduction()[-1], levels, pixels)
    return Backbone(body, info.channels(), info.reduction(), pixels)


def _pixel_statistics(body: Any) -> PixelStatistics | None:
    """Those of timm's weights of this name and tag; also for a local file, which says nothing about them."""
    mean = tuple(body.pretrained_cfg.get("mean", IMAGENET_MEAN))
    std = tuple(body.pretrained_cfg.get("std", IMAGENET_STD))
    return None if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD) else PixelStatistics(mean, std)


def load_weights(body: nn.Module, path: str) -> None:
    """Loads a local weight file (`model`, `state_dict` or bare), its classifier dropped, the rest named.

    Raises UserError when the file is absent or damaged, or when nothing in it fits.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"backbone weights {path} do not exist")
    state = read_state(file)
    own = body.state_dict()
    # timm's feature extractors rename what they wrap: stages.0.x to stages_0.x, or a ViT's x to model.x.
    ours = {name.removeprefix("model.").replace(".", "_"): name for name in own}
    state = {bare_name(k): v for k, v in state.items() if isinstance(v, Tensor)}
    state = {ours.get(k.replace(".", "_"), k): v for k, v in state.items()}
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    ignored = sorted(k for k in state if k not in fits and not k.startswith(_CLASSIFIER))
    missing = sorted(k for k in own if k not in fits and not k.endswith("num_batches_tracked"))
    if not fits:
        raise UserError(f"nothing in {path} fits the backbone: it has {next(iter(state), 'no tensors')}, ...")
    body.load_state_dict(fits, strict=False)
    if missing or ignored:
        logger.warning(
            "%s: %d tensors loaded; not in the file: %s; not used: %s",
            path, len(fits), ", ".join(missing) or "none", ", ".join(ignored) or "none",
        )  # fmt: skip


def read_state(file: Path) -> dict:
    """The named weights of a file: `model`, `state_dict` or bare. Raises UserError for a damaged one."""
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged, or no safetensors file ({first_line(error)})") from error
    state = read_torch_file(file)
    if not isinstance(state, dict):
        raise UserError(f"{file} holds a {type(state).__name__}, not named weights")
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    return {name: value for name, value in state.items() if isinstance(name, str)}


def _timm_tag(name: str, weights: str, pretrain_path: str) -> str | None:
    """timm's full name with a tag when weights are to be downloaded, else None."""
    if weights == "none" or pretrain_path or Path(weights).is_file():
        return None
    if weights == "default":
        return DEFAULT_TAGS.get(name, name)
    if "/" in weights or weights.endswith((".pth", ".pt", ".safetensors")):
        raise UserError(f"backbone_weights={weights!r} does not exist")
    return weights if "." in weights else f"{name}.{weights}"


def _create(name: str, pretrained: bool, **arguments: Any) -> nn.Module:
    try:
        with offline_if_unreachable() if pretrained else nullcontext():
            return timm.create_model(name, pretrained=pretrained, features_only=True, **arguments)
    except RuntimeError as error:  # an unknown name or tag
        model = name.split(".")[0]
        hint = nearest(name, timm.list_models(f"{model}.*", pretrained=True)) if "." in name else ""
        hint = hint or nearest(model, timm.list_models())
        raise UserError(f"backbone {name!r}: {first_line(error).rstrip('.')}.{hint}") from error
    except OSError as error:  # a hub that cannot be reached
        raise UserError(
            f"backbone {name!r}: its weights could not be downloaded; give a local file with "
            f"backbone_weights=PATH, or backbone_weights=none to train from scratch"
        ) from error
    except Exception as error:  # arguments that the model does not have, or that are of another kind
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"backbone {name!r}: backbone_args do not fit: {reason}") from error


def _accept_any_size(name: str, meta_model: nn.Module, arguments: dict) -> None:
    """Adds the argument with which timm's Swins and ViTs take images of any size."""
    if not any(getattr(module, "strict_img_size", False) for module in meta_model.modules()):
        return
    vit = getattr(meta_model, "model", None)
    if vit is None:
        arguments.setdefault("strict_img_size", False)
    elif "dynamic_img_size" in inspect.signature(type(vit).__init__).parameters:
        arguments.setdefault("dynamic_img_size", True)
    else:
        raise UserError(
            f"backbone {name!r} takes images of one size only; take another ViT, such as "
            "vit_small_patch16_dinov3"
        )


def _timm_indices(name: str, levels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """timm's indices of the maps with stride 4 * 2^level (ResNets also list their stem, Swins do not)."""
    expected = [4 * 2**level for level in levels]
    absent = [stride for stride in expected if stride not in strides]
    if absent:
        raise UserError(f"backbone {name!r} has maps of stride {strides}, none of stride {absent[0]}")
    return [strides.index(stride) for stride in expected]


def _freeze_first_stage(body: nn.Module) -> None:
    """Freezes everything up to and including the stage of stride 4 (conv1 and layer1 of a ResNet)."""
    info: Any = body.feature_info
    stages = {stage["module"]: stage["reduction"] for stage in info.info}
    for child_name, child in body.named_children():
        later = [m for m, reduction in stages.items() if reduction > 4 and m.split(".")[0] == child_name]
        if later:
            return
        for parameter in child.parameters():
            parameter.requires_grad_(False)
