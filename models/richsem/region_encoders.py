"""Region encoders: how each kind of CLIP image tower embeds a box. One class per kind of tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import AttentionPoolLatent, Format, freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops import roi_align

from models.dino.folding import KeptParameters, make_foldable
from models.dino.layers import at_least_float32
from models.richsem.clip_resnet import attention_pool, stage_maps
from util.errors import UserError


class RegionEncoder(nn.Module, ABC):
    """A tower's feature map, and the embedding of a region of it.

    stride: pixels of the batch per cell of the map; None where the tower resizes the image.
    grid:   a region is RoIAligned to grid x grid cells; 1 gives its mean.
    """

    stride: float | None = None
    grid: int = 1
    visual: Any  # open_clip's towers are not typed

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    @abstractmethod
    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """(B, 3, H, W) in the tower's normalisation -> (B, D, h, w)."""

    def embed(self, cells: Tensor) -> Tensor:
        """(K, D, grid, grid) of a region -> (K, E), not normalised."""
        return cells.flatten(1)

    def pool(self, features: Tensor, regions: Tensor, image_size: tuple[int, int]) -> Tensor:
        """regions (K, 5): image index and xyxy in pixels of the padded batch -> (K, E), not normalised."""
        height, width = self.stride, self.stride
        if height is None or width is None:
            height, width = image_size[0] / features.shape[-2], image_size[1] / features.shape[-1]
        cell = torch.tensor((1.0, width, height, width, height), dtype=regions.dtype)
        cell = cell.to(regions.device, non_blocking=True)
        # Under autocast the map is in 16 bit; positions in it must not be.
        features = at_least_float32(features)
        return self.embed(roi_align(features, (regions / cell).to(features.dtype), self.grid, aligned=True))


Maker = TypeVar("Maker", bound=Callable[[Any], RegionEncoder])
_ENCODERS: dict[type[nn.Module], Callable[[Any], RegionEncoder]] = {}


def encodes(tower: type[nn.Module]) -> Callable[[Maker], Maker]:
    """Decorator of a class, or of a function that chooses one: the region encoder of such image towers."""

    def register(encoder: Maker) -> Maker:
        _ENCODERS[tower] = encoder
        return encoder

    return register


def make_region_encoder(visual: nn.Module) -> RegionEncoder:
    """The region encoder of a CLIP image tower. Raises UserError where there is none for it."""
    for tower, encoder in _ENCODERS.items():
        if isinstance(visual, tower):
            return encoder(visual)
    raise UserError(
        f"clip_model has an image tower of kind {type(visual).__name__}; the semantic branch needs an "
        "attention-pooled ResNet (RN50, ...), a ViT (ViT-B-16, ...) or a tower of timm (convnext_base_w, ...)"
    )


