"""Is a job one of an approved study? A server could name an approved study and ask for something else.

A centre works out from the approved scenario what every job of that study asks of it (`scenarios.plan`), and compares. All
that the scenario fixes for this centre must be the same: data, task, split, seeds, models, training settings, transport,
which of its own models are sent on. What is found out on the way is not fixed, and is compared only as far as noted:

- precision (measured by the survey), flags of an exchange's course (`introduce`, `fresh`, `attempt`, `preview`), ids of units
  and of the state that a job builds on: free;
- rounds, versions and steps: within the planned numbers;
- the size of a job of `dm_gan`, which the server adapts to the round trip: at most `dm_gan.LARGEST_JOB` batches;
- a federated classifier's history and best round, which are told in the report: free;
- the weights and images in the arrays: not compared; they are results. Nor are generator packages and the digests of pretrained
  weights, whose files need not be at hand here, and in a scenario with packages the models that the survey probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from clients.node import Refusal
from federation.wire.job import Job, canonical_json
from scenarios.arms import FedAvgClassifierArm
from scenarios.federations import federated_classifier, federations, remote_trainings
from scenarios.plan import Cell, Plan
from scenarios.scenario import Scenario
from strategies.delivery import Delivery
from strategies.dm_gan_jobs import LARGEST_JOB
from strategies.rounds import RoundSettings

_Check = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Asked:
    """A kind of job that a study asks of a centre.

    Attributes:
        strategy: of the arm; empty for what is done for all arms together.
        fixed: keys of the body that the scenario fixes, with their values.
        ranges: the other keys that the body may have, each with a check of its value in the whole body.
    """

    strategy: str
    fixed: Mapping[str, Any]
    ranges: Mapping[str, _Check] = field(default_factory=dict)

    def difference(self, job: Job) -> tuple[int, str]:
        """(how many keys differ, the first of them); (0, "") for a job that is this one."""
        body = job.body
        differing = [] if job.strategy == self.strategy else ["strategy"]
        for key, wanted in self.fixed.items():
            if key == "compute":
                differing += _compute_differs(wanted, body.get(key))
            elif key not in body or canonical_json(body[key]) != canonical_json(wanted):
                differing.append(key)
        differing += [key for key, right in self.ranges.items() if key not in body or not _holds(right, body)]
        differing += sorted(set(body) - set(self.fixed) - set(self.ranges))
        return len(differing), differing[0] if differing else ""


def check(resolved: str, centre: str, job: Job) -> None:
    """Refuse a job that is not one of the approved study.

    Args:
        resolved: the approved scenario.
        centre: this one.

    Raises:
        Refusal: with the first key that is not as approved.
    """
    scenario = Scenario.model_validate(yaml.load(resolved, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    if centre not in scenario.centres:
        raise Refusal("not_in_study", key="centre")
    fewest: tuple[int, str] | None = None
    for asked in asked_of(Plan(scenario, files=False), centre, job):
        found = asked.difference(job)
        if not found[0]:
            return
        fewest = found if fewest is None else min(fewest, found, key=lambda one: one[0])
    raise Refusal("not_in_study", key=fewest[1] if fewest else "kind")


def asked_of(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    """Every kind of job that a study asks of a centre and that has this job's kind."""
    kinds: dict[str, Callable[[Plan, str, Job], Iterator[Asked]]] = {
        "survey": _surveys, "train_generator": _orders, "feature_sums": _sums, "measure_generator": _measurements,
        "train_round": _rounds, "train_discriminator": _discriminators, "synthesise": _syntheses, "learn": _cells, "test": _tests,
        "train_classifier_round": _classifier_rounds, "validate_classifier": _validations, "adopt_classifier": _adoptions,
    }  # fmt: skip
    if job.kind in kinds:
        yield from kinds[job.kind](plan, centre, job)


# -- by kind -----------------------------------------------------------------------------------------------------------


