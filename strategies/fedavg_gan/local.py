"""Federated averaging of GANs, a centre's half: local steps from the round's averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from federation.wire.transport import decode, encode_noting_error
from models import GenerativeModel, GenerativeTrainer, GeneratorSpec, PatchArrays, Phase, Precision
from models.federated_parts import TRAVELLING, averaged_state, load_averaged, parts
from models.schedule import Schedule
from strategies.bodies import Body, Compute, Course, OfTask
from strategies.cells import MEMORY
from strategies.centre_side import CentreSide, as_arrays, boxes_as_weight, introduction, joined, training_patches
from strategies.kind import Answer, Arrays, Field, Kind, Layout, Received, Sent, Start
from strategies.layouts import averaged_layout, encoded, prefixed
from strategies.members import GLOBAL, LOCAL, Weights
from strategies.one_shot import card_fields
from strategies.sums import SUMMED, Summed, sum_kinds, summed_answer, summed_layout, weight_layout


class LocalRules(Body):
    """What a centre does with the weights that it gets, and what it keeps.

    Attributes:
        optimizer: keep its moments over rounds, or begin anew with each.
        batch_norm: take over the averaged statistics, or go on with its own.
        ema: average the moving averages of the centres, or rebuild one on the server.
        proximal_mu: weight of FedProx's term, mu / 2 |w - w_round|^2, in the loss of every network (Li et al. 2020).
    """

    optimizer: Literal["keep", "reset"] = "keep"
    batch_norm: Literal["average", "local"] = "average"
    ema: Literal["average", "rebuild"] = "average"
    proximal_mu: float = 0.0


class TrainRound(OfTask, Course):
    """Arguments of `work`.

    Attributes:
        build_seed: of the model's initial weights, the same for all members.
        seed: of this centre's streams.
        pools: foreign real patches that a central model trains on, too.
    """

    generator: GeneratorSpec
    rules: LocalRules
    build_seed: int
    seed: int
    pools: tuple[str, ...]
    compute: Compute


class TrainSummedRound(TrainRound, Summed):
    """Arguments of `work_summed`."""


def work(here: CentreSide, body: TrainRound, arrays: Arrays, state: Arrays) -> tuple[Answer, Arrays]:
    """A round at one centre."""
    weights, kept, facts, examples, introduced = _trained(here, body, arrays, state)
    sent, error = encode_noting_error(weights, body.transport)
    answer = facts | {"examples": examples, "transport_error": error} | introduced
    return (answer, {LOCAL + name: array for name, array in sent.items()}), kept


def work_summed(here: CentreSide, body: TrainSummedRound, arrays: Arrays, state: Arrays) -> tuple[Answer, Arrays]:
    """The same round, of which only the sum over all centres can be read."""
    weights, kept, _, examples, introduced = _trained(here, body, arrays, state)
    return (introduced, summed_answer(here, body, weights, examples)), kept


def _trained(
    here: CentreSide, body: TrainRound, arrays: Arrays, state: Arrays
) -> tuple[Weights, Weights, dict[str, Any], int, dict[str, Any]]:
    """(weights, what stays, facts, training patches, introduction)."""
    spec, compute = body.generator, body.compute
    own = training_patches(here, body, spec.labels)
    patches = joined(as_arrays(own), [here.read_pool(unit) for unit in body.pools])
    weights, kept, facts = local_steps(
        spec, patches, _received(body, arrays), state, body.rules, build_seed=body.build_seed, seed=body.seed,
        from_step=body.from_step, steps=body.steps, **compute.options,
        on_progress=here.progress(),
    )  # fmt: skip
    return weights, kept, facts, boxes_as_weight(own), introduction(here, body, own, wanted=body.introduce)


def build(spec: GeneratorSpec, seed: int, *, averaged: bool = True) -> GenerativeModel:
    """The model as all members begin with it, with a moving average if its training has one and `averaged` is set."""
    model = spec.build(seed)
    if averaged and spec.training.averages:
        model.start_average()
    return model


def local_steps(
    spec: GeneratorSpec,
    patches: PatchArrays,
    weights: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    rules: LocalRules,
    *,
    build_seed: int,
    seed: int,
    from_step: int,
    steps: int,
    device: str,
    precision: Precision,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Weights, Weights, dict[str, Any]]:
    """A centre's part of a round.

    Args:
        weights: the round's averaged weights, by name in the model's state dict.
        state: what the centre kept of the round before; empty in its first.
        build_seed: of the model's initial weights, the same for all members.
        seed: of this centre's streams.

    Returns:
        its weights, what it keeps, and facts: scalars of the training, as means over the round.
    """
    model = build(spec, build_seed, averaged=rules.ema == "average")
    training = spec.training if rules.ema == "average" else spec.training.without_average()
    phases = model.phases()
    if rules.proximal_mu:
        received = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        pulled = most_often(Schedule(training, phases))
        phases = [
            proximal(phase, model, received, rules.proximal_mu) if phase.name in pulled else phase for phase in phases
        ]
    trainer = GenerativeTrainer(model, training, seed=seed, device=device, precision=precision, phases=phases)
    if state:
        trainer.load_state({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, strict=False)
    statistics = rules.batch_norm == "average" or not state
    load_averaged(model, {name: torch.from_numpy(np.array(a)) for name, a in weights.items()}, statistics=statistics)
    trainer.step = from_step
    fit = trainer.advance(patches, from_step + steps, on_progress)
    kept = kept_state(trainer, rules)
    facts = {"scalars": {name: _mean(values) for name, values in fit.scalars.items()}}
    return arrays_of(averaged_state(model)), arrays_of(kept), facts


def kept_state(trainer: GenerativeTrainer, rules: LocalRules) -> dict[str, Tensor]:
    """The part of a trainer's state that stays at the centre and that the next round goes on with."""
    part_of = parts(trainer.model)
    received = set(TRAVELLING) - ({"statistic"} if rules.batch_norm == "local" else set())
    kept = {}
    for name, tensor in trainer.state().items():
        kind, _, rest = name.partition(".")
        if kind == "model" and part_of[rest] in received:
            continue
        if kind == "optimizer" and rules.optimizer == "reset":
            continue
        kept[name] = tensor
    return kept


