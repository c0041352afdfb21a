"""Federated averaging of GANs (paper 002, a StyleGAN2-ADA trained by three centres; McMahan et al. 2017 for the averaging).

In every round each centre trains generator and discriminator on its own patches for a number of local steps, and the weights
are averaged, weighted by number of patches. What the paper leaves open is a choice here, each tested:

    averaged      weights of both networks and of the moving average of the generator; batch norm's statistics too
    by choice     statistics kept local (`batch_norm: local`); the moving average rebuilt on the server from the averaged
                  generators (`ema: rebuild`); optimizer moments begun anew in every round (`optimizer: reset`)
    never         integer buffers, constant buffers
    local         optimizer moments, augmentation probability, path-length mean: what a model holds beside its networks

One centre alone gives bit for bit what training there without a federation gives: random streams are keyed by the
centre's local step, and the average of one is that one.

`cyclic` is the same with one centre at a time: the networks are passed from centre to centre. `pooled_gan` is a federation
of one centre that was given the patches of the others: the central model that the paper compares with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange
from federation.wire.units import Units, digest
from models import GenerativeModel, GenerativeTrainer, GeneratorSpec, PatchArrays, Phase, Precision
from models.federated_parts import averaged_state, load_averaged, parts
from models.weight_average import average_decay
from strategies.aggregation import Aggregator
from strategies.fidelity import Fidelity
from strategies.one_shot import preview_of
from strategies.pooled import move
from strategies.rounds import Correction, FederationFailed, Member, Outcome, Rounds, RoundSettings, Weights
from strategies.strategy import FederationRecord, Generated, Shared, Strategy, problems_of

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class LocalRules:
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


# -- local half ----------------------------------------------------------------------------------------


def build(spec: GeneratorSpec, seed: int, *, averaged: bool = True) -> GenerativeModel:
    """The model as all members begin with it, with a moving average if its training has one and `averaged` is set."""
    model = spec.build(seed)
    if averaged and spec.training.ema is not None:
        model.start_average()
    return model


def train_round(
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
    training = spec.training if rules.ema == "average" else spec.training.model_copy(update={"ema": None})
    phases = model.phases()
    if rules.proximal_mu:
        received = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        phases = [proximal(phase, model, received, rules.proximal_mu) for phase in phases]
    trainer = GenerativeTrainer(model, training, seed=seed, device=device, precision=precision, phases=phases)
    if state:
        trainer.load_state({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, strict=False)
    statistics = rules.batch_norm == "average" or not state
    load_averaged(model, {name: torch.from_numpy(np.array(a)) for name, a in weights.items()}, statistics=statistics)
    trainer.step = from_step
    trainer.fit.history.clear()
    trainer.fit.history["step"] = []
    fit = trainer.advance(patches, from_step + steps, on_progress)
    kept = kept_state(trainer, rules)
    facts = {
        "scalars": {name: _mean(values) for name, values in fit.history.items() if name != "step"},
        "images_per_step": trainer.images_per_step,
    }
    return _arrays(averaged_state(model)), _arrays(kept), facts


def kept_state(trainer: GenerativeTrainer, rules: LocalRules) -> dict[str, Tensor]:
    """The part of a trainer's state that stays at the centre and that the next round goes on with."""
    part_of = parts(trainer.model)
    received = {"parameter"} | ({"statistic"} if rules.batch_norm == "average" else set())
    kept = {}
    for name, tensor in trainer.state().items():
        kind, _, rest = name.partition(".")
        if kind == "model" and part_of[rest] in received:
            continue
        if kind == "optimizer" and rules.optimizer == "reset":
            continue
        kept[name] = tensor
    return kept


