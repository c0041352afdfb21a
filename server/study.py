"""The study, phase by phase: survey, share, learn, test. Each phase is one or a few `gather`s over the centres.

A centre that fails takes with it what depends on it and nothing else: its error is recorded, the other units
are finished, and the run ends as failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from federation.centres import Centres
from federation.code_digest import code_digest
from federation.errors import INPUT_CODES, StudyError, explain
from federation.job import Job, Reply
from federation.units import Units, digest
from metrics import METRICS
from models import GeneratorPackage, GeneratorSpec
from reports.run_record import RunRecord
from scenarios.plan import Cell, Plan
from scenarios.scenario import Scenario
from server.checkpoint import Checkpointed
from strategies.one_shot import OneShot, weights_of
from strategies.pooled import Pooled
from strategies.strategy import Pool, Shared, Strategy


class Study:
    """Runs a scenario over centres and writes what comes out into a run record."""

    def __init__(self, scenario: Scenario, centres: Centres, record: RunRecord, place: Mapping[str, str]):
        self._scenario = scenario
        self._centres = Checkpointed(centres, record)
        self._record = record
        self._place = dict(place)

    def run(self) -> bool:
        """All phases; True when every unit finished.

        Raises:
            StudyError: nothing sensible can follow (bad input found by the survey, a poisoned runtime).
        """
        plan, units = self._survey()
        shared = self._share(plan, units)
        learned = self._learn(plan, units, shared)
        tested = self._test(plan, units, learned)
        self._write_results(learned, tested)
        self._write_privacy(shared)
        wanted = len(plan.cells())
        if len(learned) < wanted:
            self._record.event(
                "note", centre="", text=f"{wanted - len(learned)} of {wanted} cells could not be computed"
            )
        return not self._centres.failed and len(learned) == wanted

    # -- phases --------------------------------------------------------------------------------------------------

    def _survey(self) -> tuple[Plan, Units]:
        blank = Plan(self._scenario)
        s = self._scenario
        study = digest([s.name, s.seed, sorted(s.centres)])
        units = Units(study, code_digest(), {}, {}, self._place, s.compute.job_timeout_s)
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

    def _share(self, plan: Plan, units: Units) -> Shared:
        strategies: list[Strategy] = [
            OneShot(units, plan.orders(), plan.deliveries()),
            Pooled(units, plan.transfers()),
        ]
        everything = Shared()
        with self._phase("share", plan.share_units()):
            for strategy in strategies:
                shared = strategy.share(self._centres)
                everything.pools |= shared.pools
                everything.generators |= shared.generators
                everything.failed += shared.failed
        for (name, task), reply in everything.generators.items():
            if reply.ok:
                self._keep_generator(plan, name, task, reply)
        return everything

    def _learn(self, plan: Plan, units: Units, shared: Shared) -> dict[str, tuple[Cell, Reply]]:
        jobs: dict[str, tuple[Cell, Job]] = {}
        for cell in plan.cells():
            pools = shared.pools.get((cell.arm, cell.receiver, cell.task))
            if pools is None and cell.strategy != "local":
                continue  # what it builds on failed; that failure is recorded
            body = plan.cell_body(cell, [_pool_body(pool) for pool in pools or []])
            inputs = [pool.unit for pool in pools or []]
            job = units.job("learn", cell.receiver, cell.task, body, inputs=inputs, label=cell.label)
            jobs[job.unit] = (cell, job)
        with self._phase("learn", len(jobs)):
            replies = self._centres.gather([job for _, job in jobs.values()])
        for reply in replies:
            if reply.code == "missing_input":  # the receiver lost a pool: a resumed run sends it once more
                self._record.forget_unit(str(reply.numbers["input"]))
        return {reply.unit: (jobs[reply.unit][0], reply) for reply in replies if reply.ok}

    def _test(
        self, plan: Plan, units: Units, learned: dict[str, tuple[Cell, Reply]]
    ) -> list[tuple[Cell, str, Reply, Reply]]:
        jobs: dict[str, tuple[Cell, str, Reply, Job]] = {}
        for unit, (cell, reply) in learned.items():
            for centre in plan.test_centres(cell):
                weights = {k.removeprefix("classifier."): v for k, v in reply.arrays.items()}
                job = units.job(
                    "test", centre, cell.task, plan.test_body(cell, centre), inputs=[unit], arrays=weights,
                    label=f"{cell.label} on {centre}",
                )  # fmt: skip
                jobs[job.unit] = (cell, centre, reply, job)
        with self._phase("test", len(jobs)):
            replies = self._centres.gather([job for *_, job in jobs.values()])
        return [(*jobs[reply.unit][:3], reply) for reply in replies if reply.ok]

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

    def _keep_generator(self, plan: Plan, name: str, task: str, reply: Reply) -> None:
        """The shared package and a grid of its images. The preview is synthetic, drawn at the provider."""
        several = len(self._scenario.all_tasks) > 1
        folder = f"{name}-{task}" if several else name
        spec = GeneratorSpec.model_validate(plan.generator_spec(name, task))
        card = {
            "name": name,
            "task": task,
            "centre": reply.centre,
            "data_card": reply.body["data_card"],
            "trained_on": reply.body["trained_on"],
            "purpose": f"training classifiers for task {task!r} in study {self._scenario.name!r}",
            "licence": "as agreed between the centres of this study",
            "privacy": "no formal guarantee: trained without differential privacy",
        }
        GeneratorPackage(spec, weights_of(reply), card).write(self._record.folder / "generators" / folder)
        # Positives first, as in the grids of real patches.
        order = np.argsort(-reply.arrays["preview.labels"], kind="stable")
        self._record.write_samples(folder, reply.arrays["preview.pixels"][order])

    def _write_privacy(self, shared: Shared) -> None:
        """What left each centre, and what is guaranteed about it: in this version nothing, and the file says so."""
        guarantee: dict[str, Any] = {"differential_privacy": None, "attacks_run": []}
        self._record.write_privacy(
            {
                "generators": {
                    f"{name}/{task}": {"centre": reply.centre, "trained_on": reply.body["trained_on"], **guarantee}
                    for (name, task), reply in shared.generators.items()
                    if reply.ok
                },
                "pixels_left": sorted({reply.centre for reply in self._centres.good if reply.kind == "send_patches"}),
                "left_each_centre": _what_left(self._centres.good),
                "text": "Generators were trained without differential privacy and no attack was run on them: that synthetic "
                "images are not copies of patients is not shown here.",
            }
        )

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
            table = reply.body["predictions"]
            for case, (patient, label, probability) in enumerate(
                zip(table["patient"], table["label"], table["probability"], strict=True)
            ):
                predictions.append(
                    shared | {"case": case, "patient": patient, "label": label, "probability": probability}
                )
        self._record.write_results(results)
        self._record.write_predictions(predictions)


def _what_left(replies: list[Reply]) -> dict[str, dict[str, dict[str, int]]]:
    """{centre: {kind: {messages, bytes}}} of the replies of all centres."""
    left: dict[str, dict[str, dict[str, int]]] = {}
    for reply in replies:
        entry = left.setdefault(reply.centre, {}).setdefault(reply.kind, {"messages": 0, "bytes": 0})
        entry["messages"] += 1
        entry["bytes"] += reply.bytes_up
    return left


def _pool_body(pool: Pool) -> dict[str, Any]:
    return {"unit": pool.unit, "source": pool.source, "negatives": pool.negatives, "positives": pool.positives}
