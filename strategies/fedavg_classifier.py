"""A classifier that receiver and providers train together, by federated averaging (McMahan et al. 2017; FedProx by choice).

The alternative to sharing generators that a consortium would otherwise pick. Every centre takes local steps on its own
patches, class-balanced as all classifiers here are trained; the weights are averaged, weighted by number of patches. The
receiver's cell decides: its own training subset takes part, its validation patches choose the round (by AUPRC, with batch
norm's statistics recomputed on its own images), and it may fine-tune what was chosen. The same loop over rounds as for
generators; see `strategies.rounds`.

No moving average of weights is kept within a round: the average over centres takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange, gather
from federation.wire.job import Reply
from federation.wire.units import Units, digest
from metrics.classification import auprc
from models import ClassifierSpec, ClassifierTraining, PatchArrays, Precision, Stage, predict
from models.federated_parts import averaged_state, load_averaged, parts
from models.fit_classifier import StageTrainer
from models.predict import recompute_batch_norm
from models.stages import BalancedDraws
from strategies.aggregation import Aggregator
from strategies.learning import REAL
from strategies.rounds import FederationFailed, Member, Outcome, Rounds, RoundSettings, Weights
from strategies.strategy import FederationRecord, problems_of

# Images on which the receiver recomputes batch norm's statistics before it validates.
_STATISTICS_IMAGES = 256


# -- local half ----------------------------------------------------------------------------------------


def train_round(
    spec: ClassifierSpec,
    patches: PatchArrays,
    weights: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    training: ClassifierTraining,
    *,
    optimizer: Literal["keep", "reset"],
    proximal_mu: float,
    seed: int,
    from_step: int,
    steps: int,
    of_steps: int,
    device: str,
    precision: Precision,
) -> tuple[Weights, Weights, dict[str, Any]]:
    """A centre's part of a round.

    Args:
        weights: the round's averaged weights.
        state: optimizer moments of the round before, where they are kept.
        of_steps: steps of all rounds, the length of the learning-rate schedule.

    Returns:
        its weights, what it keeps, and facts.
    """
    network = loaded(spec, weights, training, device)
    stage = Stage("federated", of_steps, training.learning_rate, {REAL: 1.0})
    draws = BalancedDraws({REAL: patches}, stage)
    penalty = proximal(network, proximal_mu) if proximal_mu else None
    trainer = StageTrainer(
        network, None, draws, stage, training, seed=seed, device=device, precision=precision, local=from_step,
        penalty=penalty,
    )  # fmt: skip
    parameters = list(network.parameters())
    for key, array in state.items():
        number, name = key.split(".")
        parameter = parameters[int(number)]
        value = torch.from_numpy(np.array(array))
        # The count of steps lies beside the parameter, where a fused optimizer wants it.
        trainer.optimizer.state[parameter][name] = (
            value.to(parameter.device) if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
        )
    loss = trainer.advance(steps)
    kept = {} if optimizer == "reset" else {
        f"{number}.{name}": tensor.detach().cpu().contiguous().numpy()
        for number, parameter in enumerate(parameters)
        for name, tensor in trainer.optimizer.state.get(parameter, {}).items()
        if isinstance(tensor, Tensor)
    }  # fmt: skip
    return {n: t.numpy() for n, t in averaged_state(network).items()}, kept, {"scalars": {"loss": loss}}


def validate(
    spec: ClassifierSpec, weights: Mapping[str, np.ndarray], own: PatchArrays, validation: PatchArrays,
    training: ClassifierTraining, *, device: str, precision: Precision,
) -> tuple[float, nn.Module]:  # fmt: skip
    """AUPRC of averaged weights on the receiver's validation patches, and the network as it was validated."""
    network = loaded(spec, weights, training, device)
    if training.batch_norm_on is not None:
        chosen = np.linspace(0, len(own) - 1, min(len(own), _STATISTICS_IMAGES)).astype(int)
        recompute_batch_norm(network, own.take(chosen), training.normalise, precision)
    probability = predict(network, validation, device=device, precision=precision, normalise=training.normalise)
    assert validation.labels is not None
    return auprc(validation.labels, probability[:, 1]), network