def proximal(phase: Phase, model: GenerativeModel, received: Mapping[str, Tensor], mu: float) -> Phase:
    """The phase with mu / 2 |w - w_received|^2 added to its loss, over the network that it steps."""
    network: nn.Module = model.networks[phase.network]
    anchors = [
        (parameter, received[f"networks.{phase.network}.{name}"]) for name, parameter in network.named_parameters()
    ]

    def loss(batch: Any, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        plain, logs = phase.loss(batch, rng)
        distance = sum(
            ((p - anchor.to(p.device)).square().sum() for p, anchor in anchors), torch.zeros((), device=plain.device)
        )
        return plain + 0.5 * mu * distance, logs | {f"{phase.name}_drift": distance.detach()}

    return replace(phase, loss=loss)


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def _arrays(state: Mapping[str, Tensor]) -> Weights:
    return {name: tensor.numpy() for name, tensor in state.items()}


# -- server half ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Federation:
    """A federated training of one generative model for one task.

    Attributes:
        arm: its row in the table; the generator's name.
        strategy: fedavg_gan, cyclic or pooled_gan.
        series: federation, alone or central: which curve of the convergence plot it is.
        spec: JSON of the `models.GeneratorSpec`.
        build_seed: of the initial weights.
        members: one body per centre: data, task, split, seed, generator, rules, compute.
        pooled: patches that move to the only member before the first round, by centre; see `strategies.pooled`.
        options: of the aggregation.
    """

    arm: str
    task: str
    strategy: str
    series: Literal["federation", "alone", "central"]
    spec: dict[str, Any]
    build_seed: int
    members: Sequence[Member]
    settings: RoundSettings
    rules: LocalRules
    aggregation: str
    options: Mapping[str, Any]
    fidelity: Fidelity
    turns: Literal["all", "cyclic"] = "all"
    pooled: Mapping[str, dict[str, Any]] | None = None


class FedAvgGAN(Strategy):
    """Runs one `Federation`; its generator is shared under the arm's name, unless it is a centre alone."""

    def __init__(self, units: Units, federation: Federation, clock: Clock):
        self._units, self._federation, self._clock = units, federation, clock
        self._rounds: Rounds | None = None

    def share(self, centres: Centres) -> Exchange[Shared]:
        try:
            return (yield from self._share(centres))
        except FederationFailed as problem:
            return Shared(
                problems=[str(problem)], federations=[self._record(self._rounds.done)] if self._rounds else []
            )

    def _record(self, done: Outcome) -> FederationRecord:
        f = self._federation
        return FederationRecord(
            f.arm,
            f.task,
            f.strategy,
            f.series,
            done.round,
            done.summary,
            self._clock.rows,
            done.measured,
            f.settings.transport,
        )

    def _share(self, centres: Centres) -> Exchange[Shared]:
        f = self._federation
        members = list(f.members)
        if f.pooled:
            members = [(yield from self._pooled(centres, members[0], f.pooled))]
        reference = yield from f.fidelity.reference(self._units)
        spec = GeneratorSpec.model_validate(f.spec)
        model = build(spec, f.build_seed)
        initial = _arrays(averaged_state(model))
        plain = [name for name, part in parts(model).items() if part == "statistic" or name.startswith("average.")]
        key = digest({
            "federation": [f.arm, f.task, f.strategy, f.series], "spec": f.spec, "seed": f.build_seed,
            "settings": [f.settings.rounds, f.settings.local_steps, f.settings.quorum, f.settings.round_timeout_s,
                         f.settings.attempts, f.settings.transport, f.settings.step_s],
            "rules": vars(f.rules), "aggregation": [f.aggregation, dict(f.options), f.turns],
            "members": [[m.centre, m.body, list(m.inputs), *self._units.of_centre(m.centre, f.task)] for m in members],
            "fidelity": [f.fidelity.every, f.fidelity.images, list(f.fidelity.spaces), f.fidelity.body, list(reference.units)],
            "code": self._units.code, "clock": self._clock.identity,
        })  # fmt: skip
        label = f.arm if f.series != "alone" else f"{f.arm}: {members[0].centre} alone"
        preview: list[tuple[np.ndarray, np.ndarray]] = []

        def after_round(done: Outcome, now_s: float) -> Exchange[list[dict[str, Any]]]:
            if not f.fidelity.due(done.round, f.settings.rounds):
                return []
            last = done.round == f.settings.rounds
            reply = yield from f.fidelity.measurement(
                self._units, reference, done.identity, self._shared_arrays(spec, done.weights), preview=last,
                label=f"fidelity of {label} after round {done.round}",
            )  # fmt: skip
            if last and (images := preview_of(reply)) is not None:
                preview.append(images)
            return [
                {
                    "series": f.series, "centre": member.centre, "round": done.round, "virtual_s": now_s, "metric": metric,
                    "images_seen": done.steps_of.get(member.centre, 0) * _images_per_step(done), "value": value,
                    "floor": reference.floors[metric],
                }
                for metric, value in reply.body["distances"].items() for member in members
            ]  # fmt: skip

        self._rounds = Rounds(
            self._units, centres, key=key, kind="train_round", label=label, members=members, settings=f.settings,
            aggregator=Aggregator(f.aggregation, f.options, plain), clock=self._clock, initial=initial, turns=f.turns,
            at_server=[name for name in initial if name.startswith("average.") and f.rules.ema == "rebuild"],
            correct=self._rebuild(spec), after_round=after_round,
            introduction=("data_card", "trained_on", "images_per_step"),
        )  # fmt: skip
        done = yield from self._rounds.run()
        record = self._record(done)
        if f.series == "alone":
            return Shared(federations=[record])
        if not preview:  # the run was ended after its last round: what was measured then is recorded
            reply = yield from f.fidelity.measurement(
                self._units, reference, done.identity, self._shared_arrays(spec, done.weights), preview=True,
                label=f"fidelity of {label} after round {done.round}",
            )  # fmt: skip
            preview += [images] if (images := preview_of(reply)) is not None else []
        card = {
            "data_card": {centre: facts["data_card"] for centre, facts in done.facts.items()},
            "trained_on": {centre: facts["trained_on"] for centre, facts in done.facts.items()},
            "history": {},
        }
        made = Generated(
            done.identity, f.spec, self._shared_arrays(spec, done.weights),
            (*(member.centre for member in members), *(f.pooled or {})), card,
            preview[0] if preview else None,
        )  # fmt: skip
        return Shared(generators={(f.arm, f.task): made}, federations=[record])

    def _pooled(self, centres: Centres, host: Member, bodies: Mapping[str, dict[str, Any]]) -> Exchange[Member]:
        replies = yield from move(self._units, centres, host.centre, self._federation.task, bodies)
        problems = problems_of(replies)
        if problems:
            raise FederationFailed("; ".join(problems))
        units = [reply.unit for reply in replies]
        return Member(host.centre, host.body | {"pools": units}, host.task, tuple(units))

    def _shared_arrays(self, spec: GeneratorSpec, weights: Weights) -> Weights:
        """What receivers get: the averaged generator alone."""
        model = build(spec, self._federation.build_seed)
        load_averaged(model, {name: torch.from_numpy(np.array(a)) for name, a in weights.items()})
        return model.shared_arrays()

    def _rebuild(self, spec: GeneratorSpec) -> Correction | None:
        """With `ema: rebuild`: a moving average on the server, in which a round counts as its local steps."""
        decay, steps = spec.training.ema, self._federation.settings.local_steps
        if decay is None or self._federation.rules.ema == "average":
            return None

        def correct(number: int, before: Weights, averaged: Weights) -> Weights:
            kept = math.prod(average_decay(decay, step) for step in range((number - 1) * steps, number * steps))
            rebuilt = {}
            for name, array in before.items():
                new = averaged["networks.generator." + name.removeprefix("average.")]
                # Statistics are averages already.
                rebuilt[name] = (
                    new if name.endswith(_STATISTICS) else (kept * array + (1 - kept) * new).astype(array.dtype)
                )
            return rebuilt

        return correct


def _images_per_step(done: Outcome) -> int:
    return next(iter(done.facts.values()))["images_per_step"]
