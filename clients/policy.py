"""A centre's own policy: which jobs it does, on which terms, and what of the answer leaves the hospital.

The rules are those of its `centre.yaml`. A deployed node without one (a trial, whose folders its node configuration names)
keeps to those of a trial and takes part in any study. In a simulation there is no policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from basics.atomic_files import write_text
from basics.csv_table import to_csv
from clients.answers import Question
from clients.approval import Approvals
from clients.centre_file import TRIAL_MINIMUMS, CentreFile, Minimums, Release, trial_release
from clients.node import Node, Refusal
from federation.wire.job import MAX_BYTES, Job, Reply
from strategies import CELL_KINDS, KINDS, SHARED_KINDS, STRATEGIES, Kind

PAUSED = "paused"
_PREDICTION = ("case", "patient", "label", "probability")


def release_of(node: Node) -> Release:
    """What may leave a node's hospital."""
    return node.file.release if node.file is not None else trial_release()


def minimums_of(node: Node) -> Minimums:
    """What a node's jobs must keep to."""
    return node.file.minimums if node.file is not None else TRIAL_MINIMUMS


def largest_message(node: Node | None) -> int:
    """Bytes that a node takes in one message; in a simulation whatever the protocol allows."""
    return MAX_BYTES if node is None else release_of(node).largest_message


def accept(node: Node, job: Job, now: datetime | None = None) -> Question | None:
    """Refuse what this centre does not do, whoever asks for it.

    Args:
        now: the time, with a zone; the present one when left out.

    Returns:
        the question of an approved study that the job asks; None where studies are not approved one by one.

    Raises:
        Refusal: a job for another centre; on a deployed node also one that its policy forbids.
    """
    if job.centre != node.centre:
        raise Refusal("not_addressed")
    if not node.deployed:
        return None
    kind, question = KINDS[job.kind], None
    if kind.pixels:
        raise Refusal("policy", rule="real patches stay where they are")
    covered(node, job, now)
    if node.file is not None:
        _check_hours(node.file, now or datetime.now(UTC))
        if node.file.approve.studies == "listed":
            # Here, as no simulation and no centre that takes part in any study needs what reads a scenario.
            from clients import approved_study

            approved = Approvals(node.workspace).read(job.scenario, now)
            question = approved_study.question_of(approved.resolved, node.centre, job)
    _check_strategy(release_of(node), kind, job)
    body = kind.parse(job.body)
    rule = unmet_release_rule(release_of(node)) if kind.releases_model(body) else ""
    rule = rule or unmet_sum_rule(release_of(node), kind, body)
    if rule:
        raise Refusal("policy", rule=rule)
    return question


def covered(node: Node, job: Job, now: datetime | None = None) -> None:
    """Refuse a job that nothing allows now: asked before it begins, and again before its answer leaves.

    What the node keeps of studies that are no longer approved is deleted.

    Raises:
        Refusal: the centre is paused, or the study is not approved (any more).
    """
    if not node.deployed:
        return
    if (node.workspace / PAUSED).exists():
        raise Refusal("paused")
    if node.file is not None and node.file.approve.studies == "listed":
        approvals = Approvals(node.workspace)
        try:
            approvals.read(job.scenario, now)
        finally:
            approvals.clear(now)


def _check_hours(file: CentreFile, now: datetime) -> None:
    if file.working_hours is not None and not file.working_hours.contain(now):
        raise Refusal("outside_hours", hours=str(file.working_hours))


def takes_part(release: Release, strategy: str) -> bool:
    """Whether a centre takes part in a strategy."""
    return strategy in release.strategies and not STRATEGIES[strategy].pixels


def _check_strategy(release: Release, kind: Kind, job: Job) -> None:
    """The strategy that the server names must be one that asks for such jobs, and one that this centre allows."""
    if kind in SHARED_KINDS:
        return
    strategy = STRATEGIES.get(job.strategy)
    if strategy is None or strategy.pixels or (kind not in CELL_KINDS and kind not in strategy.kinds):
        raise Refusal("not_in_strategy", kind=job.kind, strategy=job.strategy[:64])
    if not takes_part(release, job.strategy):
        raise Refusal("strategy_refused", strategy=job.strategy)


