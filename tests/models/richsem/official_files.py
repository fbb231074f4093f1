"""Official checkpoints in miniature: our tiny models under the release's names."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from models.richsem.clip import freeze
from tests.models.tiny import clip_settings

# ours -> the release's; {i} stands for every decoder layer. Written from the release's manifests.
NAMES = (
    (r"backbone\.body\.", ("backbone.0.body.",)),
    (r"neck\.projections\.", ("input_proj.",)),
    (r"encoder\.level_embed", ("transformer.level_embed",)),
    (r"(encoder|decoder)\.layers\.(\d+)\.ffn\.", (r"transformer.\1.layers.\2.",)),
    (r"(encoder|decoder)\.layers\.", (r"transformer.\1.layers.",)),
    (r"decoder\.norm\.", ("transformer.decoder.norm.",)),
    (r"decoder\.query_position\.", ("transformer.decoder.ref_point_head.",)),
    (r"query_selection\.content\.", ("transformer.tgt_embed.",)),
    (r"query_selection\.projection\.", ("transformer.enc_output.",)),
    (r"query_selection\.norm\.", ("transformer.enc_output_norm.",)),
    (r"query_selection\.box_head\.", ("transformer.enc_out_bbox_embed.",)),
    (r"query_selection\.classifier\.projection\.", ("transformer.enc_out_class_embed.dino_visual_proj.",)),
    (r"query_selection\.classifier\.(weight|bias)", (r"transformer.enc_out_class_embed.\1",)),
    (r"head\.box_head\.", ("bbox_embed.{i}.", "transformer.decoder.bbox_embed.{i}.")),
    (r"head\.classifier\.projection\.", ("class_embed.dino_visual_proj.",)),
    (r"head\.semantic_projection\.", ("class_embed.clip_visual_proj.",)),
    (r"head\.classifier\.(weight|bias)", (r"class_embed.{i}.\1", r"transformer.decoder.class_embed.{i}.\1")),
    (r"denoising\.label_embedding\.projection\.", ("class_embed.label_proj.",)),
)
DERIVED = re.compile(r".*\.text\.|denoising\.label_embedding\.classifier\.")
CLIP_OWNERS = ("class_embed", "transformer.enc_out_class_embed")


def openai_clip(seed: int = 11) -> nn.Module:
    """A tiny CLIP whose sizes can be read from its weights: heads are 64 wide."""
    settings = clip_settings()
    settings["text_cfg"] = {**settings["text_cfg"], "width": 64, "heads": 1}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return freeze(open_clip.CLIP(**settings, quick_gelu=True))


def official_names(ours: str, layers: int) -> list[str]:
    """The release's names of one of our tensors."""
    for pattern, theirs in NAMES:
        if re.match(pattern, ours):
            names = [re.sub(pattern, name, ours, count=1) for name in theirs]
            return [
                name.replace("{i}", str(i)) for name in names for i in range(layers if "{i}" in name else 1)
            ]
    raise AssertionError(f"no official name for {ours}")


def official_state(
    state: Mapping[str, Tensor], layers: int, clip: nn.Module | None, owners=CLIP_OWNERS
) -> dict[str, Tensor]:
    """Our model state as the release would have saved it, its CLIP inside."""
    found = {}
    for ours, tensor in state.items():
        if not DERIVED.match(ours):
            found.update({name: tensor.clone() for name in official_names(ours, layers)})
    if clip is not None:
        for owner in owners:
            found[f"{owner}.logit_scale"] = clip.logit_scale.clone()
            found.update({f"{owner}.clip.{k}": v.clone() for k, v in clip.state_dict().items()})
    return found


def write(path: Path, model: Mapping[str, Tensor], **arguments) -> Path:
    """An official file: weights and an argparse Namespace."""
    torch.save({"model": dict(model), "args": argparse.Namespace(**arguments), "epoch": 3}, path)
    return path