def loaded(
    spec: ClassifierSpec, weights: Mapping[str, np.ndarray], training: ClassifierTraining, device: str
) -> nn.Module:
    """A network with averaged weights, on its device."""
    network = spec.build(0)
    load_averaged(network, {name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    return network.to(torch.device(device)).to(memory_format=memory_format)  # type: ignore[call-overload]


def proximal(network: nn.Module, mu: float) -> Callable[[nn.Module], Tensor]:
    """mu / 2 |w - w_round|^2 (Li et al. 2020)."""
    anchors = [parameter.detach().clone() for parameter in network.parameters()]

    def penalty(network: nn.Module) -> Tensor:
        distances = [(p - anchor).square().sum() for p, anchor in zip(network.parameters(), anchors, strict=True)]
        return 0.5 * mu * torch.stack(distances).sum()

    return penalty


# -- server half ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassifierFederation:
    """One cell of the study, trained by several centres.

    Attributes:
        spec: JSON of the `models.ClassifierSpec`; the server's may name a file of pretrained weights.
        seed: of the initial weights.
        members: receiver first.
        validation: what the receiver needs to validate a round.
        adoption: what it needs to test the classifier that was chosen.
        plain: see `strategies.aggregation.Aggregator`.
    """

    arm: str
    task: str
    label: str
    spec: dict[str, Any]
    seed: int
    members: Sequence[Member]
    settings: RoundSettings
    aggregation: str
    options: Mapping[str, Any]
    validation: dict[str, Any]
    adoption: dict[str, Any]


@dataclass(frozen=True)
class Adopted:
    """Outcome of a `ClassifierFederation`.

    Attributes:
        reply: the receiver's, like that of a `learn` job; None when the federation failed.
    """

    reply: Reply | None
    record: FederationRecord | None = None
    problems: tuple[str, ...] = ()


class FedAvgClassifier:
    """Trains one classifier over several centres and has the receiver adopt the best round."""

    def __init__(self, units: Units, federation: ClassifierFederation, clock: Clock):
        self._units, self._federation, self._clock = units, federation, clock
        self._rounds: Rounds | None = None

    def train(self, centres: Centres) -> Exchange[Adopted]:
        """The exchange; a failure is in its outcome."""
        try:
            return (yield from self._train(centres))
        except FederationFailed as problem:
            record = self._record(self._rounds.done) if self._rounds is not None else None
            return Adopted(None, record, (str(problem),))

    def _record(self, done: Outcome) -> FederationRecord:
        f = self._federation
        return FederationRecord(
            f.arm, f.task, "fedavg_classifier", "federation", done.round, done.summary, self._clock.rows, [],
            f.settings.transport,
        )  # fmt: skip

    def _train(self, centres: Centres) -> Exchange[Adopted]:
        f = self._federation
        receiver, select = f.members[0], f.validation["training"]["select"]
        network = ClassifierSpec.model_validate(f.spec).build(f.seed)
        initial = {name: tensor.numpy() for name, tensor in averaged_state(network).items()}
        key = digest({
            "classifier": [f.arm, f.task, f.spec, f.seed, f.validation, f.aggregation, dict(f.options)],
            "settings": vars(f.settings), "code": self._units.code, "clock": self._clock.identity,
            "members": [[m.centre, m.body, *self._units.of_centre(m.centre, f.task)] for m in f.members],
            # Initial weights may come from a file whose content its name does not tell.
            "pretrained": f.adoption["pretrained_sha256"],
        })  # fmt: skip

        def after_round(done: Outcome, now_s: float) -> Exchange[list[dict[str, Any]]]:
            job = self._units.job(
                "validate_classifier", receiver.centre, f.task, f.validation, inputs=[done.identity],
                arrays={f"weights.{name}": array for name, array in done.weights.items()},
                label=f"{f.label} · validation of round {done.round}",
            )  # fmt: skip
            (reply,) = yield from gather([job])
            auprc = reply.body.get("val_auprc")
            if not reply.ok or not isinstance(auprc, float):
                raise FederationFailed(f"{f.label}: centre {reply.centre!r} could not validate it ({reply.code})")
            # Equal rounds: the latest, as in `fit_classifier`.
            if select == "last" or all(auprc >= row["val_auprc"] for row in done.measured):
                done.best = dict(done.weights)
            return [{"round": done.round, "val_auprc": auprc, "virtual_s": now_s}]

        self._rounds = Rounds(
            self._units, centres, key=key, kind="train_classifier_round", label=f.label, members=f.members,
            settings=f.settings, clock=self._clock, initial=initial, after_round=after_round,
            aggregator=Aggregator(f.aggregation, f.options, [n for n, part in parts(network).items() if part == "statistic"]),
        )  # fmt: skip
        done = yield from self._rounds.run()
        best = max(done.measured, key=lambda row: (select == "best" and row["val_auprc"], row["round"]))
        history = {
            "step": [row["round"] * f.settings.local_steps for row in done.measured],
            "val_auprc": [row["val_auprc"] for row in done.measured],
            "stage": ["federated"] * len(done.measured),
        }
        body = f.adoption | {
            "history": history,
            "best": {"step": best["round"] * f.settings.local_steps, "val_auprc": best["val_auprc"]},
        }
        job = self._units.job(
            "adopt_classifier", receiver.centre, f.task, body, inputs=[done.identity],
            arrays={f"weights.{name}": array for name, array in done.best.items()}, label=f.label,
        )  # fmt: skip
        (reply,) = yield from gather([job])
        record = self._record(done)
        if not reply.ok:
            return Adopted(None, record, tuple(problems_of([reply])))
        return Adopted(reply, record)
