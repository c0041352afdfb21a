"""From a scenario to its federations: who trains what together, with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from basics.seeds import derive_seed
from scenarios.arms import CyclicArm, DmGANArm, FedAvgClassifierArm, FedAvgGANArm, GenerativeArm, MdGANArm, PooledGANArm
from scenarios.plan import Cell, Plan, probe_key
from scenarios.scenario import Scenario
from strategies.dm_gan import DmGANPlan, DmGANSettings
from strategies.fedavg_classifier import ClassifierFederation
from strategies.fedavg_gan import Federation, LocalRules
from strategies.fidelity import Fidelity
from strategies.remote_discriminator import GradientRules
from strategies.rounds import Member, RoundSettings

Series = Literal["federation", "alone", "central"]


@dataclass(frozen=True)
class FederationPlan:
    """A federation with what its clock needs.

    Attributes:
        purpose: of the clock's random streams.
        members: its centres.
    """

    federation: Federation
    purpose: str
    members: tuple[str, ...]


def federations(plan: Plan) -> list[FederationPlan]:
    """Every federated training of a generative model in rounds: of each arm, and of each member alone where asked for."""
    plans = []
    for name, arm in plan.scenario.arms.items():
        for task in plan.scenario.all_tasks:
            if not isinstance(arm, FedAvgGANArm | CyclicArm | PooledGANArm):
                continue
            members = plan.scenario.members(arm)
            # All are measured against the same patches; a thousand centres alone share one description of them.
            measured = fidelity(plan, name, arm, task.name, plan.generator_spec(name, task.name))
            series: Series = "central" if isinstance(arm, PooledGANArm) else "federation"
            plans.append(_plan(plan, name, arm, measured, series, members))
            for centre in members if isinstance(arm, FedAvgGANArm) and arm.alone else ():
                plans.append(_plan(plan, name, arm, measured, "alone", (centre,)))
    return plans


def _plan(
    plan: Plan, name: str, arm: Any, measured: Fidelity, series: Series, members: tuple[str, ...]
) -> FederationPlan:
    task, spec = measured.task, measured.body["generator"]
    seed = plan.scenario.seed
    named = {"optimizer": "optimizer", "batch_norm": "batch_norm", "proximal_mu": "proximal_mu", "ema": "average_ema"}
    rules = LocalRules(**{own: getattr(arm, key) for own, key in named.items() if hasattr(arm, key)})
    settings, aggregation, options = (
        round_settings(plan.scenario, arm),
        getattr(arm, "aggregation", "FedAvg"),
        getattr(arm, "aggregation_options", {}),
    )
    if series != "federation":
        # Plain local training, to compare with: what belongs to averaging over a line is left out.
        rules = LocalRules()
        settings = RoundSettings(arm.rounds, arm.local_steps, step_s=plan.scenario.clock.step_s)
        aggregation, options = "FedAvg", {}
    # Patches of a central model move to its first centre.
    working = members[:1] if series == "central" else members
    classes = [0, 1] if arm.conditional else [1]
    federation = Federation(
        arm=name, task=task, strategy=arm.strategy, series=series, spec=spec,
        build_seed=derive_seed(seed, f"federation/{name}/{task}"),
        members=[member(plan, name, task, spec, vars(rules), centre) for centre in working],
        settings=settings, rules=rules, aggregation=aggregation, options=options,
        fidelity=measured,
        turns="cyclic" if isinstance(arm, CyclicArm) else "all",
        pooled={c: plan.moving_body(c, task, classes, None) for c in members[1:]} if series == "central" else None,
    )  # fmt: skip
    purpose = f"{name}/{task}" + (f"/{members[0]}" if series == "alone" else "")
    return FederationPlan(federation, purpose, working)


@dataclass(frozen=True)
class RemotePlan:
    """A training with the generator on the server, with what its clock needs."""

    plan: DmGANPlan
    purpose: str
    members: tuple[str, ...]


def remote_trainings(plan: Plan, *, deployed: bool = False) -> list[RemotePlan]:
    """Every training with the generator on the server.

    Args:
        deployed: centres choose the size of their jobs by the measured round trip; in a simulation it is fixed.
    """
    plans = []
    for name, arm in plan.scenario.arms.items():
        if not isinstance(arm, DmGANArm | MdGANArm):
            continue
        members = plan.scenario.members(arm)
        for task in (t.name for t in plan.scenario.all_tasks):
            spec = plan.generator_spec(name, task)
            own = ("updates", "batches_per_job", "lock_step", "quorum", "update_timeout_s", "max_staleness",
                   "staleness_power", "weights", "exchange", "transport", "swap_every")  # fmt: skip
            settings = DmGANSettings(
                **{key: getattr(arm, key) for key in own if hasattr(arm, key)}
                | ({"lock_step": True} if isinstance(arm, MdGANArm) else {}),
                steps=arm.steps_of_update, gradients=GradientRules(arm.clip, arm.noise),
                step_s=plan.scenario.clock.step_s, adapt=deployed,
            )  # fmt: skip
            plans.append(RemotePlan(
                DmGANPlan(
                    arm=name, task=task, strategy=arm.strategy, spec=spec,
                    build_seed=derive_seed(plan.scenario.seed, f"federation/{name}/{task}"),
                    members=tuple(member(plan, name, task, spec, {}, centre) for centre in members),
                    settings=settings, fidelity=fidelity(plan, name, arm, task, spec),
                ),
                f"{name}/{task}", members,
            ))  # fmt: skip
    return plans


@dataclass(frozen=True)
class ClassifierPlan:
    """A federated classifier, one cell of the study, with what its clock needs."""

    federation: ClassifierFederation
    purpose: str
    members: tuple[str, ...]


def federated_classifier(plan: Plan, cell: Cell) -> ClassifierPlan:
    """The federation behind a cell of an arm of strategy fedavg_classifier."""
    s = plan.scenario
    arm = s.arms[cell.arm]
    assert isinstance(arm, FedAvgClassifierArm)
    members = s.members(arm, cell.receiver)
    body = plan.cell_body(cell, [])
    settings = round_settings(s, arm)
    # Its initial weights travel, too.
    spec = body["classifier"] | {"pretrained": None}
    purpose = f"{cell.arm}/{cell.task}/{cell.classifier.model}/{cell.fraction or cell.images}/{cell.repeat}"

    def of(centre: str) -> Member:
        own = {"size": body["size"], "subset_seed": body["subset_seed"]} if centre == cell.receiver else {
            "size": {"fraction": None, "images": None}, "subset_seed": 0,
        }  # fmt: skip
        return Member(centre, plan.data_body(centre, cell.task) | own | {
            "classifier": spec, "training": body["training"], "optimizer": arm.optimizer, "proximal_mu": arm.proximal_mu,
            "of_steps": settings.rounds * settings.local_steps,
            "seed": derive_seed(s.seed, f"federation/{purpose}", centre),
            "compute": plan.compute_body(centre, probe_key("classifier", cell.classifier.model, cell.task)),
        }, cell.task)  # fmt: skip

    shared = ("data", "task", "split", "data_seed", "size", "subset_seed", "training", "compute")
    validation = {key: body[key] for key in shared} | {"classifier": spec}
    federation = ClassifierFederation(
        arm=cell.arm, task=cell.task, label=cell.label, spec=body["classifier"], seed=body["seed"],
        members=[of(centre) for centre in members], settings=settings, aggregation=arm.aggregation,
        options=arm.aggregation_options, validation=validation,
        adoption=validation | {
            "cell": body["cell"], "seed": body["seed"], "fine_tune": arm.fine_tune, "send_classifier": body["send_classifier"],
            "pretrained_sha256": body["pretrained_sha256"],
        },
    )  # fmt: skip
    return ClassifierPlan(federation, purpose, members)


def member(plan: Plan, name: str, task: str, spec: dict[str, Any], rules: dict[str, Any], centre: str) -> Member:
    """One centre of a federation of generative models, with what each of its jobs holds."""
    seed = plan.scenario.seed
    body = plan.data_body(centre, task) | {
        "generator": spec,
        "rules": rules,
        "build_seed": derive_seed(seed, f"federation/{name}/{task}"),
        "seed": derive_seed(seed, f"federation/{name}/{task}", centre),
        "pools": [],
        "compute": plan.compute_body(centre, probe_key("generator", name, task)),
    }
    return Member(centre, body, task)


def fidelity(plan: Plan, name: str, arm: GenerativeArm, task: str, spec: dict[str, Any]) -> Fidelity:
    """How an arm's generator is measured: against all members' training patches, at the first receiver."""
    members = plan.scenario.members(arm)
    at = (arm.receivers or plan.scenario.receivers)[0]
    conditional = {"conditional": arm.conditional}
    return Fidelity(
        every=arm.fidelity.every, images=arm.fidelity.images, spaces=arm.fidelity.spaces, task=task, measured_at=at,
        bodies={
            centre: plan.data_body(centre, task) | conditional
            | {"seed": derive_seed(plan.scenario.seed, f"halves/{task}", centre)}
            for centre in members
        },
        body={
            "generator": spec,
            "seed": derive_seed(plan.scenario.seed, f"fidelity/{task}", at),
            "compute": plan.compute_body(at, probe_key("generator", name, task)),
        },
    )  # fmt: skip


def round_settings(scenario: Scenario, arm: Any) -> RoundSettings:
    """How an arm's rounds are run."""
    return RoundSettings(
        rounds=arm.rounds, local_steps=arm.local_steps, quorum=getattr(arm, "quorum", None),
        round_timeout_s=getattr(arm, "round_timeout_s", None), transport=arm.transport, step_s=scenario.clock.step_s,
    )  # fmt: skip
