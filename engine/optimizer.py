"""Parameter groups as the official release forms them (`param_dict_type`), and AdamW over them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.sharded_adamw import ShardedAdamW
from util import distributed
from util.errors import UserError, nearest


@dataclass(frozen=True)
class GroupRules:
    """How a parameter's name decides its learning rate and weight decay.

    kind: 'default' (names containing `backbone` at `lr_backbone`, the rest at `lr`); 'ddetr_in_mmdet'
        (also `linear_proj_names` at `lr * linear_proj_mult`); 'large_wd' (as default, and no weight decay
        where the name contains `norm` or `bias`).
    offsets_mult: multiplies the learning rate of names containing `sampling_offsets`, in every kind.
    """

    kind: str
    lr: float
    lr_backbone: float
    weight_decay: float
    backbone_names: tuple[str, ...] = ("backbone",)
    linear_proj_names: tuple[str, ...] = ("reference_points", "sampling_offsets")
    linear_proj_mult: float = 0.1
    offsets_mult: float = 1.0

    def __post_init__(self) -> None:
        kinds = ("default", "ddetr_in_mmdet", "large_wd")
        if self.kind not in kinds:
            hint = nearest(self.kind, kinds)
            raise UserError(f"param_dict_type={self.kind!r}: unknown; one of {', '.join(kinds)}.{hint}")

    def __call__(self, name: str) -> tuple[float, float]:
        """(learning rate, weight decay) of the parameter called `name`."""
        lr, weight_decay = self.lr, self.weight_decay
        if _contains(name, self.backbone_names):
            lr = self.lr_backbone
        elif self.kind == "ddetr_in_mmdet" and _contains(name, self.linear_proj_names):
            lr = self.lr * self.linear_proj_mult
        if self.kind == "large_wd" and _contains(name, ("norm", "bias")):
            weight_decay = 0.0
        if "sampling_offsets" in name:
            lr *= self.offsets_mult
        return lr, weight_decay


def parameter_groups(named_parameters: Iterable[tuple[str, nn.Parameter]], rules: GroupRules) -> list[dict]:
    """AdamW's groups: every trainable parameter exactly once, those with equal numbers together.

    Groups stand in order of first appearance. A parameter shared by modules counts under its first name.
    """
    groups: dict[tuple[float, float], dict] = {}
    seen: set[int] = set()
    for name, parameter in named_parameters:
        if not parameter.requires_grad or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        lr, weight_decay = rules(name)
        group = groups.setdefault((lr, weight_decay), {"params": [], "lr": lr, "weight_decay": weight_decay})
        group["params"].append(parameter)
    if not groups:
        raise UserError("the model has no trainable parameter")
    return list(groups.values())


def build_adamw(groups: list[dict], betas: tuple[float, float], shard: bool = False) -> torch.optim.AdamW:
    """AdamW in its fused form where every parameter's device has one, else the for-each form.

    shard: spreads its state over the ranks, where there are several.
    """
    parameters = [p for group in groups for p in group["params"]]
    fused = all(p.is_floating_point() and p.device.type in ("cuda", "cpu") for p in parameters)
    kind = ShardedAdamW if shard and distributed.is_distributed() else torch.optim.AdamW
    return kind(groups, betas=betas, fused=fused, foreach=None if fused else True)


def _contains(name: str, words: Sequence[str]) -> bool:
    return any(word in name for word in words)


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict]:
    """Parameter name -> the optimizer's state of it. Independent of how parameters are grouped.

    Called on every rank. Where the state is spread over them, rank 0 alone has it all.
    """
    state = optimizer.whole_state() if isinstance(optimizer, ShardedAdamW) else optimizer.state
    names = _names_by_id(model)
    # In one order, whichever rank a state comes from.
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p in state]
    return {names[id(p)]: dict(state[p]) for p in parameters}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    saved: dict[str, dict],
    was_frozen: Callable[[str], bool] = lambda name: False,
) -> None:
    """The reverse. Learning rates, weight decay and the like stay as configured now.

    saved: empty where no step was made yet. was_frozen: whether the parameter of a name did not train then;
    it starts without state. Raises UserError naming the first other one whose saved state is missing or of
    another shape.
    """
    names = _names_by_id(model)
    current = optimizer.state_dict()
    state = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters if saved else ()):
        name = names[id(parameter)]
        if name not in saved:
            if was_frozen(name):
                continue
            raise UserError(
                f"optimizer state of {name!r}, which trains here, is missing; to start from the weights "
                "alone, use --pretrain_model_path"
            )
        for key, value in saved[name].items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)} there and {tuple(parameter.shape)} here"
                raise UserError(f"optimizer state {key} of {name!r} is {shapes}")
        if not isinstance(optimizer, ShardedAdamW) or optimizer.owns(parameter):
            state[index] = {key: _laid_out_as(parameter, value) for key, value in saved[name].items()}
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def _laid_out_as(parameter: nn.Parameter, value: Any) -> Any:
    """A tensor of the parameter's shape in its order of memory, which the fused form takes for granted."""
    if not isinstance(value, torch.Tensor) or not value.dim() or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _names_by_id(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}
