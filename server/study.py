"""The study, phase by phase: survey, share, learn, test. Each phase is one or a few `gather`s over the centres.

A centre that fails takes with it what depends on it and nothing else: its error is recorded, the other units
are finished, and the run ends as failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from federation.wire.centres import Centres
from federation.wire.clock import Clock, VirtualClock
from federation.wire.code_digest import code_digest
from federation.wire.errors import INPUT_CODES, StudyError, explain
from federation.wire.exchange import Exchange, gather, run_together
from federation.wire.job import Job, Reply
from federation.wire.real_clock import RealClock
from federation.wire.units import Units, digest, scenario_digest
from metrics import METRICS
from models import GeneratorPackage, GeneratorSpec
from reports.run_record import RunRecord
from scenarios.federations import federated_classifier, federations, remote_trainings
from scenarios.messages import Expected, expected_messages
from scenarios.plan import Cell, Plan
from scenarios.reader import resolved_yaml
from scenarios.scenario import Scenario, listed
from server.checkpoint import Checkpointed
from strategies.delivery import deliver
from strategies.dm_gan import DmGAN
from strategies.fedavg_classifier import Adopted, FedAvgClassifier
from strategies.fedavg_gan import FedAvgGAN
from strategies.one_shot import OneShot
from strategies.pooled import Pooled
from strategies.strategy import FederationRecord, Generated, Pool, Shared, Strategy

# Kinds of the learn phase.
LEARNING = ("learn", "train_classifier_round", "validate_classifier", "adopt_classifier")


class Study:
    """Runs a scenario over centres and writes what comes out into a run record."""

    def __init__(
        self, scenario: Scenario, centres: Centres, record: RunRecord, place: Mapping[str, str], deployed: bool = False
    ):
        self._scenario, self._deployed = scenario, deployed
        self._centres = Checkpointed(centres, record)
        self._record = record
        self._place = dict(place)

    def run(self) -> bool:
        """All phases; True when every unit finished.

        Raises:
            StudyError: nothing sensible can follow (bad input found by the survey, a poisoned runtime).
        """
        plan, units = self._survey()
        expected = expected_messages(plan)
        self._record.write_expected([asdict(row) for row in expected])
        shared = self._share(plan, units, expected)
        learned = self._learn(plan, units, shared, expected)
        tested, all_tested = self._test(plan, units, learned)
        self._write_results(learned, tested)
        self._write_privacy(shared)
        self._write_federations(shared)
        for problem in shared.problems:
            self._record.event("note", centre="", text=problem)
        wanted = len(plan.cells())
        if len(learned) < wanted:
            self._record.event(
                "note", centre="", text=f"{wanted - len(learned)} of {wanted} cells could not be computed"
            )
        # A job that failed and that its federation could do without is noted, and is no failure of the run.
        return not shared.problems and all_tested and len(learned) == wanted

    # -- phases --------------------------------------------------------------------------------------------------

    def _survey(self) -> tuple[Plan, Units]:
        blank = Plan(self._scenario)
        s = self._scenario
        study = digest([s.name, s.seed, sorted(s.centres)])
        # What hospitals approve; in a simulation there is nobody to ask.
        scenario = scenario_digest(resolved_yaml(s)) if self._deployed else ""
        units = Units(study, code_digest(), {}, {}, self._place, s.compute.job_timeout_s, scenario)
        jobs = [
            units.job("survey", centre, None, blank.survey_body(centre), label=f"survey of {centre}")
            for centre in s.centres
        ]
        earlier = self._earlier_precision()
        with self._phase("survey", len(jobs)):
            replies = self._centres.gather(jobs)
        bad = [reply for reply in replies if not reply.ok]
        if bad:
            status = 2 if all(reply.code in INPUT_CODES for reply in bad) else 1
            raise StudyError(
                "; ".join(explain(r.centre, r.code, f"survey of {r.centre}", r.numbers) for r in bad), status
            )
        for reply in replies:
            for task in reply.body["tasks"].values():
                for note in task["notes"]:
                    self._record.event("note", centre=reply.centre, text=note)
        self._record.write_partition(
            {"centre": reply.centre, "task": name, **row}
            for reply in replies for name, task in reply.body["tasks"].items() for row in task["partition"]
        )  # fmt: skip
        compute = {
            r.centre: {"device": r.body["device"], "precision": r.body["precision"] | earlier.get(r.centre, {})}
            for r in replies
        }
        data = {(r.centre, task): found["digest"] for r in replies for task, found in r.body["tasks"].items()}
        return Plan(s, compute), replace(units, data=data, platform={r.centre: r.body["platform"] for r in replies})

    def _share(self, plan: Plan, units: Units, expected: Sequence[Expected]) -> Shared:
        """All exchanges side by side, so that a federation's waiting fills with the others' work; then the delivery."""
        strategies: list[Strategy] = [
            OneShot(
                units.of_strategy("one_shot"), order, self._clock(plan, f"{order.generator}/{order.task}", [order.centre]),
                step_s=self._scenario.clock.step_s,
            )
            for order in plan.orders()
        ]  # fmt: skip
        strategies += [Pooled(units.of_strategy("pooled"), transfer) for transfer in plan.transfers()]
        strategies += [
            FedAvgGAN(
                units.of_strategy(planned.federation.strategy),
                planned.federation,
                # A centre alone, and the central model, are there to compare with: nothing is sent that could be lost.
                self._clock(plan, planned.purpose, planned.members, faults=planned.federation.series == "federation"),
            )
            for planned in federations(plan)
        ]
        strategies += [
            DmGAN(
                units.of_strategy(remote.plan.strategy), remote.plan, self._clock(plan, remote.purpose, remote.members)
            )
            for remote in remote_trainings(plan, deployed=self._deployed)
        ]
        shared = Shared(generators=plan.packages())
        jobs = sum(row.messages for row in expected if row.kind not in ("survey", "test", *LEARNING))
        with self._phase("share", jobs):
            exchanges = {number: strategy.share(self._centres) for number, strategy in enumerate(strategies)}
            for part in run_together(self._centres, exchanges).values():
                shared.add(part)
            delivery = deliver(units, plan.deliveries(), shared.generators)
            shared.add(run_together(self._centres, {"delivery": delivery})["delivery"])
        for (name, task), made in shared.generators.items():
            if made.centres:
                self._keep_generator(name, task, made)
        return shared

    def _clock(self, plan: Plan, purpose: str, members: Sequence[str], faults: bool = True) -> Clock:
        s = self._scenario
        if self._deployed:
            return RealClock()
        centres = plan.availability(members, faults=faults)
        return VirtualClock(centres, seed=s.seed, purpose=purpose, notice_s=s.clock.notice_s)

    def _learn(
        self, plan: Plan, units: Units, shared: Shared, expected: Sequence[Expected]
    ) -> dict[str, tuple[Cell, Reply]]:
        """All cells: those that one job of the receiver computes, and those that several centres train together."""
        jobs: dict[str, tuple[Cell, Job]] = {}
        together: list[tuple[Cell, FedAvgClassifier]] = []
        for cell in plan.cells():
            if cell.strategy == "fedavg_classifier":
                planned = federated_classifier(plan, cell)
                clock = self._clock(plan, planned.purpose, planned.members)
                together.append((cell, FedAvgClassifier(units.of_strategy(cell.strategy), planned.federation, clock)))
                continue
            pools = shared.pools.get((cell.arm, cell.receiver, cell.task))
            if pools is None and cell.strategy != "local":
                continue  # what it builds on failed; that failure is recorded
            body = plan.cell_body(cell, [_pool_body(pool) for pool in pools or []])
            inputs = [pool.unit for pool in pools or []]
            job = units.of_strategy(cell.strategy).job(
                "learn", cell.receiver, cell.task, body, inputs=inputs, label=cell.label
            )
            jobs[job.unit] = (cell, job)
        with self._phase("learn", sum(row.messages for row in expected if row.kind in LEARNING)):
            exchanges: dict[int, Exchange[Any]] = {-1: gather([job for _, job in jobs.values()])}
            exchanges |= {number: one.train(self._centres) for number, (_, one) in enumerate(together)}
            # Each federation holds its weights: not all are begun at once.
            outcomes = run_together(self._centres, exchanges, at_once=1 + 2 * self._scenario.compute.workers)
        replies: list[Reply] = outcomes.pop(-1)
        learned = {reply.unit: (jobs[reply.unit][0], reply) for reply in replies if reply.ok}
        for number, (cell, _) in enumerate(together):
            adopted: Adopted = outcomes[number]
            shared.problems += adopted.problems
            if adopted.record is not None:
                shared.federations.append(adopted.record)
            if adopted.reply is not None:
                learned[adopted.reply.unit] = (cell, adopted.reply)
        return learned

    def _test(
        self, plan: Plan, units: Units, learned: dict[str, tuple[Cell, Reply]]
    ) -> tuple[list[tuple[Cell, str, Reply, Reply]], bool]:
        """The tests that were done, and whether these are all."""
        jobs: dict[str, tuple[Cell, str, Reply, Job]] = {}
        for unit, (cell, reply) in learned.items():
            for centre in plan.test_centres(cell):
                weights = {k.removeprefix("classifier."): v for k, v in reply.arrays.items()}
                job = units.of_strategy(cell.strategy).job(
                    "test", centre, cell.task, plan.test_body(cell, centre), inputs=[unit], arrays=weights,
                    label=f"{cell.label} on {centre}",
                )  # fmt: skip
                jobs[job.unit] = (cell, centre, reply, job)
        with self._phase("test", len(jobs)):
            replies = self._centres.gather([job for *_, job in jobs.values()])
        return [(*jobs[reply.unit][:3], reply) for reply in replies if reply.ok], all(reply.ok for reply in replies)

    def _earlier_precision(self) -> dict[str, dict[str, str]]:
        """{centre: {model: precision}} that earlier sessions of this run computed in: today's measurement may differ."""
        earlier: dict[str, dict[str, str]] = {}
        for info in self._record.units() if self._scenario.compute.precision == "auto" else []:
            if info["kind"] == "survey":
                earlier.setdefault(info["centre"], {}).update(info["result"]["precision"])
        return earlier

    # -- what is written -----------------------------------------------------------------------------------------

    @contextmanager
    def _phase(self, phase: str, units: int) -> Iterator[None]:
        self._record.event("phase_started", phase=phase, units=units)
        started = time.time()
        yield
        self._record.event("phase_finished", phase=phase, seconds=time.time() - started)

    def _keep_generator(self, name: str, task: str, made: Generated) -> None:
        """The shared package and a grid of its images. The preview is synthetic, drawn at a centre."""
        several = len(self._scenario.all_tasks) > 1
        folder = f"{name}-{task}" if several else name
        card = {
            "name": name,
            "task": task,
            "centre": ", ".join(made.centres),
            "data_card": made.card["data_card"],
            "trained_on": made.card["trained_on"],
            "purpose": f"training classifiers for task {task!r} in study {self._scenario.name!r}",
            "licence": "as agreed between the centres of this study",
            "privacy": "no formal guarantee: trained without differential privacy",
        }
        spec = GeneratorSpec.model_validate(made.spec)
        GeneratorPackage(spec, made.weights, card).write(self._record.folder / "generators" / folder)
        if made.preview is not None:
            pixels, labels = made.preview
            # Positives first, as in the grids of real patches.
            self._record.write_samples(folder, pixels[np.argsort(-labels, kind="stable")])

    def _write_federations(self, shared: Shared) -> None:
        """What happened in the federations: how they converged, when their jobs came back, and what was missing."""
        places = [(record, {"arm": record.arm, "task": record.task}) for record in shared.federations]
        self._record.write_convergence([place | row for record, place in places for row in record.convergence])
        # Of a member alone only the curve is kept; the cells of a federated classifier are one federation, its first shown.
        places = [(record, place) for record, place in places if record.series != "alone"]
        merged: dict[tuple[str, str], FederationRecord] = {}
        for record, _ in places:
            key = (record.arm, record.task)
            merged[key] = (
                record if key not in merged else replace(merged[key], summary=merged[key].summary + record.summary)
            )
        places = [(record, {"arm": arm, "task": task}) for (arm, task), record in merged.items()]
        self._record.write_virtual_time(
            [
                # A lost job has no end: when the server noticed is not when the centre stopped computing.
                place
                | {"strategy": record.strategy}
                | asdict(row)
                | ({"finished_s": None} if row.outcome == "lost" else {})
                for record, place in places
                for row in record.rows
            ]  # fmt: skip
        )
        self._record.write_federations([place | _told(record) for record, place in places])

    def _write_privacy(self, shared: Shared) -> None:
        """What left each centre, and what is guaranteed about it: in this version nothing, and the file says so."""
        guarantee: dict[str, Any] = {"differential_privacy": None, "attacks_run": []}
        # From the events: a resumed session does not see again what earlier ones received.
        finished = [event for event in self._record.events() if event["event"] == "unit_finished"]
        self._record.write_privacy(
            {
                "generators": {
                    f"{name}/{task}": {
                        "centre": ", ".join(made.centres), "trained_on": made.card["trained_on"], **guarantee
                    }
                    for (name, task), made in shared.generators.items() if made.centres
                },
                "pixels_left": sorted({event["centre"] for event in finished if event["kind"] == "send_patches"}),
                "left_each_centre": _what_left(finished),
                "text": "Generators were trained without differential privacy and no attack was run on them: that synthetic "
                "images are not copies of patients is not shown here.",
            }
        )  # fmt: skip

    def _write_results(
        self, learned: dict[str, tuple[Cell, Reply]], tested: list[tuple[Cell, str, Reply, Reply]]
    ) -> None:
        places = [(cell, cell.receiver, reply, reply) for cell, reply in learned.values()] + tested
        results, predictions = [], []
        for cell, tested_on, learned_reply, reply in places:
            body = learned_reply.body
            fraction = cell.fraction if cell.fraction is not None else (cell.images or 0) / body["train_boxes"]
            shared: dict[str, Any] = {
                "arm": cell.arm, "task": cell.task, "classifier": cell.classifier.model,
                "real_fraction": round(fraction, 6), "repeat": cell.repeat, "receiver": cell.receiver, "tested_on": tested_on,
            }  # fmt: skip
            for metric in METRICS:
                row = {"strategy": cell.strategy, "metric": metric, "value": reply.body["metrics"][metric]}
                results.append(shared | row | {"n_real": body["n_real"], "n_synthetic": body["n_synthetic"]})
            # A deployed centre keeps them, unless its policy lets them go.
            table = reply.body.get("predictions", {"patient": [], "label": [], "probability": []})
            for case, (patient, label, probability) in enumerate(
                zip(table["patient"], table["label"], table["probability"], strict=True)
            ):
                predictions.append(
                    shared | {"case": case, "patient": patient, "label": label, "probability": probability}
                )
        self._record.write_results(results)
        self._record.write_predictions(predictions)
        kept = sorted({centre for _, centre, _, reply in places if "predictions" not in reply.body})
        if kept:
            self._record.event(
                "note", centre="", text=f"the predictions of single images stayed at {listed(kept)}; predictions.csv lacks them, "
                "and intervals over test patients cannot be given there",
            )  # fmt: skip


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


def _pool_body(pool: Pool) -> dict[str, Any]:
    return {"unit": pool.unit, "source": pool.source, "negatives": pool.negatives, "positives": pool.positives}


def _told(record: FederationRecord) -> dict[str, Any]:
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
        "notes": notes,
    }  # fmt: skip
