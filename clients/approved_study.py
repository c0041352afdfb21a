"""Is a job one of an approved study? A server could name an approved study and ask for something else.

A centre works out from the approved scenario what that study asks of it (`scenarios.plan.Plan.asks`), and compares. All
that the scenario fixes for this centre must be the same: data, task, split, seeds, models, training settings, transport,
which of its own models are sent on. What is found out on the way is free, or kept within bounds; each kind's plan says which
(`strategies.ask.Ask`). Not compared here are the weights and images in the arrays (`clients.received_weights` looks at those); and
generator packages, the digests of pretrained weights and, in a scenario with packages, the models that the survey probes: their
files need not be here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from basics.bounded_text import SCENARIO, load_yaml
from clients.answers import Question
from clients.node import Refusal
from federation.wire.job import Job
from scenarios.plan import Plan
from scenarios.scenario import Scenario
from strategies import CELL_KINDS, KINDS, STRATEGIES
from strategies.ask import Ask
from strategies.view import Cell


def question_of(resolved: str, centre: str, job: Job) -> Question:
    """The question of the approved study that a job asks; refuses a job that is not one of it.

    Args:
        resolved: the approved scenario.
        centre: this one.

    Raises:
        Refusal: with the first key that is not as approved.
    """
    scenario = Scenario.model_validate(load_yaml(resolved, SCENARIO))
    if centre not in scenario.centres:
        raise Refusal("not_in_study", key="centre")
    nearest: list[str] | None = None
    found: list[Ask] = []
    for ask in asked_of(Plan(scenario, files=False, deployed=True), centre, job):
        differing = ask.difference(job.strategy, job.body)
        if not differing:
            found.append(ask)
        if nearest is None or len(differing) < len(nearest):
            nearest = differing
    if not found:
        raise Refusal("not_in_study", key=nearest[0] if nearest else "kind")
    series = found[0].series
    # The same may be asked by several federations of a study: in an arm, and of this centre alone.
    return Question.of(job, found[0], sum(ask.series == series for ask in found))


def asked_of(plan: Plan, centre: str, job: Job) -> Iterator[Ask]:
    """All that a study asks of a centre and that has this job's kind."""
    kind = KINDS.get(job.kind)
    if kind is None:
        return
    if kind.phase == "survey":
        asks: Iterable[Ask] = [plan.survey_ask(centre)]
    elif kind.phase == "share":
        asks = plan.share_asks()
    else:
        # Of thousands of cells only those that the job may mean.
        said = job.body.get("cell")
        named = {arm.strategy for arm in plan.scenario.arms.values()}
        asking = {name for name in named if kind in CELL_KINDS or kind in STRATEGIES[name].kinds}
        asks = plan.cell_asks(
            cell for cell in plan.cells()
            if cell.strategy in asking and (not isinstance(said, dict) or _may_mean(said, cell))
        )  # fmt: skip
    yield from (ask for ask in asks if ask.centre == centre and ask.kind.name == job.kind)


def _may_mean(said: dict, cell: Cell) -> bool:
    own = {"arm": cell.arm, "task": cell.task, "classifier": cell.classifier, "repeat": cell.repeat}
    return all(type(said.get(key)) is type(value) and said[key] == value for key, value in own.items())
