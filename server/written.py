"""What a study writes into its run folder, beside the units of work: results, federations, privacy, generators, kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from basics.words import listed
from federation.wire.job import Reply
from metrics import METRICS, measured_names
from models import GeneratorPackage
from reports.run_record import RunRecord
from scenarios.scenario import Scenario
from strategies import KINDS, STRATEGIES, kinds_of
from strategies.planned import FederationRecord, Generated, Shared
from strategies.view import Cell


def keep_generator(record: RunRecord, scenario: Scenario, name: str, task: str, made: Generated) -> None:
    """The shared package and a grid of its images. The preview is synthetic, drawn at a centre."""
    several = len(scenario.all_tasks) > 1
    folder = f"{name}-{task}" if several else name
    card = {
        "name": name,
        "task": task,
        "centre": ", ".join(made.centres),
        "data_card": made.card["data_card"],
        "trained_on": made.card["trained_on"],
        "learned": [made.spec.classes[label] for label in made.labels],
        "purpose": f"training classifiers for task {task!r} in study {scenario.name!r}",
        "licence": "as agreed between the centres of this study",
        "privacy": "no formal guarantee: trained without differential privacy",
    }
    GeneratorPackage(made.spec, made.weights, card).write(record.folder / "generators" / folder)
    if made.preview is not None:
        pixels, labels = made.preview
        # Positives first, as in the grids of real patches.
        record.write_samples(folder, pixels[np.argsort(-labels, kind="stable")])


def write_federations(record: RunRecord, shared: Shared) -> None:
    """What happened in the federations: how they converged, when their jobs came back, and what was missing."""
    places = [(one, {"arm": one.arm, "task": one.task}) for one in shared.federations]
    record.write_convergence([place | row for one, place in places for row in one.convergence])
    # Of a member alone only the curve is kept; the cells of a federated classifier are one federation, its first shown.
    places = [(one, place) for one, place in places if one.series != "alone"]
    merged: dict[tuple[str, str], FederationRecord] = {}
    for one, _ in places:
        key = (one.arm, one.task)
        # Of several cells one with a result is a result.
        merged[key] = one if key not in merged else replace(
            merged[key], summary=merged[key].summary + one.summary, failed=merged[key].failed and one.failed
        )  # fmt: skip
    places = [(one, {"arm": arm, "task": task}) for (arm, task), one in merged.items()]
    record.write_virtual_time(
        [
            # A lost job has no end: when the server noticed is not when the centre stopped computing.
            place | {"strategy": one.strategy} | asdict(row) | ({"finished_s": None} if row.outcome == "lost" else {})
            for one, place in places
            for row in one.rows
        ]  # fmt: skip
    )
    record.write_federations([place | _entry(one) for one, place in places])


def write_privacy(record: RunRecord, shared: Shared) -> None:
    """What left each centre, and what is guaranteed about it: in this version nothing, and the file says so."""
    guarantee: dict[str, Any] = {"differential_privacy": None, "attacks_run": []}
    # From the events: a resumed session does not see again what earlier ones received.
    finished = [event for event in record.events() if event["event"] == "unit_finished"]
    sending_pixels = {name for name, kind in KINDS.items() if kind.pixels and kind.sends}
    record.write_privacy(
        {
            "generators": {
                f"{name}/{task}": {
                    "centre": ", ".join(made.centres), "trained_on": made.card["trained_on"], **guarantee
                }
                for (name, task), made in shared.generators.items() if made.centres
            },
            "pixels_left": sorted({event["centre"] for event in finished if event["kind"] in sending_pixels}),
            "left_each_centre": _what_left(finished),
            "text": "Generators were trained without differential privacy and no attack was run on them: that synthetic "
            "images are not copies of patients is not shown here.",
        }
    )  # fmt: skip


def write_results(
    record: RunRecord, scenario: Scenario, learned: dict[str, tuple[Cell, Reply]],
    tested: list[tuple[Cell, str, Reply, Reply]],
) -> None:  # fmt: skip
    """Metrics and predictions of every cell, at its receiver and where else it was tested."""
    classes_of = {task.name: task.classes for task in scenario.all_tasks}
    places = [(cell, cell.receiver, reply, reply) for cell, reply in learned.values()] + tested
    results, predictions = [], []
    for cell, tested_on, learned_reply, reply in places:
        body = learned_reply.body
        # Of the rounded number of boxes, which may be a little less than there are.
        share = (cell.images or 0) / max(1, body["train_boxes"])
        fraction = cell.fraction if cell.fraction is not None else min(1.0, share)
        shared: dict[str, Any] = {
            "arm": cell.arm, "task": cell.task, "classifier": cell.classifier,
            "real_fraction": round(fraction, 6), "repeat": cell.repeat, "receiver": cell.receiver, "tested_on": tested_on,
        }  # fmt: skip
        classes = classes_of[cell.task]
        metrics = measured_names(classes, scenario.study.metrics or ())
        if unsaid := [metric for metric in metrics if metric not in reply.body["metrics"]]:
            text = f"centre {reply.centre!r} does not say what {', '.join(unsaid)} of {cell.label} is; the values are left out"
            record.event("note", centre="", text=text)
        for metric in metrics:
            row = {"strategy": cell.strategy, "metric": metric, "value": reply.body["metrics"].get(metric)}
            results.append(shared | row | {"n_real": body["n_real"], "n_synthetic": body["n_synthetic"]})
        # A deployed centre keeps them, unless its policy lets them go.
        for case, (patient, label, each) in enumerate(_cases(record, reply, classes)):
            # Of two classes the second alone, of more each against all others.
            for index, value in enumerate(each, start=len(classes) - len(each)):
                row = {"case": case, "patient": patient, "class": classes[index], "label": int(label == index)}
                predictions.append(shared | row | {"probability": value})
    record.write_results(results)
    record.write_predictions(predictions)
    kept = sorted({centre for _, centre, _, reply in places if "predictions" not in reply.body})
    if kept:
        record.event(
            "note", centre="", text=f"the predictions of single images stayed at {listed(kept)}; predictions.csv lacks them, "
            "and intervals over test patients cannot be given there",
        )  # fmt: skip


def _cases(record: RunRecord, reply: Reply, classes: Sequence[str]) -> list[tuple[int, int, list[float]]]:
    """(patient, label, probabilities) of each test image, where a centre sent them; none, and a note, of what makes no sense."""
    found = reply.body.get("predictions")
    if found is None:
        return []
    try:
        cases = [
            (patient, label, probability if isinstance(probability, list) else [probability])
            for patient, label, probability in zip(found["patient"], found["label"], found["probability"], strict=True)
        ]
        wanted = 1 if len(classes) == 2 else len(classes)
        for patient, label, each in cases:
            if type(patient) is not int or label not in range(len(classes)) or len(each) != wanted:
                raise ValueError("a case has no patient, no known label, or another number of classes")
            if not all(isinstance(value, float | int) and 0 <= value <= 1 for value in each):
                raise ValueError("a probability is none")
    except (KeyError, TypeError, ValueError) as problem:
        text = f"the predictions of centre {reply.centre!r} for {reply.unit[:12]} cannot be used ({problem}) and are left out"
        record.event("note", centre="", text=text)
        return []
    return cases


def _what_left(finished: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """{centre: {kind: {messages, bytes}}} of what left each centre, in all sessions of the run."""
    left: dict[str, dict[str, dict[str, int]]] = {}
    for event in finished:
        if event["cached"]:
            continue  # left in an earlier session, where it was counted
        entry = left.setdefault(event["centre"], {}).setdefault(event["kind"], {"messages": 0, "bytes": 0})
        entry["messages"] += 1
        entry["bytes"] += event["bytes_up"]
    return left


def described(scenario: Scenario) -> dict[str, list[dict[str, Any]]]:
    """Kinds of jobs, strategies and metrics of plug-ins, as the report shows them.

    Of plug-ins only what the scenario names: what else is installed changes no record.
    """
    strategies = STRATEGIES.builtin | {arm.strategy: STRATEGIES[arm.strategy] for arm in scenario.arms.values()}
    metrics = [METRICS[name] for name in scenario.study.metrics or ()]
    return {
        "kinds": [
            {
                "kind": kind.name,
                "title": kind.title,
                "phase": kind.phase,
                "rounds": kind.averaged,
                "pixels": kind.pixels,
            }
            for kind in kinds_of(strategies.values()).values()
        ],
        "strategies": [
            {"strategy": one.name, "title": one.title, "pixels": one.pixels, "shares": one.shares}
            for one in strategies.values()
        ],
        "metrics": [
            {"metric": one.name, "title": one.title, "unit": one.unit, "higher_is_better": one.higher_is_better}
            for one in metrics
        ],
    }


def _entry(record: FederationRecord) -> dict[str, Any]:
    """The entry of federations.json."""
    summary = record.summary
    notes = [f"{reply} ({count} jobs)" for reply, count in sorted(summary.refused.items())]
    return {
        "strategy": record.strategy, "rounds_or_updates": record.rounds, "jobs": summary.jobs, "used": summary.used,
        "lost": summary.lost, "late": summary.late, "stale": summary.stale,
        "gone": [{"centre": centre, "from_s": at_s} for centre, at_s in summary.gone.items()],
        "state_lost": [{"centre": centre, "number": number} for centre, number in summary.state_lost],
        "transport": {"how": record.transport, "relative_error": summary.transport_error}
        if record.transport != "fp32" else None,
        "notes": notes, "failed": record.failed,
    }  # fmt: skip