def unmet_release_rule(release: Release) -> str:
    """Why no model may leave, as a sentence; empty where it may."""
    if release.epsilon_at_most is not None:
        return (
            f"release.epsilon_at_most is {release.epsilon_at_most:g}, and this version trains without differential privacy, "
            "so no model meets it"
        )
    if release.attacks_must_fail:
        return (
            f"release.attacks_must_fail names {', '.join(release.attacks_must_fail)}, and this version runs no attack, so none "
            "is known to fail"
        )
    return ""


def unmet_sum_rule(release: Release, kind: Kind, body: Any) -> str:
    """Why an answer that shows what this centre alone has learned may not leave in every round; empty where it may."""
    if release.plain_updates or not kind.plain_update(body):
        return ""
    return (
        "release.plain_updates is false, and the answer would show in every round what this centre alone has learned; only sums over three "
        "centres or more may leave"
    )


def on_own_terms(node: Node, job: Job) -> Job:
    """The job as this centre does it: with its own data and files, on its own device, with no more threads than it gives.

    Raises:
        Refusal: it has no file of the weights with which the training begins.
    """
    if node.file is None:
        return job
    body = dict(job.body)
    if node.file.data is not None and "data" in body:
        body["data"] = node.file.data
    if "compute" in body:
        threads = min(int(body["compute"]["threads"]), node.file.resources.threads)
        device = body["compute"]["device"] if node.file.device == "auto" else node.file.device
        body["compute"] = body["compute"] | {"threads": threads, "device": device}
    classifier = body.get("classifier")
    if isinstance(classifier, Mapping) and classifier.get("pretrained") is not None:
        body["classifier"] = dict(classifier) | {"pretrained": _own_weights(node.file, classifier)}
    return replace(job, body=body)


def _own_weights(file: CentreFile, classifier: Mapping[str, Any]) -> str:
    """The hospital's own file of the weights that a study names by their hash; where any study is done, the study's file."""
    sha256 = classifier.get("pretrained_sha256")
    own = None if sha256 is None else file.weights_of(sha256)
    if own is None and file.approve.studies == "listed":
        raise Refusal("no_weights", sha256=sha256 or "none named")
    return str(own or classifier["pretrained"])


def release(node: Node, job: Job, reply: Reply) -> Reply:
    """The reply as it may leave: predictions of single images stay in the workspace, where the policy keeps them.

    Raises:
        Refusal: it holds what its kind does not declare, or is larger than what may leave.
    """
    if not node.deployed:
        return reply
    if "predictions" in reply.body and not release_of(node).predictions:
        body = dict(reply.body)
        keep_predictions(node, job, body.pop("predictions"))
        reply = replace(reply, body=body)
    limit = release_of(node).largest_message_mib
    if reply.nbytes > limit * 2**20:
        raise Refusal("message_too_large", mib=round(reply.nbytes / 2**20, 1), limit=limit)
    kind = KINDS[job.kind]
    field = kind.undeclared(reply.body, reply.arrays) or kind.misfit_out(kind.parse(job.body), reply.arrays)
    if field:
        raise Refusal("undeclared_field", kind=job.kind, field=field[:64])
    return reply


def keep_predictions(node: Node, job: Job, table: Mapping[str, list[Any]]) -> None:
    """Write `predictions/<unit>.csv`: what a test's metrics were computed from."""
    folder = node.workspace / "predictions"
    folder.mkdir(exist_ok=True)
    rows = [
        {"case": case, "patient": patient, "label": label, "probability": probability}
        for case, (patient, label, probability) in enumerate(
            zip(table["patient"], table["label"], table["probability"], strict=True)
        )
    ]
    write_text(folder / f"{job.unit}.csv", to_csv(rows, _PREDICTION, numeric=("case", "patient")))