@encodes(ModifiedResNet)
class AttentionPoolEncoder(RegionEncoder):
    """A region is RoIAligned to the attention pool's own grid and attention-pooled (paper section 3.2).

    The tower's batch norms are frozen, and folded into its convolutions once.
    """

    stride = 32.0

    def __init__(self, visual: ModifiedResNet):
        super().__init__(freeze_batch_norm_2d(visual))
        self._folds = make_foldable(self)
        self._kept = KeptParameters()
        self.grid = round((visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """As `features`, with the weights as they are."""
        return stage_maps(self.visual, pixels)[-1]

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        if torch.compiler.is_compiling():
            return self(pixels)
        return self._kept(self, self._folds, pixels)

    def embed(self, cells: Tensor) -> Tensor:
        return attention_pool(self.visual.attnpool, cells)


@encodes(VisionTransformer)
class PatchEncoder(RegionEncoder):
    """The image is resized to the tower's input size; a region is the mean of its projected patch tokens.

    Raises UserError for CoCa's towers, whose pool has queries of its own.
    """

    def __init__(self, visual: VisionTransformer):
        super().__init__(visual)
        if visual.attn_pool is not None:
            raise UserError(
                "clip_model has the image tower of a CoCa: its pool asks with many queries, none of which is "
                "for a region; take a ViT with a class token (ViT-B-32, ...)"
            )

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        tokens = self.visual.forward_intermediates(
            _resized(pixels, self.visual.image_size),
            indices=1,
            normalize_intermediates=not self.visual.final_ln_after_pool,
            intermediates_only=True,
        )["image_intermediates"][-1]
        if self.visual.final_ln_after_pool:
            return tokens
        return torch.einsum("bchw,ce->behw", tokens, self.visual.proj)

    def embed(self, cells: Tensor) -> Tensor:
        if not self.visual.final_ln_after_pool:
            return cells.flatten(1)
        return self.visual.ln_post(cells.flatten(1)) @ self.visual.proj


@encodes(TimmModel)
def timm_encoder(visual: TimmModel) -> RegionEncoder:
    """The region encoder of open_clip's wrapper of a timm trunk. Raises UserError for one without."""
    trunk: Any = visual.trunk
    if not hasattr(trunk, "num_prefix_tokens"):
        return TimmConvEncoder(visual)
    pool = getattr(trunk, "attn_pool", None)
    if pool is not None:
        return TimmAttentionPoolEncoder(visual)
    return TimmTokenEncoder(visual)


def _refuse_timm(visual: TimmModel, reason: str) -> UserError:
    return UserError(
        f"clip_model has a timm image tower of kind {type(visual.trunk).__name__}, {reason}; the semantic "
        "branch takes those with a mean pool (convnext_base_w, ...) and ViTs (ViT-B-16-SigLIP, ...)"
    )


class TimmConvEncoder(RegionEncoder):
    """A timm trunk whose map is pooled by its mean (ConvNeXt, EfficientNet, FastViT): so is a region.

    With a pool of positions (`timm_pool` 'abs_attn', 'rot_attn') a region is RoIAligned to the pool's grid.
    Trunks that take images of one size only (Swin) get them resized.
    Raises UserError for other pools.
    """

    def __init__(self, visual: TimmModel):
        super().__init__(visual)
        trunk: Any = visual.trunk
        self._is_nhwc = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        self._size = _only_size(visual)
        has_pool = hasattr(visual.head, "pool")
        if not has_pool and not self._pools_by_mean():
            raise _refuse_timm(visual, "whose pool is not the mean of a map")
        reduction = trunk.feature_info[-1]["reduction"]
        self.stride = None if self._size else float(reduction)
        if has_pool:
            self.grid = max(1, visual.image_size[0] // reduction)

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        features = self.visual.trunk.forward_features(_resized(pixels, self._size) if self._size else pixels)
        return features.permute(0, 3, 1, 2) if self._is_nhwc else features

    def embed(self, cells: Tensor) -> Tensor:
        return self.visual.head(self._pooled(cells))

    def _pooled(self, cells: Tensor) -> Tensor:
        return self.visual.trunk.forward_head(cells.permute(0, 2, 3, 1) if self._is_nhwc else cells)

    @torch.no_grad()
    def _pools_by_mean(self) -> bool:
        """Whether the trunk's head takes a map, and gives the same for cells as for their mean."""
        parameter = next(self.visual.trunk.parameters())
        channels = self.visual.trunk.num_features
        cells = torch.arange(channels * 6).sin().view(1, channels, 2, 3).to(parameter)
        try:
            of_cells, of_mean = self._pooled(cells), self._pooled(cells.mean((2, 3), keepdim=True))
        except (RuntimeError, ValueError, IndexError):  # a head for tokens
            return False
        return of_cells.shape == of_mean.shape and torch.allclose(of_cells, of_mean, rtol=1e-3, atol=1e-4)


class TimmTokenEncoder(RegionEncoder):
    """A ViT of timm: the mean of a region's patch tokens passes through the tower's head.

    Where the tower allows, its position embeddings are interpolated to the size of the batch; else the image
    is resized to the tower's size.
    Raises UserError for a trunk without a patch grid.
    """

    def __init__(self, visual: TimmModel):
        super().__init__(visual)
        trunk: Any = visual.trunk
        if not hasattr(trunk, "patch_embed") or hasattr(trunk, "head_dist"):
            raise _refuse_timm(visual, "whose tokens are no single patch grid with one head")
        self._size = None if _accept_any_size(trunk) else _only_size(visual) or visual.image_size
        self._patch = trunk.patch_embed.feat_ratio(as_scalar=False)
        self.stride = None if self._size else float(self._patch[0])

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        if self._size:
            pixels = _resized(pixels, self._size)
        else:
            height, width = pixels.shape[-2:]
            pixels = F.pad(pixels, (0, -width % self._patch[1], 0, -height % self._patch[0]))
        grid = tuple(side // patch for side, patch in zip(pixels.shape[-2:], self._patch, strict=True))
        trunk = self.visual.trunk
        rope = getattr(trunk, "rope", None)
        if rope is not None and not self._size and tuple(rope.feat_shape) != grid:
            rope.update_feat_shape(grid)
        tokens = trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, grid)

    def embed(self, cells: Tensor) -> Tensor:
        trunk = self.visual.trunk
        # Class token or mean of the patches, whichever the tower pools: each is the region's mean.
        tokens = cells.flatten(2).transpose(1, 2).expand(-1, trunk.num_prefix_tokens + 1, -1)
        return self.visual.head(trunk.forward_head(tokens))


class TimmAttentionPoolEncoder(TimmTokenEncoder):
    """A ViT of timm with an attention pool (SigLIP, PE): its query attends to the patches of the region.

    Attention is a weighted mean with weights exp(query . key), so the means over a region of weight and of
    weighted value are all that it takes: they are the map, and a region costs no more than elsewhere.
    Class tokens describe the whole image; regions leave them out.
    Raises UserError for a pool of another kind.
    """

    # Relative to the image's largest logit; exp of it is still a normal float32.
    least_logit = -80.0

    def __init__(self, visual: TimmModel):
        super().__init__(visual)
        pool = self.visual.trunk.attn_pool
        if not isinstance(pool, AttentionPoolLatent) or pool.latent_len != 1 or pool.pos_embed is not None:
            raise _refuse_timm(visual, "whose attention pool is not one query without positions")

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """Per head: the weight, then the weighted value, (B, heads (1 + D / heads), h, w)."""
        cells = super().features(pixels)
        pool = self.visual.trunk.attn_pool
        tokens = cells.flatten(2).transpose(1, 2)
        query = pool.q_norm(pool.q(pool.latent).unflatten(2, (pool.num_heads, -1)))[0, 0]
        key, value = pool.kv(tokens).unflatten(2, (2, pool.num_heads, -1)).unbind(2)
        query, key, value = (at_least_float32(t) for t in (query, pool.k_norm(key), value))
        # Not a matrix product: autocast would round it to 16 bit.
        logits = (query * pool.scale * key).sum(-1).transpose(1, 2)
        logits = (logits - logits.amax(2, keepdim=True)).clamp(min=self.least_logit)
        weight = logits.exp()[:, :, None]
        weighted = torch.cat((weight, weight * value.permute(0, 2, 3, 1)), dim=2)
        return weighted.flatten(1, 2).unflatten(2, cells.shape[-2:])

    def embed(self, cells: Tensor) -> Tensor:
        trunk = self.visual.trunk
        pool = trunk.attn_pool
        heads = cells.flatten(1).unflatten(1, (pool.num_heads, -1))
        # A region outside of the map has no weight.
        weight = heads[..., :1].clamp(min=torch.finfo(heads.dtype).tiny)
        pooled = pool.proj((heads[..., 1:] / weight).flatten(1))
        if pool.mlp is not None:
            pooled = pooled + pool.mlp(pool.norm(pooled))
        return self.visual.head(trunk.head(trunk.fc_norm(pooled)))


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)


def _only_size(visual: TimmModel) -> tuple[int, int] | None:
    """(height, width) of a trunk that takes images of no other size; open_clip's image_size may differ."""
    trunk: Any = visual.trunk
    if not (getattr(trunk, "default_cfg", None) or {}).get("fixed_input_size"):
        return None
    embed = getattr(trunk, "patch_embed", None)
    return tuple(getattr(embed, "img_size", None) or visual.image_size)


def _accept_any_size(trunk: Any) -> bool:
    """Lets a ViT interpolate its position embeddings, as timm's `dynamic_img_size=True`. False: it cannot."""
    if not hasattr(trunk, "dynamic_img_size"):
        return False
    rope = getattr(trunk, "rope", None)
    if rope is not None and (
        getattr(rope, "feat_shape", None) is None or not hasattr(rope, "update_feat_shape")
    ):
        return False
    trunk.dynamic_img_size = True
    embed = trunk.patch_embed
    embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, Format.NHWC
    return True