def most_often(schedule: Schedule) -> set[str]:
    """For each network, the name of the phase that steps it most often in the whole schedule: the first, where several do.

    The proximal term belongs to a network's loss once. A lazy regulariser of the same network would add it again.
    """
    first: dict[str, tuple[float, str]] = {}
    for phase in schedule.phases:
        often = sum(stage.steps * phase.repeats_in(stage.number) for stage in schedule.stages) / phase.interval
        if phase.network not in first or often > first[phase.network][0]:
            first[phase.network] = often, phase.name
    return {name for _, name in first.values()}


def proximal(phase: Phase, model: GenerativeModel, received: Mapping[str, Tensor], mu: float) -> Phase:
    """The phase with mu / 2 |w - w_received|^2 added to its weighted loss, over the network that it steps.

    The phase's gain is of its own loss; the term keeps its strength.
    """
    network: nn.Module = model.networks[phase.network]
    anchors = [
        (parameter, received[f"networks.{phase.network}.{name}"]) for name, parameter in network.named_parameters()
    ]

    def loss(batch: Any, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        plain, logs = phase.weighted_loss(batch, rng)
        distance = sum(
            ((p - anchor.to(p.device)).square().sum() for p, anchor in anchors), torch.zeros((), device=plain.device)
        )
        return plain + 0.5 * mu * distance, logs | {f"{phase.name}_drift": distance.detach()}

    return replace(phase, loss=loss, gain=1.0, losses="its proximal term is of the weights, not of an image")


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def arrays_of(state: Mapping[str, Tensor]) -> Weights:
    """Tensors on the CPU as arrays of the same memory."""
    return {name: tensor.numpy() for name, tensor in state.items()}


def _averaged(body: TrainRound) -> Layout:
    return averaged_layout(body.generator, averaged_generator=body.rules.ema == "average")


def _travelling(body: TrainRound) -> Layout:
    return encoded(_averaged(body), body.transport)


def _received(body: Any, arrays: Arrays) -> Weights:
    return decode({name.removeprefix(GLOBAL): array for name, array in arrays.items()}, body.transport)


def _initial(body: TrainRound) -> Weights:
    return arrays_of(averaged_state(build(body.generator, body.build_seed, averaged=body.rules.ema == "average")))


def statistics_of(model: nn.Module) -> frozenset[str]:
    """Names of batch norm's statistics in a model's state."""
    return frozenset(name for name, part in parts(model).items() if part == "statistic")


def _statistics(body: TrainRound) -> frozenset[str]:
    return statistics_of(build(body.generator, body.build_seed, averaged=body.rules.ema == "average"))


COURSE_FIELDS = (
    Field("scalars.*", "numbers", "losses, means over the steps of the job", "aggregate"),
    Field("transport_error", "number", "rounding of what travels"),
    Field("examples", "count", "how many training boxes take part, rounded to 5, as weight of the answer", "counts"),
)
TRAIN_ROUND = Kind(
    name="train_round",
    title="train a round",
    phase="share",
    body=TrainRound,
    work=work,
    stateful=True,
    averaged=True,
    answer=(*COURSE_FIELDS, *card_fields("in the first answer")),
    sends=(
        Sent("weights.*", "weights", "generator and discriminator after local steps, and state of the model that is averaged "
             f"with them; {MEMORY}", "model",
             layout=lambda body: prefixed(_travelling(body), LOCAL)),
    ),
    receives=(Received("global.*", lambda body: prefixed(_travelling(body), GLOBAL)),),
    place=("round",),
    start=Start("round", _received, _initial, _statistics),
)  # fmt: skip
TRAIN_SUMMED_ROUND = Kind(
    name="train_summed_round",
    title="train a round of a secure sum",
    phase="share",
    body=TrainSummedRound,
    work=work_summed,
    stateful=True,
    averaged=True,
    masked=lambda body: body.masked,
    place=("round", "attempt"),
    start=TRAIN_ROUND.start,
    answer=card_fields("in the first answer"),
    sends=(
        Sent("weights.*", "masked weights", f"weights as of a round: {SUMMED}", "model",
             layout=lambda body: summed_layout(_averaged(body))),
        Sent("weight", "masked count", f"how many training patches take part: {SUMMED}", "counts", layout=weight_layout),
    ),
    receives=TRAIN_ROUND.receives,
)  # fmt: skip
SUM_KINDS = sum_kinds("share", ("sum_keys", "sum_shares", "sum_survivors", "sum_opening"))
