"""Linear operators with an adjoint of their own, for which derivatives of any order exist.

Torch differentiates what it knows step by step. Where a linear map is cheaper written out of place, on overlapping views or in
one pass, it is given with its adjoint instead: each is the other's derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Operator, adjoint: Operator) -> Tensor:
        ctx.pair = operator, adjoint
        return operator(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        operator, adjoint = ctx.pair
        return _Linear.apply(gradients[0], adjoint, operator), None, None


def linear(x: Tensor, operator: Operator, adjoint: Operator) -> Tensor:
    """`operator(x)`, differentiated by `adjoint`. Both must be linear, and each the other's transpose."""
    return _Linear.apply(x, operator, adjoint)
