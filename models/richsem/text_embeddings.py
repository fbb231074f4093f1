"""Text embeddings of class names, cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from util.checksum import digest
from util.errors import UserError, first_line
from util.files import atomic_path, cache_directory

logger = logging.getLogger(__name__)

Template = Callable[[str], str]

# The bare name with a full stop, then OpenAI's 80 ImageNet templates.
PROMPTS: tuple[Template, ...] = (lambda name: f"{name}.", *open_clip.OPENAI_IMAGENET_TEMPLATES)
BATCH = 256
# The entry of a cache file's metadata that holds the checksum of its embeddings.
_CHECKSUM = "sha256"


def templates_of(prompts: Sequence[str]) -> tuple[Template, ...]:
    """The templates that `prompts` spell, with {} where the name goes; none are the default `PROMPTS`.

    Raises UserError for a prompt without {}.
    """
    if without := [prompt for prompt in prompts if "{}" not in prompt]:
        raise UserError(f"prompt {without[0]!r} has no {{}}, the place of the name: 'a photo of a {{}}.'")
    # Not str.format: other braces are part of the prompt.
    return tuple(partial(_fill, prompt) for prompt in prompts) or PROMPTS


def _fill(prompt: str, name: str) -> str:
    return prompt.replace("{}", name)


def text_embeddings(
    clip: nn.Module,
    tokenizer: Callable,
    names: Sequence[str],
    cache_dir: str | Path = "",
    unused: Sequence[int] = (),
    templates: Sequence[Template] | None = None,
) -> Tensor:
    """Mean of the un-normalised text encodings of every name's prompts: (C, E) float32, on the CPU.

    names are used unchanged (LVIS names keep their underscores). unused: columns without a class; their name
    is encoded without prompts, as the release does with 'none'. templates: in place of `PROMPTS`. The result
    is cached in `cache_dir` ('' = the cache folder of `util.files`) under a key of text weights, prompts and
    names: a second call only reads it. A damaged file is made anew.
    Raises UserError where CLIP's encodings are not finite.
    """
    templates = templates or PROMPTS
    folder = Path(cache_dir or cache_directory()).expanduser()
    path = folder / f"text-{cache_key(clip, names, unused, templates)}.safetensors"
    cached = _read(path, len(names))
    if cached is not None:
        return cached
    logger.info("encoding %d class names with %d prompts each", len(names), len(templates))
    embeddings = encode(clip, tokenizer, names, unused, templates)
    if wrong := [name for name, row in zip(names, embeddings, strict=True) if not row.isfinite().all()]:
        raise UserError(
            f"CLIP's text embedding of {wrong[0]!r} is not finite ({len(wrong)} of {len(names)} names): its "
            "weights are damaged"
        )
    _write(path, embeddings)
    return embeddings


@torch.no_grad()
def encode(
    clip: nn.Module,
    tokenizer: Callable,
    names: Sequence[str],
    unused: Sequence[int] = (),
    templates: Sequence[Template] | None = None,
) -> Tensor:
    """`text_embeddings` without the cache: on the model's device, in its precision, in batches of prompts."""
    device = next(clip.parameters()).device
    bare: Sequence[Template] = (str,)
    asked = [bare if i in set(unused) else templates or PROMPTS for i in range(len(names))]
    counts = [len(each) for each in asked]
    prompts = [prompt(name) for name, each in zip(names, asked, strict=True) for prompt in each]
    chunks = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
    encoded = torch.cat([clip.encode_text(tokenizer(chunk).to(device)) for chunk in chunks])
    return torch.stack([rows.mean(0) for rows in encoded.split(counts)]).float().cpu()


def cache_key(
    clip: nn.Module,
    names: Sequence[str],
    unused: Sequence[int] = (),
    templates: Sequence[Template] | None = None,
) -> str:
    """Digest of everything the embeddings depend on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        if not name.startswith("visual."):
            digest.update(name.encode() + repr(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    digest.update(f"{type(clip).__name__} {_activation(clip)}".encode())
    spelled = [prompt("{}") for prompt in templates or PROMPTS]
    digest.update(json.dumps([spelled, list(names), sorted(unused)]).encode())
    return digest.hexdigest()[:32]


def _activation(clip: nn.Module) -> str:
    """The text tower's activation: QuickGELU and GELU models can have the same weights."""
    kinds = {type(m).__name__ for n, m in clip.named_modules() if "gelu" in n and "visual" not in n}
    return ",".join(sorted(kinds))


def _read(path: Path, rows: int) -> Tensor | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            embeddings, noted = file.get_tensor("embeddings"), (file.metadata() or {}).get(_CHECKSUM)
        if embeddings.ndim != 2 or len(embeddings) != rows:
            raise ValueError(f"its shape is {tuple(embeddings.shape)}")
        if embeddings.dtype != torch.float32 or not embeddings.isfinite().all():
            raise ValueError("its numbers are not finite float32")
        if noted != digest({"embeddings": embeddings}, ""):
            raise ValueError("its checksum does not fit" if noted else "it has no checksum")
    except (SafetensorError, OSError, ValueError) as error:
        logger.warning(
            "text embedding cache %s is damaged (%s); encoding the names again", path, first_line(error)
        )
        return None
    return embeddings


def _write(path: Path, embeddings: Tensor) -> None:
    """Atomically: several ranks may write the same file at once."""
    embeddings = embeddings.contiguous()
    try:
        with atomic_path(path) as temporary:
            content = {"embeddings": embeddings}
            save_file(content, temporary, {_CHECKSUM: digest(content, "")})
    except (OSError, SafetensorError) as error:
        logger.warning("text embeddings could not be cached at %s: %s", path, first_line(error))
