"""`polycentre centre plan`: what a study would take out of a hospital, for whoever decides whether it may.

A page in Markdown: which messages, how many and how large, every field of them with what it tells about patients, what comes
in, what stays, and what this node's policy would refuse.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from clients.centre_file import POOLING, CentreFile
from clients.outgoing import Field, fields_of
from clients.policy import REAL_PATCHES, unmet_release_rule
from federation.flower.bundle import own_checkout, own_digest
from federation.wire.code_digest import code_digest
from federation.wire.errors import StudyError
from federation.wire.job import IDENTIFY
from federation.wire.units import scenario_digest
from scenarios.arms import FedAvgClassifierArm
from scenarios.federations import federated_classifier, federations, remote_trainings
from scenarios.messages import Expected, expected_messages
from scenarios.plan import Plan
from scenarios.reader import resolved_yaml
from scenarios.scenario import Scenario

_RISKS = {
    "model": "what a model learned from patients",
    "aggregate": "numbers over many images",
    "counts": "how many there are of what",
    "none": "nothing about patients",
}
_TITLES = {
    "identify": "roll call",
    "survey": "survey of the data",
    "train_generator": "train a generator",
    "send_patches": "send real patches",
    "receive_patches": "receive real patches",
    "synthesise": "draw synthetic images",
    "learn": "train a classifier",
    "test": "test elsewhere",
}
# What the roll call takes, once a node is found.
_ROLL_CALL = Expected("", IDENTIFY, messages=1)


def plan_page(file: CentreFile, scenario: Scenario, how_to_approve: str) -> str:
    """The page, in Markdown.

    Args:
        how_to_approve: the command line that approves this study.

    Raises:
        StudyError: the scenario has no such centre.
    """
    centre = file.centre
    if centre not in scenario.centres:
        raise StudyError(
            f"scenario {scenario.name!r} has no centre {centre!r}; its centres: {', '.join(scenario.centres)}", 2
        )
    plan = Plan(scenario)
    rows = [_ROLL_CALL, *(row for row in expected_messages(plan) if row.centre == centre)]
    refusals = list(_refused(file, plan, rows))
    lines = [
        f"# What the study {scenario.name!r} would take out of centre {centre}",
        "",
        *([scenario.description.strip(), ""] if scenario.description.strip() else []),
        "## Would this node take part?",
        "",
        *(
            [f"**No.** Its policy refuses {len(refusals)} parts, and the study would fail there:", "", *(f"- {r}" for r in refusals)]
            if refusals else ["**Yes**, once the study is approved. Its policy refuses nothing of it."]
        ),
        "",
        *(f"- {note}" for note in notes(file, scenario)),
        "",
        "## What would leave",
        "",
        "Without faults; a job whose answer is lost is answered again.",
        "",
        *_table(
            ("message", "how many", "arrays in all", "the most telling part of it"),
            [(kind_name(row.kind), str(row.messages), _size(row.bytes_up), _worst(row.kind)) for row in rows],
        ),
        "",
        "Numbers and names beside the arrays are some kilobytes a message.",
        "",
        "## Field by field",
        "",
        "Nothing else can leave: a node keeps an answer that holds any other field.",
        "",
    ]  # fmt: skip
    for row in rows:
        if row.kind in REAL_PATCHES:
            continue  # refused, whatever else is approved
        lines += [
            f"### {kind_name(row.kind)}",
            "",
            *_table(("field", "type", "what it tells about patients"), _fields(file, row)),
            "",
        ]
    lines += [
        "## What would come in",
        "",
        *_table(
            ("message", "how many", "arrays in all"),
            [(kind_name(row.kind), str(row.messages), _size(row.bytes_down)) for row in rows if row.bytes_down],
        ),
        "",
        "## What stays",
        "",
        "Images, masks, tables, identifiers and dates of patients; discriminators' optimizers and other state between jobs; contact "
        "sheets of real patches; the text of errors (paths and identifiers stand in it); where anything lies on this machine's "
        "disks" + ("." if file.release.predictions else "; the predictions of single images."),
        "",
        "## What is approved",
        "",
        "The study as resolved, every default written out, and with the code below. A job that differs in what the scenario fixes "
        "(data, task, split, seeds, models, training, number of rounds) is refused.",
        "",
        f"- scenario: `{scenario_digest(resolved_yaml(scenario))}`",
        f"- computing code: `{code_digest()}`",
        f"- app bundle: `{own_digest(own_checkout())}`",
        "",
        f"Approve with: `{how_to_approve}`",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def refused(file: CentreFile, scenario: Scenario) -> list[str]:
    """What this node's policy would refuse of a study, one sentence each."""
    plan = Plan(scenario)
    return list(_refused(file, plan, [row for row in expected_messages(plan) if row.centre == file.centre]))


