"""The study, phase by phase: survey, share, learn, test. Each phase is one or a few `gather`s over the centres.

A centre that fails takes with it what depends on it and nothing else: its error is recorded, the other units
are finished, and the run ends as failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, TypeVar

from basics.words import one_line
from federation.wire.centres import Centres
from federation.wire.clock import Clock, VirtualClock
from federation.wire.code_digest import code_digest
from federation.wire.errors import INPUT_CODES, StudyError, explain
from federation.wire.exchange import Exchange, run_together
from federation.wire.job import Job, Reply
from federation.wire.real_clock import RealClock
from federation.wire.units import Units, digest, scenario_digest
from reports.run_record import RunRecord
from scenarios.messages import Expected, expected_messages
from scenarios.plan import Plan
from scenarios.plugins import uses
from scenarios.reader import resolved_yaml
from scenarios.scenario import Scenario
from server.checkpoint import Checkpointed
from server.precision import settle_precision
from server.written import described, keep_generator, write_federations, write_privacy, write_results
from strategies import KINDS, STRATEGIES
from strategies.cells import CLASSIFIER
from strategies.delivery import deliver
from strategies.kind import Phase
from strategies.planned import Learned, Planned, Shared, problems_of
from strategies.view import Cell

T = TypeVar("T")


class Study:
    """Runs a scenario over centres and writes what comes out into a run record."""

    def __init__(
        self, scenario: Scenario, centres: Centres, record: RunRecord, place: Mapping[str, str], deployed: bool = False
    ):
        self._scenario, self._deployed = scenario, deployed
        self._centres = Checkpointed(centres, record)
        self._record = record
        self._place = dict(place)

    def run(self) -> list[str]:
        """All phases; what failed, each in a sentence: empty when every unit finished.

        Raises:
            StudyError: nothing sensible can follow (bad input found by the survey, a poisoned runtime).
        """
        self._record.write_kinds(described(self._scenario))
        plan, units = self._survey()
        expected = expected_messages(plan)
        self._record.write_expected([asdict(row) for row in expected])
        shared = self._share(plan, units, expected)
        learned = self._learn(plan, units, shared, expected)
        tested, untested = self._test(plan, units, learned)
        write_results(self._record, self._scenario, learned, tested)
        write_privacy(self._record, shared)
        write_federations(self._record, shared)
        for problem in [*shared.notes, *shared.problems]:
            self._record.event("note", centre="", text=problem)
        wanted = len(plan.cells())
        if len(learned) < wanted:
            self._record.event(
                "note", centre="", text=f"{wanted - len(learned)} of {wanted} cells could not be computed"
            )
        # A job that failed and that its federation could do without is noted; the run has not failed.
        failed = list(dict.fromkeys([*shared.problems, *untested]))
        return failed or (
            [f"{wanted - len(learned)} of {wanted} cells could not be computed"] if len(learned) < wanted else []
        )

    # -- phases --------------------------------------------------------------------------------------------------

    def _survey(self) -> tuple[Plan, Units]:
        blank = Plan(self._scenario)
        s = self._scenario
        study = digest([s.name, s.seed, sorted(s.centres)])
        # What hospitals approve; in a simulation there is nobody to ask.
        scenario = scenario_digest(resolved_yaml(s)) if self._deployed else ""
        units = Units(
            study, code_digest(), {}, {}, self._place, s.compute.job_timeout_s, scenario,
            plugins=[asdict(plugin) for plugin in uses(s)],
        )  # fmt: skip
        jobs = []
        for centre in s.centres:
            ask = blank.survey_ask(centre)
            jobs.append(ask.job(units, label=f"survey of {centre}", **ask.example))
        with self._phase("survey", len(jobs)):
            replies = self._centres.gather(jobs)
        bad = [reply for reply in replies if not reply.ok]
        if bad:
            status = 2 if all(reply.code in INPUT_CODES for reply in bad) else 1
            raise StudyError(
                "; ".join(explain(r.centre, r.code, f"survey of {r.centre}", r.numbers) for r in bad), status
            )
        self._refuse_empty_classes(replies)
        for reply in replies:
            for task in reply.body["tasks"].values():
                for note in task["notes"]:
                    self._record.event("note", centre=reply.centre, text=one_line(note))
        self._record.write_partition(
            {"centre": reply.centre, "task": name, **row}
            for reply in replies for name, task in reply.body["tasks"].items() for row in task["partition"]
        )  # fmt: skip
        settle_precision(self._record, {r.centre: r.body["precision"] for r in replies}, s.compute.precision)
        precision = self._record.precision()
        compute = {r.centre: {"device": r.body["device"], "precision": precision[r.centre]} for r in replies}
        data = {(r.centre, task): found["digest"] for r in replies for task, found in r.body["tasks"].items()}
        platform = {reply.centre: reply.body["platform"] for reply in replies}
        return Plan(s, compute, deployed=self._deployed), replace(units, data=data, platform=platform)

    def _refuse_empty_classes(self, replies: Sequence[Reply]) -> None:
        """A class that no centre can teach is a mistake in the task. One that some centres lack is not."""
        for task in self._scenario.all_tasks:
            taught = {name for reply in replies for name in reply.body["tasks"][task.name]["classes"]}
            absent = [name for name in task.classes if name not in taught]
            if absent:
                raise StudyError(
                    f"task {task.name!r}: no centre has a training image of class {absent[0]!r}; remove it from task.classes, correct its "
                    "spelling, or add a centre that has it",
                    2,
                )

    def _share(self, plan: Plan, units: Units, expected: Sequence[Expected]) -> Shared:
        """All exchanges side by side, so that a federation's waiting fills with the others' work; then the delivery."""
        shared = Shared(generators=plan.packages())
        with self._phase("share", _messages(expected, "share")):
            exchanges = {number: self._begun(plan, units, one) for number, one in enumerate(plan.exchanges)}
            for part in run_together(self._centres, exchanges).values():
                shared.add(part)
            delivery = deliver(units, list(plan.deliveries.values()), plan.synthesis, shared.generators)
            shared.add(run_together(self._centres, {"delivery": delivery})["delivery"])
        for (name, task), made in shared.generators.items():
            if made.centres:
                keep_generator(self._record, self._scenario, name, task, made)
        return shared

    def _begun(self, plan: Plan, units: Units, planned: Planned[T]) -> Exchange[T]:
        clock = self._clock(plan, planned)
        return planned.begin(units.of_strategy(planned.strategy), clock).share(self._centres)

    def _clock(self, plan: Plan, planned: Planned[Any]) -> Clock:
        s = self._scenario
        if self._deployed:
            return RealClock()
        centres = plan.availability(planned.members, faults=planned.faults)
        return VirtualClock(centres, seed=s.seed, purpose=planned.purpose, notice_s=s.clock.notice_s)

    def _learn(
        self, plan: Plan, units: Units, shared: Shared, expected: Sequence[Expected]
    ) -> dict[str, tuple[Cell, Reply]]:
        """All cells: those that one job of the receiver computes, and those that several centres train together."""
        light: dict[int, Exchange[Learned]] = {}
        heavy: dict[int, Exchange[Learned]] = {}
        cells = plan.cells()
        for number, cell in enumerate(cells):
            pools = shared.pools.get((cell.arm, cell.receiver, cell.task))
            if pools is None and STRATEGIES[cell.strategy].needs_pools():
                continue  # what it builds on failed; that failure is recorded
            planned = plan.learning(cell, pools or [])
            (light if planned.light else heavy)[number] = self._begun(plan, units, planned)
        with self._phase("learn", _messages(expected, "learn")):
            # A federation holds its weights: not all are begun at once.
            at_once = 2 * self._scenario.compute.workers
            outcomes = run_together(self._centres, light | heavy, at_once=at_once, light=light)
        learned = {}
        for number, outcome in outcomes.items():
            shared.problems += outcome.problems
            if outcome.record is not None:
                shared.federations.append(outcome.record)
            if outcome.reply is not None:
                learned[outcome.reply.unit] = (cells[number], outcome.reply)
        return learned

    def _test(
        self, plan: Plan, units: Units, learned: dict[str, tuple[Cell, Reply]]
    ) -> tuple[list[tuple[Cell, str, Reply, Reply]], list[str]]:
        """The tests that were done, and what became of the others."""
        jobs: dict[str, tuple[Cell, str, Reply, Job]] = {}
        for unit, (cell, reply) in learned.items():
            for ask in plan.tests(cell):
                weights = {name.removeprefix(CLASSIFIER): array for name, array in reply.arrays.items()}
                job = ask.job(
                    units.of_strategy(cell.strategy),
                    inputs=[unit],
                    arrays=weights,
                    label=f"{cell.label} on {ask.centre}",
                    signature=str(reply.body.get("signature", "")),
                )
                jobs[job.unit] = (cell, ask.centre, reply, job)
        with self._phase("test", len(jobs)):
            replies = self._centres.gather([job for *_, job in jobs.values()])
        return [(*jobs[reply.unit][:3], reply) for reply in replies if reply.ok], problems_of(replies)

    # -- what is written -----------------------------------------------------------------------------------------

    @contextmanager
    def _phase(self, phase: str, units: int) -> Iterator[None]:
        self._record.event("phase_started", phase=phase, units=units)
        started = time.time()
        yield
        self._record.event("phase_finished", phase=phase, seconds=time.time() - started)


def _messages(expected: Sequence[Expected], phase: Phase) -> int:
    """How many jobs a phase is expected to have."""
    return sum(row.messages for row in expected if KINDS[row.kind].phase == phase)
