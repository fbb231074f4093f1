"""A timm trunk with pretrained weights as the image tower of the small CLIP."""

from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from models.dino.backbone import read_state
from util.errors import UserError, first_line, nearest
from util.torch_file import bare_name


def timm_state(name: str, file: Path) -> dict[str, Tensor]:
    """The weights of a file under timm's names for the model `name`.

    Where no name of the file is timm's, its tensors must be those of the model in number, order, shape and
    last part of the name ('weight', 'running_mean'): other packages hold timm's models under other names.
    Raises UserError for an unknown model, a file that is absent or damaged, or tensors that do not fit.
    """
    own = _shapes(name)
    if not file.is_file():
        raise UserError(f"trunk weights {file} do not exist")
    state = {bare_name(k): v for k, v in read_state(file).items() if isinstance(v, Tensor)}
    if not any(k in own for k in state):
        _check_order(own, state, name, file)
        return dict(zip(own, state.values(), strict=True))
    return state


def _shapes(name: str) -> dict[str, Tensor]:
    try:
        with torch.device("meta"):
            return timm.create_model(name).state_dict()
    except RuntimeError as error:  # timm's, for a name that it does not know
        raise UserError(f"trunk {name!r}: {first_line(error)}{nearest(name, timm.list_models())}") from error


def _check_order(own: dict[str, Tensor], state: dict[str, Tensor], name: str, file: Path) -> None:
    if len(own) != len(state):
        raise UserError(f"{file} does not fit {name!r}: it has {len(state)} tensors, the model {len(own)}")
    for (wanted, expected), (given, found) in zip(own.items(), state.items(), strict=True):
        kinds = wanted.rsplit(".", 1)[-1], given.rsplit(".", 1)[-1]
        if expected.shape != found.shape or kinds[0] != kinds[1]:
            raise UserError(
                f"{file} does not fit {name!r}: {given} {tuple(found.shape)} lies where {wanted} "
                f"{tuple(expected.shape)} belongs"
            )


@torch.no_grad()
def load_trunk(visual: Any, name: str, file: Path) -> None:
    """Loads pretrained weights into the trunk of open_clip's `TimmModel`, which then takes CLIP's pixels.

    Raises UserError as `timm_state`, and where the trunk's own tensors are not all in the file.
    """
    state, own = timm_state(name, file), visual.trunk.state_dict()
    for key, tensor in own.items():
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, tensor)
        elif key not in state or state[key].shape != tensor.shape:
            raise UserError(f"{file} does not fit {name!r}: no {key} of shape {tuple(tensor.shape)}")
    visual.trunk.load_state_dict({key: state[key] for key in own})
    _take_clips_pixels(visual.trunk, name)


def _take_clips_pixels(trunk: Any, name: str) -> None:
    """Moves the step from CLIP's mean and standard deviation to the trunk's own into its first convolution.

    The same numbers but for the border, where a convolution pads with zeros.
    """
    config = trunk.default_cfg
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    scale = torch.tensor(OPENAI_DATASET_STD) / std
    shift = (torch.tensor(OPENAI_DATASET_MEAN) - mean) / std
    convolution = trunk.get_submodule(config["first_conv"])
    constant = (convolution.weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    norm = getattr(trunk, "bn1", None)
    if convolution.bias is not None:
        convolution.bias += constant
    elif norm is not None:
        norm.running_mean -= constant
    else:
        raise UserError(f"trunk {name!r}: its first convolution has neither a bias nor a batch norm 'bn1'")
    convolution.weight *= scale.view(1, 3, 1, 1)
