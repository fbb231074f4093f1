"""The feed-forward block of a transformer layer; backward computes its wide hidden map again."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.dino.layers import at_least_float32
from models.dino.ops.linear import Linear, has_own_backward, product

# Rows of the hidden map that a CPU computes at a time. They stay in its cache, and in memory that the process
# has: fetching 100 MB anew from the system takes as long as a third of the product.
ROWS = 1024


class FeedForward(nn.Module):
    """A norm, and two linear layers with ReLU and dropout around which the norm's output is added.

    recompute: the hidden map, `hidden_dim / dim` times as large as the tokens, and the norm's output are not
        kept for the backward pass but computed again there. The same gradients, for one more product with
        `linear1`. Where there is dropout, all is kept. Hooks of the two layers are then not called.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float, recompute: bool = True):
        super().__init__()
        self.recompute = recompute
        self.linear1 = Linear(dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Float[Tensor, "*shape D"], norm: nn.LayerNorm) -> Float[Tensor, "*shape D"]:
        """y + linear2(relu(linear1(y))) of y = norm(x)."""
        drops = self.training and self.dropout.p > 0
        if self.recompute and not drops and has_own_backward(x):
            one, two = self.linear1, self.linear2
            parameters = (norm.weight, norm.bias, one.weight, one.bias, two.weight, two.bias)
            return _NormedFeedForward.apply(norm.eps, x, *parameters)
        y = norm(x)
        return y + self.dropout(self.linear2(self.dropout(torch.relu(self.linear1(y)))))


class _NormedFeedForward(torch.autograd.Function):
    """Keeps its input alone, and uses the operators that autograd would use."""

    @staticmethod
    def forward(ctx: Any, eps: float, x: Tensor, *parameters: Tensor) -> Tensor:
        weight, bias, weight1, bias1, weight2, bias2 = parameters
        x = x.contiguous()
        ctx.eps = eps
        ctx.save_for_backward(x, *parameters)
        result = torch.empty_like(x)
        for rows, out in zip(_parts(x), _parts(result), strict=True):
            y = torch.native_layer_norm(rows, rows.shape[-1:], weight, bias, eps)[0]
            hidden = torch.relu_(product(y, weight1, bias1))
            torch.add(product(hidden, weight2, bias2), y, out=out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, weight1, bias1, weight2, _ = ctx.saved_tensors
        needs, shape = ctx.needs_input_grad, x.shape[-1:]
        grads_x: list[Tensor] = []
        sums: tuple[Tensor | None, ...] = ()
        for rows, grad_rows in zip(_parts(x), _parts(grad.contiguous()), strict=True):
            y, mean, scale = torch.native_layer_norm(rows, shape, weight, bias, ctx.eps)
            hidden = torch.relu_(product(y, weight1, bias1))
            grad_hidden = torch.ops.aten.threshold_backward(product(grad_rows, weight2.T), hidden, 0)
            grad_y = product(grad_hidden, weight1.T).add_(grad_rows)
            grad_x, *of_norm = torch.ops.aten.native_layer_norm_backward(
                grad_y, rows, shape, mean, scale, weight, bias, needs[1:4]
            )
            grads_x.append(grad_x)
            part = (
                *of_norm,
                product(grad_hidden.T, y.T) if needs[4] else None,
                grad_hidden.sum(0) if needs[5] else None,
                product(grad_rows.T, hidden.T) if needs[6] else None,
                grad_rows.sum(0) if needs[7] else None,
            )
            sums = tuple(map(_sum, sums, part)) if sums else part
        whole = grads_x[0] if len(grads_x) == 1 else torch.cat(grads_x)
        return None, whole.view_as(x) if needs[1] else None, *sums


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """(..., D) -> views of rows (n, D) that are computed together, at least one."""
    rows = x.flatten(0, -2)
    return rows.split(ROWS) if x.device.type == "cpu" else (rows,)


def _sum(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """In at least float32: the sum of many 16-bit ones would be rounded many times."""
    return None if total is None or part is None else at_least_float32(total).add_(part)
