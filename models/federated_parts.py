"""Which parts of a model a federation averages, and which stay at the centre.

    parameter   weights of the networks and of the averaged generator: averaged
    statistic   running mean and variance of batch norm: averaged, or kept local by choice
    constant    other buffers of networks, of any type (blur kernels, counts of batches, how far a fade-in is): never averaged;
                the same everywhere, or set by `tell` from the moment of the schedule

What a model holds beside its networks (augmentation probability, path-length mean) it declares with `GenerativeModel.hold`:

    averaged    travels and is averaged like a parameter
    local       stays at the centre, from round to round; also what was not declared
    constant    never travels and never changes

Optimizer moments do not belong to a model; they stay at the centre, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.generative import GenerativeModel, cpu_copy

Part = Literal["parameter", "statistic", "averaged", "constant", "local"]
# Parts that travel with every round.
TRAVELLING: tuple[Part, ...] = ("parameter", "statistic", "averaged")
_NETWORKS = ("networks.", "average.")


def parts(model: nn.Module) -> dict[str, Part]:
    """The part that every entry of the model's state dict belongs to.

    Args:
        model: a `GenerativeModel`, or a plain network, whose every module counts as one of its networks.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    statistics = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name in ("running_mean", "running_var")
    }
    held: Mapping[str, Part] = model.held if isinstance(model, GenerativeModel) else {}
    inside = _NETWORKS if isinstance(model, GenerativeModel) else ("",)
    found: dict[str, Part] = {}
    for name in model.state_dict():
        if not name.startswith(inside):
            found[name] = held.get(name, "local")
        elif name in parameters:
            found[name] = "parameter"
        else:
            found[name] = "statistic" if name in statistics else "constant"
    return found


def averaged_state(model: nn.Module, *, copy: bool = True) -> dict[str, Tensor]:
    """What travels, as contiguous copies on the CPU.

    Args:
        copy: False gives the model's own tensors, for callers that need shapes only.
    """
    part_of = parts(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if part_of[name] in TRAVELLING}
    return cpu_copy(state) if copy else state


@torch.no_grad()
def load_averaged(model: nn.Module, state: Mapping[str, Tensor], *, statistics: bool = True) -> None:
    """Load the `averaged_state` of another copy of the model.

    Args:
        statistics: False keeps the model's own batch norm statistics.

    Raises:
        ValueError: names or shapes differ from this model's.
    """
    own, part_of = model.state_dict(), parts(model)
    wanted = {name for name, part in part_of.items() if part in TRAVELLING}
    wrong = sorted(wanted ^ set(state)) or [name for name in wanted if own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(f"weights do not fit the model: {len(wrong)} names or shapes differ, first {wrong[0]!r}")
    for name, tensor in state.items():
        if statistics or part_of[name] != "statistic":
            own[name].copy_(tensor)


@torch.no_grad()
def copy_constants(source: nn.Module, target: nn.Module) -> None:
    """Copy the constant buffers of a plain network into another copy of it, whose weights and statistics stay."""
    ours, theirs = target.state_dict(), source.state_dict()
    for name, part in parts(source).items():
        if part == "constant":
            ours[name].copy_(theirs[name])
