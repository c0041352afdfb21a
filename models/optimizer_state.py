"""What an optimizer remembers of its parameters, as named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """By "<parameter number>.<name>", the optimizer's own tensors."""
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """Inverse of `optimizer_state`; what the optimizer remembered before is forgotten.

    Raises:
        ValueError: a name is of no parameter.
    """
    optimizer.state.clear()
    for key, tensor in state.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or int(number) >= len(parameters):
            raise ValueError(f"the optimizer's state has {key!r}, and there are {len(parameters)} parameters")
        parameter = parameters[int(number)]
        # Moments take the memory layout of their parameter, as when the optimizer made them. A fused optimizer wants the
        # count of steps on the parameter's device.
        count = tensor.ndim == 0 and name == "step"
        optimizer.state[parameter][name] = (
            tensor.clone().to(parameter.device) if count else torch.empty_like(parameter).copy_(tensor)
        )


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
