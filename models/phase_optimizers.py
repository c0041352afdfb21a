"""The optimizers of a training: one for each network, and one more for each other name that a phase gives its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.generative_training import GenerativeTraining, rate_factor
from models.optimizer_state import load_optimizer_state, optimizer_state, with_prefix
from models.optimizers import AdamW
from models.phases import Betas, Moment, Phase, PhaseOptimizer


class PhaseOptimizers:
    """See `PhaseOptimizer` for what a phase may choose.

    Raises:
        ValueError: phases that share an optimizer want other settings, or a rate belongs to no parameter.
    """

    def __init__(self, phases: Sequence[Phase], networks: Mapping[str, nn.Module], training: GenerativeTraining):
        self._training = training
        self._parameters = {name: list(network.parameters()) for name, network in networks.items()}
        self._settings: dict[str, PhaseOptimizer] = {}
        self._network: dict[str, str] = {}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        for phase in phases:
            key, settings = key_of(phase), phase.optimizer
            if key not in self._settings:
                self._settings[key], self._network[key] = settings, phase.network
                self._optimizers[key] = _adamw(networks[phase.network], settings, training)
            elif self._settings[key] != settings:
                raise ValueError(
                    f"phase {phase.name!r} shares the optimizer {key!r} and wants other settings; "
                    "give it another optimizer name, or the same settings"
                )

    def prepare(self, phase: Phase, moment: Moment) -> torch.optim.Optimizer:
        """The phase's optimizer, at the rate and betas of this moment, with all gradients of its network cleared."""
        key = key_of(phase)
        optimizer, own, training = self._optimizers[key], self._settings[key], self._training
        rate = training.learning_rate if own.learning_rate is None else own.learning_rate
        rate *= rate_factor(moment.step, training)
        rate *= own.factor(moment) if callable(own.factor) else own.factor
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        if callable(own.betas):
            for group in optimizer.param_groups:
                group["betas"] = _lazy_betas(own.betas(moment), own)
        optimizer.zero_grad(set_to_none=True)
        return optimizer

    def clip(self, phase: Phase) -> None:
        """Shorten the gradient to the phase's largest norm, if it has one."""
        own = phase.optimizer.clip_norm
        norm = self._training.clip_norm if own is None else own
        if norm is not None and norm != math.inf:
            nn.utils.clip_grad_norm_(self._parameters[phase.network], norm)

    def reset(self) -> None:
        """Begin anew: all moments are forgotten."""
        for optimizer in self._optimizers.values():
            optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """By "<network>.<parameter number>.<name>"; an optimizer with a name is "<network>:<name>"."""
        return {
            f"{key}.{name}": tensor
            for key, optimizer in self._optimizers.items()
            for name, tensor in optimizer_state(optimizer, self._parameters[self._network[key]]).items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`; an optimizer that it lacks begins anew.

        Raises:
            ValueError: it holds an optimizer that is not among these.
        """
        unknown = sorted({name.partition(".")[0] for name in state} - set(self._optimizers))
        if unknown:
            raise ValueError(f"the state has an optimizer {unknown[0]!r}; there are {', '.join(self._optimizers)}")
        for key, optimizer in self._optimizers.items():
            load_optimizer_state(optimizer, self._parameters[self._network[key]], with_prefix(state, f"{key}."))


def key_of(phase: Phase) -> str:
    """Name of the phase's optimizer."""
    assert "." not in phase.optimizer.name, "a point ends the optimizer's name in a state"
    return f"{phase.network}:{phase.optimizer.name}" if phase.optimizer.name else phase.network


def _adamw(network: nn.Module, own: PhaseOptimizer, training: GenerativeTraining) -> torch.optim.Optimizer:
    groups: dict[float, list[nn.Parameter]] = {}
    unused = set(own.rates)
    for name, parameter in network.named_parameters():
        fitting = [prefix for prefix in own.rates if name.startswith(prefix)]
        unused -= set(fitting)
        groups.setdefault(math.prod(own.rates[prefix] for prefix in fitting), []).append(parameter)
    if unused:
        raise ValueError(f"a rate is for parameters {min(unused)!r}, and the network has none whose name begins so")
    lazy = 1.0 if own.lazy_interval is None else own.lazy_interval / (own.lazy_interval + 1)
    betas = training.betas if own.betas is None or callable(own.betas) else own.betas
    return AdamW(
        [{"params": parameters, "factor": lazy * factor} for factor, parameters in groups.items()],
        lr=training.learning_rate,
        betas=_lazy_betas(betas, own),
        weight_decay=training.weight_decay if own.weight_decay is None else own.weight_decay,
        fused=True,
    )


def _lazy_betas(betas: Betas, own: PhaseOptimizer) -> Betas:
    k = own.lazy_interval
    return betas if k is None else (betas[0] ** (k / (k + 1)), betas[1] ** (k / (k + 1)))
