"""The small open_clip model: a ResNet or a timm trunk with a text transformer. Its two files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from torch import Tensor
from torchvision.ops import roi_align

from models.richsem.clip_resnet import attention_pool, stage_maps
from models.richsem.region_encoders import make_region_encoder
from util.files import atomic_path, atomic_write

STRIDE = 32


@dataclass(frozen=True)
class MiniClipSize:
    """The default keeps the float16 file under 8 MB: more than half of it is the tokenizer's vocabulary.

    trunk: a timm model in place of the ResNet of `vision_layers` and `vision_width`.
    """

    embed_dim: int = 128
    vision_layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    vision_width: int = 16
    image_size: int = 128
    text_width: int = 48
    text_heads: int = 4
    text_layers: int = 2
    context_length: int = 32
    trunk: str = ""


def model_config(size: MiniClipSize) -> dict:
    """open_clip's JSON configuration."""
    vision = {"layers": list(size.vision_layers), "width": size.vision_width}
    if size.trunk:
        vision = {"timm_model_name": size.trunk, "timm_model_pretrained": False}
        vision |= {"timm_pool": "avg", "timm_proj": "linear"}
    return {
        "embed_dim": size.embed_dim,
        "quick_gelu": True,
        "vision_cfg": vision | {"image_size": size.image_size},
        "text_cfg": {
            "context_length": size.context_length,
            "vocab_size": 49408,
            "width": size.text_width,
            "heads": size.text_heads,
            "layers": size.text_layers,
        },
    }


def build(size: MiniClipSize) -> CLIP:
    """The model with fresh weights from torch's global random state."""
    return CLIP(**model_config(size))


def normalise(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 with CLIP's mean and standard deviation."""
    mean, std = (
        torch.tensor(v, device=pixels.device) * 255 for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    # The permutation leaves torch's channels_last layout, in which CPU convolutions are fastest.
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def encode_regions(visual: torch.nn.Module, pixels: Tensor, regions: Tensor) -> Tensor:
    """What RichSem's teacher computes, with gradients: pixels (B, 3, H, W), regions (R, 5) -> (R, E)."""
    if isinstance(visual, TimmModel):
        encoder = make_region_encoder(visual)
        return encoder.pool(encoder.features(pixels), regions, pixels.shape[-2:])
    x = stage_maps(visual, pixels)[-1]
    grid = round((visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)
    pooled = roi_align(x.float(), regions, grid, spatial_scale=1 / STRIDE, aligned=True)
    return attention_pool(visual.attnpool, pooled)


def round_to_file(model: CLIP) -> None:
    """Rounds the weights, in place, to the float16 of the file: what is measured is what is shipped."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(_in_file(name, tensor).to(tensor.dtype))


def _in_file(name: str, tensor: Tensor) -> Tensor:
    """float16, but for the statistics of a trunk's batch norms, which need not fit."""
    statistics = name.startswith("visual.trunk.") and "running_" in name
    return tensor.half() if tensor.is_floating_point() and not statistics else tensor


def save(model: CLIP, size: MiniClipSize, folder: Path, name: str = "mini_clip") -> tuple[Path, Path]:
    """Writes `name.json` and `name.safetensors` (float16).

    `open_clip.add_model_config(json)`, then `open_clip.create_model(name, pretrained=weights)` reads them;
    in a RichSem configuration they are `clip_model` and `clip_pretrained`.
    """
    config, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    with atomic_write(config) as file:
        file.write(json.dumps(model_config(size), indent=2) + "\n")
    state = {k: _in_file(k, v) for k, v in model.state_dict().items()}
    metadata = {"size": json.dumps(asdict(size))}
    with atomic_path(weights) as temporary:
        save_file({k: v.contiguous() for k, v in state.items()}, temporary, metadata=metadata)
    return config, weights