def _refused(file: CentreFile, plan: Plan, rows: list[Expected]) -> Iterator[str]:
    asked = kinds_of(plan, file.centre)
    for strategy, kinds in asked.items():
        if strategy in POOLING or kinds & REAL_PATCHES:
            yield f"strategy `{strategy}` moves real patches, which no deployed centre does"
        elif strategy and strategy not in file.release.strategies:
            yield f"strategy `{strategy}` is not in release.strategies"
    for kind in sorted({kind for kinds in asked.values() for kind in kinds}):
        rule = unmet_release_rule(file.release, kind, {"send_classifier": _sends_classifier(plan, file.centre)})
        if rule:
            yield f"{kind_name(kind)}: {rule}"
    limit = file.release.largest_message_mib * 2**20
    for row in rows:
        for way, size in (("in", row.bytes_down), ("out", row.bytes_up)):
            if size and row.messages and size / row.messages > limit:
                yield (
                    f"{kind_name(row.kind)}: a message {way} has about {_size(size // row.messages)}, more than "
                    f"release.largest_message_mib ({file.release.largest_message_mib:g})"
                )


def notes(file: CentreFile, scenario: Scenario) -> Iterator[str]:
    """What this node does otherwise than the scenario says, and when."""
    if file.data is not None:
        yield f"its own data ({file.data['source']}) replaces what the scenario says of this centre's data"
    if scenario.compute.threads_per_job > file.resources.threads:
        yield (
            f"jobs compute with {file.resources.threads} threads (resources.threads), not {scenario.compute.threads_per_job}; results "
            "are then not those of a simulation to the last bit"
        )
    if file.working_hours is not None:
        yield f"jobs are done {file.working_hours} only; outside the study fails here, and can be resumed"


def kinds_of(plan: Plan, centre: str) -> dict[str, set[str]]:
    """{strategy: kinds of jobs} that a study asks of a centre; "" for what is done for all arms together."""
    asked: dict[str, set[str]] = defaultdict(set, {"": {"survey"}})
    if any(order.centre == centre for order in plan.orders()):
        asked["one_shot"].add("train_generator")
    for transfer in plan.transfers():
        asked["pooled"] |= {"send_patches"} if centre in transfer.bodies else set()
        asked["pooled"] |= {"receive_patches"} if centre == transfer.receiver else set()
    trainings = [(f.federation, f.federation.members, "train_round") for f in federations(plan)]
    trainings += [(r.plan, r.plan.members, "train_discriminator") for r in remote_trainings(plan)]  # type: ignore[misc]
    for planned in federations(plan):
        if planned.federation.pooled and centre in planned.federation.pooled:
            asked[planned.federation.strategy].add("send_patches")
    for training, members, kind in trainings:
        if any(member.centre == centre for member in members):
            asked[training.strategy].add(kind)
        if centre in training.fidelity.bodies:
            asked[training.strategy].add("feature_sums")
        if centre == training.fidelity.measured_at:
            asked[training.strategy].add("measure_generator")
    if any(receiver == centre for receiver, *_ in plan.synthesised()):
        asked[""].add("synthesise")
    for cell in plan.cells():
        if isinstance(plan.scenario.arms[cell.arm], FedAvgClassifierArm):
            if centre in federated_classifier(plan, cell).members:
                asked[cell.strategy].add("train_classifier_round")
            if cell.receiver == centre:
                asked[cell.strategy] |= {"validate_classifier", "adopt_classifier"}
        elif cell.receiver == centre:
            asked[cell.strategy].add("learn")
        if centre in plan.test_centres(cell):
            asked[cell.strategy].add("test")
    return {strategy: kinds for strategy, kinds in asked.items() if kinds}


def _sends_classifier(plan: Plan, centre: str) -> bool:
    return any(plan.test_centres(cell) for cell in plan.cells() if cell.receiver == centre)


def _worst(kind: str) -> str:
    """The most telling part of an answer, in words."""
    if kind in REAL_PATCHES:
        return "**images of patients**: never, a deployed node refuses"
    order = list(_RISKS)
    return _RISKS[min((field.risk for field in fields_of(kind)), key=order.index)]


def _fields(file: CentreFile, row: Expected) -> Iterator[tuple[str, str, str]]:
    fields = sorted(fields_of(row.kind), key=lambda field: list(_RISKS).index(field.risk))
    for field in fields:
        if field.name == "predictions.*" and not file.release.predictions:
            continue
        if field.risk == "model" and field.name.startswith("classifier") and not row.bytes_up:
            continue  # nobody else tests it
        yield f"`{field.name}`", field.type, _told(field)


def _told(field: Field) -> str:
    text = field.tells if field.risk != "none" else f"nothing about patients: {field.tells}"
    return text + (f" ({field.when})" if field.when else "")


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def _size(size: int | None) -> str:
    if size is None:
        return "real images"
    return "none" if size == 0 else f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(1, round(size / 2**10))} KiB"


def kind_name(kind: str) -> str:
    """A kind of job in words."""
    return _TITLES.get(kind, kind.replace("_", " "))
