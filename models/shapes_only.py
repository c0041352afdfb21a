"""Networks without memory: to count parameters and to see whether sizes fit together.

`torch.device("meta")` builds a network of shapes alone. Drawing normal initial values on that device makes torch import its
compiler, which takes some seconds, longer than all the rest of checking a scenario. Nobody needs the values, so none are
drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWS = {"normal_", "trunc_normal_", "kaiming_normal_", "xavier_normal_"}


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:  # of a tensor, or of torch.nn.init, which names it
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors made within have a shape and a dtype, and no values."""
    with torch.device("meta"), _NoDraws():
        yield