def _surveys(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    body = plan.survey_body(centre)
    if any(generator.package is not None for generator in plan.scenario.generators.values()):
        body.pop("models")
        yield Asked("", body, {"models": _free})
    else:
        yield Asked("", body)


def _orders(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for order in plan.orders():
        if order.centre == centre:
            yield Asked("one_shot", order.body)


def _fidelities(plan: Plan) -> Iterator[tuple[str, Any]]:
    for planned in federations(plan):
        yield planned.federation.strategy, planned.federation.fidelity
    for remote in remote_trainings(plan, deployed=True):
        yield remote.plan.strategy, remote.plan.fidelity


def _sums(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for strategy, fidelity in _fidelities(plan):
        if centre in fidelity.bodies:
            yield Asked(strategy, fidelity.bodies[centre] | {"spaces": list(fidelity.spaces)})


def _measurements(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for strategy, fidelity in _fidelities(plan):
        if fidelity.measured_at == centre:
            yield Asked(strategy, fidelity.body | {"images": fidelity.images}, {"preview": _free})


def _round_ranges(settings: RoundSettings) -> tuple[dict[str, Any], dict[str, _Check]]:
    """What every job of a federation in rounds has beside its member's body: (fixed, ranges)."""

    def within(body: Mapping[str, Any]) -> bool:
        return type(body["round"]) is int and 0 <= body["round"] < settings.rounds

    def begins(body: Mapping[str, Any]) -> bool:
        return within(body) and body["from_step"] == body["round"] * settings.local_steps

    free = dict.fromkeys(("federation", "fresh", "attempt", "introduce", "state_unit"), _free)
    fixed = {"steps": settings.local_steps, "transport": settings.transport}
    return fixed, {"round": within, "from_step": begins, **free}


def _rounds(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for planned in federations(plan):
        f = planned.federation
        for member in f.members:
            if member.centre == centre:
                fixed, ranges = _round_ranges(f.settings)
                yield Asked(f.strategy, member.body | fixed, ranges)


def _discriminators(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for remote in remote_trainings(plan, deployed=True):
        settings = remote.plan.settings

        def version(body: Mapping[str, Any], updates: int = settings.updates) -> bool:
            return type(body["version"]) is int and 0 <= body["version"] <= updates

        def batches(body: Mapping[str, Any], planned: int = settings.batches_per_job) -> bool:
            return type(body["batches"]) is int and 1 <= body["batches"] <= max(LARGEST_JOB, planned)

        def from_step(body: Mapping[str, Any]) -> bool:
            return type(body["from_step"]) is int and body["from_step"] >= 0

        def send(body: Mapping[str, Any], swaps: bool = bool(settings.swap_every)) -> bool:
            return body["send_discriminator"] is False or swaps

        rules = {"clip": settings.gradients.clip, "noise": settings.gradients.noise}
        fixed = {"exchange": settings.exchange, "gradients": rules, "transport": settings.transport}
        free = dict.fromkeys(("federation", "fresh", "state_unit", "introduce"), _free)
        ranges = {"version": version, "batches": batches, "from_step": from_step, "send_discriminator": send, **free}
        for member in remote.plan.members:
            if member.centre == centre:
                # Of rounds only: a remote generator has no pools at its centres, and no rules of its own.
                yield Asked(remote.plan.strategy, member.body | fixed, ranges)


def _syntheses(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    wanted: dict[tuple[str, str, tuple[int, ...]], tuple[int, dict[str, Any]]] = {}
    for delivery in plan.deliveries():
        if delivery.receiver != centre:
            continue
        for generator, count, body in zip(delivery.generators, delivery.per_generator, delivery.bodies, strict=True):
            key = (generator, delivery.task, delivery.classes)
            wanted[key] = (max(wanted[key][0] if key in wanted else 0, count), body)
    for (generator, task, classes), (count, body) in wanted.items():
        fixed = body | {"name": generator, "counts": {str(label): count for label in classes}}
        own = plan.scenario.generators.get(generator)
        if own is not None and own.package is not None:
            yield Asked("", fixed, {"generator": _free})
        else:
            yield Asked("", fixed | {"generator": plan.generator_spec(generator, task)})


def _cells(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    deliveries = {(d.arm, d.receiver, d.task): d for d in plan.deliveries()}
    for cell in _alike(plan, job):
        if cell.receiver != centre or isinstance(plan.scenario.arms[cell.arm], FedAvgClassifierArm):
            continue
        planned = _pools(deliveries.get((cell.arm, cell.receiver, cell.task)))

        def pools(body: Mapping[str, Any], planned: list[dict[str, Any]] = planned) -> bool:
            return [{k: v for k, v in pool.items() if k != "unit"} for pool in body["pools"]] == planned

        fixed = plan.cell_body(cell, planned)
        fixed.pop("pools")
        fixed.pop("pretrained_sha256")
        yield Asked(cell.strategy, fixed, {"pools": pools, "pretrained_sha256": _free})


def _pools(delivery: Delivery | None) -> list[dict[str, Any]]:
    """What a cell uses of synthetic images, without the ids of the pools."""
    if delivery is None:
        return []
    return [
        {
            "source": generator,
            "negatives": count if 0 in delivery.classes else 0,
            "positives": count if 1 in delivery.classes else 0,
        }
        for generator, count in zip(delivery.generators, delivery.per_generator, strict=True)
    ]


def _tests(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for cell in _alike(plan, job):
        if centre in plan.test_centres(cell):
            yield Asked(cell.strategy, plan.test_body(cell, centre))


def _classifier_rounds(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for cell in plan.cells():
        if not isinstance(plan.scenario.arms[cell.arm], FedAvgClassifierArm):
            continue
        f = federated_classifier(plan, cell).federation
        for member in f.members:
            if member.centre == centre and member.body["seed"] == job.body.get("seed"):
                fixed, ranges = _round_ranges(f.settings)
                yield Asked("fedavg_classifier", member.body | fixed, ranges)


def _validations(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for cell in plan.cells():
        if cell.receiver == centre and isinstance(plan.scenario.arms[cell.arm], FedAvgClassifierArm):
            yield Asked("fedavg_classifier", federated_classifier(plan, cell).federation.validation)


def _adoptions(plan: Plan, centre: str, job: Job) -> Iterator[Asked]:
    for cell in _alike(plan, job):
        if cell.receiver == centre and isinstance(plan.scenario.arms[cell.arm], FedAvgClassifierArm):
            fixed = federated_classifier(plan, cell).federation.adoption
            fixed = {key: value for key, value in fixed.items() if key != "pretrained_sha256"}
            free = dict.fromkeys(("history", "best", "pretrained_sha256"), _free)
            yield Asked("fedavg_classifier", fixed, free)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _alike(plan: Plan, job: Job) -> Iterator[Cell]:
    """The cells that a job's body may mean."""
    said = job.body.get("cell")
    if not isinstance(said, dict):
        return
    for cell in plan.cells():
        own = {"arm": cell.arm, "task": cell.task, "classifier": cell.classifier.model, "repeat": cell.repeat}
        if own.items() <= {key: value for key, value in said.items() if isinstance(value, str | int)}.items():
            yield cell


def _holds(right: _Check, body: Mapping[str, Any]) -> bool:
    try:
        return right(body)
    except (KeyError, TypeError, AttributeError):  # a body of another make
        return False


def _free(body: Mapping[str, Any]) -> bool:
    return True


def _compute_differs(wanted: Mapping[str, Any], said: Any) -> list[str]:
    """The device is the centre's own affair and the precision was measured; the threads are fixed."""
    if not isinstance(said, dict) or set(said) != set(wanted):
        return ["compute"]
    return [] if said["threads"] == wanted["threads"] else ["compute.threads"]
