"""AdamW whose state is spread over the ranks: ZeRO, stage 1 (Rajbhandari et al. 2020)."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from util import distributed


def share_out(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank of each part: largest parts first, each to the rank that has least so far."""
    total, owners = [0] * ranks, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owners[index] = total.index(min(total))
        total[owners[index]] += sizes[index]
    return owners


class ShardedAdamW(torch.optim.AdamW):
    """Every rank steps its share of the parameters, keeps their state alone, and sends them to the others.

    The groups hold all parameters, so that the schedule and the gradient scaler work as ever. Updates are
    elementwise: the weights are those of AdamW bit for bit. A step drops the gradients of the others' shares.
    """

    def __init__(self, groups: list[dict], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.parameters: list[nn.Parameter] = [p for group in self.param_groups for p in group["params"]]
        ranks = distributed.world_size()
        owners = share_out([p.numel() for p in self.parameters], ranks)
        self._shares: list[list[nn.Parameter]] = [[] for _ in range(ranks)]
        for owner, parameter in zip(owners, self.parameters, strict=True):
            self._shares[owner].append(parameter)
        self._row = max(sum(p.numel() for p in share) for share in self._shares)
        self._dtype = reduce(torch.promote_types, (p.dtype for p in self.parameters))
        self._own = {id(p) for p in self._shares[distributed.rank()]}

    def owns(self, parameter: Tensor) -> bool:
        """Whether this rank keeps the state of `parameter`."""
        return id(parameter) in self._own

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """On every rank at the same step, with the same gradients."""
        for parameter in self.parameters:
            if not self.owns(parameter):
                parameter.grad = None
        super().step(closure)
        self._exchange()

    def _exchange(self) -> None:
        """Gives every rank the parameters of all shares, in one collective. Needs room for all of them, at a
        time when the activations are gone.
        """
        rank, like = distributed.rank(), self.parameters[0]
        rows = torch.empty((len(self._shares), self._row), dtype=self._dtype, device=like.device)
        targets: list[Tensor] = []
        values: list[Tensor] = []
        for owner, share in enumerate(self._shares):
            sizes = [p.numel() for p in share]
            filled = rows[owner, : sum(sizes)]
            if owner == rank and share:
                torch.cat([p.reshape(-1) for p in share], out=filled)
            elif share:
                targets += share
                values += [v.view(p.shape) for v, p in zip(filled.split(sizes), share, strict=True)]
        distributed.all_gather_rows(rows)
        if targets:
            torch._foreach_copy_(targets, values)

    @torch.no_grad()
    def whole_state(self) -> dict[Tensor, dict[str, Tensor]]:
        """The state of every parameter on rank 0, that of others' shares in memory of the CPU; elsewhere that
        of the own share alone. Called on every rank.
        """
        own = self._shares[distributed.rank()]
        whole: dict[Tensor, dict[str, Tensor]] = {p: dict(self.state[p]) for p in own if p in self.state}
        place = {id(p): index for index, p in enumerate(self.parameters)}
        entries = [(place[id(p)], key, value) for p, state in whole.items() for key, value in state.items()]
        headers = distributed.all_gather_object([(i, key, v.shape, v.dtype) for i, key, v in entries])
        sizes = [[shape.numel() for _, _, shape, _ in header] for header in headers]
        # Counts of steps are float32 at least.
        kind = torch.promote_types(self._dtype, torch.float32)
        flat = torch.cat([v.reshape(-1).to(kind) for _, _, v in entries] or [torch.empty(0, dtype=kind)])
        received = distributed.send_to_main(flat, [sum(each) for each in sizes])
        for header, each, values in zip(headers[1:], sizes[1:], received, strict=False):
            for (index, key, shape, dtype), value in zip(header, values.split(each), strict=True):
                whole.setdefault(self.parameters[index], {})[key] = value.view(shape).to(dtype)
        return whole
