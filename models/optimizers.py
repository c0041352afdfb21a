"""Torch's optimizers without its compiler.

torch.optim keeps some of its methods out of `torch.compile`, and to do so imports the compiler when the first optimizer is made:
3 s of a processor and 100 MB, in every process that trains. Nothing here is compiled. These classes are torch's own with the
methods below those marks; where a version of torch has no mark, the method is torch's.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T", bound=torch.optim.Optimizer)
_MARKED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _uncompiled(optimizer: type[T]) -> type[T]:
    methods: dict[str, Any] = {name: _below(getattr(optimizer, name)) for name in _MARKED}
    # The mark of `step` also turns gradients off.
    methods["step"] = torch.no_grad()(_below(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)


def _below(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


AdamW = _uncompiled(torch.optim.AdamW)
SGD = _uncompiled(torch.optim.SGD)
