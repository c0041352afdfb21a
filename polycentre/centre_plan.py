"""`polycentre centre plan`: what a study would take out of a hospital, for whoever decides whether it may.

A page in Markdown: which messages, from how many patients, how often and how large, what a dishonest coordinator could learn from
them, the minimums of this hospital, every field of the messages, what comes in, what stays, and what this node's policy would
refuse. What the study says of itself comes last, where it can neither format the page nor add to it.

Longer than most files, because it is one page.
"""

from __future__ import annotations

from collections.abc import Iterator

from basics.markdown import code, escaped, fenced
from clients.centre_file import CentreFile
from clients.introduction import ROLL_CALL
from clients.plugins import verdicts
from clients.policy import takes_part, unmet_release_rule, unmet_sum_rule
from federation.flower.bundle import own_checkout, own_digest
from federation.wire.code_digest import code_digest
from federation.wire.errors import StudyError, explain
from federation.wire.units import scenario_digest
from polycentre.plan_minimums import Counts, Judged, judged, refusals, unit_of
from scenarios.messages import Expected, expected_messages
from scenarios.plan import Plan
from scenarios.plugins import uses
from scenarios.reader import resolved_yaml
from scenarios.scenario import Scenario
from strategies import KINDS, STRATEGIES, Kind
from strategies.ask import Ask
from strategies.bodies import OwnData
from strategies.kind import Field

_RISKS = {
    "model": "what a model learned from patients",
    "aggregate": "numbers over many images",
    "counts": "how many there are of what",
    "none": "nothing about patients",
}
# What the roll call takes, once a node is found.
_ROLL_CALL = Expected("", ROLL_CALL.name, messages=1)


def _kind(name: str) -> Kind:
    return ROLL_CALL if name == ROLL_CALL.name else KINDS[name]


def plan_page(file: CentreFile, scenario: Scenario, how_to_approve: str, counts: Counts | None = None) -> str:
    """The page, in Markdown.

    Args:
        how_to_approve: the command line that approves this study.
        counts: how patients are counted; None: they are not.

    Raises:
        StudyError: the scenario has no such centre.
    """
    centre = file.centre
    if centre not in scenario.centres:
        raise StudyError(
            f"scenario {scenario.name!r} has no centre {centre!r}; its centres: {', '.join(scenario.centres)}", 2
        )
    plan = Plan(scenario, deployed=True)
    asks = [ask for ask in plan.asks() if ask.centre == centre]
    rows = [_ROLL_CALL, *(row for row in expected_messages(plan) if row.centre == centre)]
    found = judged(file, asks, counts)
    unit = unit_of(file, scenario.centres[centre].data.model_dump(mode="json"))
    reasons = [*_refused_plugins(file, scenario), *_refused(file, asks, rows), *refusals(found)]
    lines = [
        f"# What the study '{escaped(scenario.name)}' would take out of centre {centre}",
        "",
        "## What would leave",
        "",
        *_table(
            ("message", "how many", f"from how many {unit}s of this centre", "arrays in all", "the most telling part of it"),
            [
                (_title(row), str(row.messages), _from_whom(row, found, unit), _size(row.bytes_up), _worst(_kind(row.kind)))
                for row in rows
            ],
        ),
        "",
        *(["This archive names no patients: where this page says patients, it counts "f"{unit}s.", ""] if unit != "patient" else []),
        *_not_counted(counts),
        "Without faults; a job whose answer is lost is answered again. Numbers and names beside the arrays are some kilobytes a message.",
        "",
        "## What a dishonest coordinator could learn from it",
        "",
        *(f"- **{_title(row)}**: {_kind(row.kind).reveals}" for row in rows if _kind(row.kind).reveals),
        "",
        "## Would this node take part?",
        "",
        *(
            [f"**No.** Its policy refuses {len(reasons)} parts, and the study would fail there:", "", *(f"- {r}" for r in reasons)]
            if reasons else ["**Yes**, once the study is approved. Its policy refuses nothing of it."]
        ),
        "",
        *(f"- {note}" for note in notes(file, scenario)),
        "",
        *_plugins(file, scenario),
        *_minimums(file, scenario, found),
        "## Field by field",
        "",
        "Nothing else can leave: a node keeps an answer that holds any other field.",
        "",
    ]  # fmt: skip
    for row in rows:
        if _kind(row.kind).pixels:
            continue  # refused, whatever else is approved
        lines += [
            f"### {_title(row)}",
            "",
            *_table(("field", "type", "what it tells about patients"), _fields(file, row)),
            "",
        ]
    lines += [
        "## What would come in",
        "",
        *_table(
            ("message", "how many", "arrays in all"),
            [(_title(row), str(row.messages), _size(row.bytes_down)) for row in rows if row.bytes_down],
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
        f"Approve with: {code(how_to_approve)}",
        "",
    ]  # fmt: skip
    if scenario.description.strip():
        lines += [
            "## What the study says of itself",
            "",
            "Written by whoever wrote the scenario. Nothing of it was checked, and nothing of it is part of this page.",
            "",
            *fenced(scenario.description.strip()),
            "",
        ]
    return "\n".join(lines)


def _from_whom(row: Expected, found: list[Judged], unit: str) -> str:
    """From how many patients a message is, as far as they were counted."""
    kind = _kind(row.kind)
    of_kind = [one for one in found if one.kind.name == kind.name and one.line.counted]
    if kind.pixels:
        return "refused"
    if not of_kind:
        return "all" if issubclass(kind.body, OwnData) else "none"
    return "; ".join(
        f"{one.has} {_USED_AS[one.line.rule]}" if one.line.values else f"not counted: {_USED_AS[one.line.rule]}"
        for one in of_kind
    )


# How patients are used, by the minimum with which they are compared.
_USED_AS = {
    "training_patients": "in training", "sum_patients": "in the smallest sum", "test_patients": "in the smallest class of a test",
}  # fmt: skip


def _not_counted(counts: Counts | None) -> list[str]:
    if counts is None:
        return ["Patients were not counted: this needs the data.", ""]
    return [f"Patients were not counted: {escaped(counts.problem, 300)}.", ""] if counts.problem else []


def _minimums(file: CentreFile, scenario: Scenario, found: list[Judged]) -> list[str]:
    """The section on how the study trains and measures, beside what this hospital asks for."""
    split = scenario.split
    return [
        "## How it trains and measures, and the minimums of this hospital",
        "",
        f"Each centre's patients are split: {split.train:.0%} training, {split.val:.0%} validation, {split.test:.0%} test. "
        + " ".join(
            f"Task {escaped(task.name)}: {task.crops} crops of each training box, of {task.image_size[0]} x {task.image_size[1]} pixels."
            for task in scenario.all_tasks
        )
        + " Patients are counted after that split, each once, however many crops there are.",
        "",
        *_table(
            ("message", "minimum", "asks for", "the study has", "verdict"),
            [(one.kind.title, f"`minimums.{one.line.rule}`", one.line.asks, one.has, one.verdict) for one in found],
        ),
        "",
        f"A generator that this centre trains alone leaves only where no more than {file.minimums.near_copies:.0%} of its images are near "
        "copies of training images (`minimums.near_copies`); that is known once it is trained.",
        "",
    ]


def refused(file: CentreFile, scenario: Scenario) -> list[str]:
    """What this node's policy would refuse of a study, one sentence each; patients are not counted."""
    plan = Plan(scenario, deployed=True)
    asks = [ask for ask in plan.asks() if ask.centre == file.centre]
    rows = [row for row in expected_messages(plan) if row.centre == file.centre]
    return [*_refused_plugins(file, scenario), *_refused(file, asks, rows), *refusals(judged(file, asks, None))]


def _plugins(file: CentreFile, scenario: Scenario) -> list[str]:
    """The section on the study's plug-ins; nothing where it uses none."""
    used = uses(scenario)
    if not used:
        return []
    rows: list[tuple[str, ...]] = [
        (
            one.name,
            one.version,
            f"`{one.digest}`",
            ", ".join(used[one]),
            "allowed" if refusal is None else "**refused**",
        )
        for one, refusal in verdicts(file, used)
    ]
    return [
        "## Plug-ins",
        "",
        "Code of other packages that the study runs. It is not sent: this node runs what is installed here, if centre.yaml lists it.",
        "",
        *_table(("plug-in", "version", "digest of its files here", "what the study uses of it", "this node"), rows),
        "",
    ]


def _refused_plugins(file: CentreFile, scenario: Scenario) -> Iterator[str]:
    for _, refusal in verdicts(file, uses(scenario)):
        if refusal is not None:
            yield explain(file.centre, refusal.code, "", refusal.numbers)


def _refused(file: CentreFile, asks: list[Ask], rows: list[Expected]) -> Iterator[str]:
    for name in dict.fromkeys(ask.strategy for ask in asks if ask.strategy):
        if STRATEGIES[name].pixels:
            yield f"strategy `{name}` moves real patches, which no deployed centre does"
        elif not takes_part(file.release, name):
            yield f"strategy `{name}` is not in release.strategies"
    for sha256 in _lacking_weights(file, asks):
        yield f"training begins with a file of weights that `weights` does not list (SHA-256: `{sha256}`); ask the operator for it"
    rule = unmet_release_rule(file.release)
    releasing = {ask.kind.name for ask in asks if ask.kind.releases_model(ask.outline) and not ask.kind.pixels}
    for kind in sorted(releasing) if rule else ():
        yield f"{_kind(kind).title}: {rule}"
    plain = {
        ask.kind.name: sum_rule for ask in asks if (sum_rule := unmet_sum_rule(file.release, ask.kind, ask.outline))
    }
    for kind, sum_rule in sorted(plain.items()):
        yield f"{_kind(kind).title}: {sum_rule}"
    limit = file.release.largest_message_mib * 2**20
    for row in rows:
        for way, size in (("in", row.bytes_down), ("out", row.bytes_up)):
            if size and row.messages and size / row.messages > limit:
                yield (
                    f"{_title(row)}: a message {way} has about {_size(size // row.messages)}, more than "
                    f"release.largest_message_mib ({file.release.largest_message_mib:g})"
                )


def _weights(asks: list[Ask]) -> list[str]:
    """Hashes of the files of weights with which what is asked begins; "none named" for a file without one."""
    specs = [spec for ask in asks if (spec := getattr(ask.outline, "classifier", None)) is not None]
    return sorted({spec.pretrained_sha256 or "none named" for spec in specs if spec.pretrained is not None})


def _lacking_weights(file: CentreFile, asks: list[Ask]) -> list[str]:
    return [sha256 for sha256 in _weights(asks) if file.approve.studies == "listed" and file.weights_of(sha256) is None]


def notes(file: CentreFile, scenario: Scenario) -> Iterator[str]:
    """What this node does differently from the scenario, and when."""
    if file.data is not None:
        yield f"its own data ({file.data['source']}) replaces what the scenario says of this centre's data"
    if scenario.compute.threads_per_job > file.resources.threads:
        yield (
            f"jobs compute with {file.resources.threads} threads (resources.threads), not {scenario.compute.threads_per_job}; results "
            "are then not those of a simulation to the last bit"
        )
    if file.working_hours is not None:
        yield f"jobs are done {file.working_hours} only; outside the study fails here, and can be resumed"


def _title(row: Expected) -> str:
    return _kind(row.kind).title


def _worst(kind: Kind) -> str:
    """The most telling part of an answer, in words."""
    if kind.pixels:
        return "**images of patients**: never, a deployed node refuses"
    order = list(_RISKS)
    return _RISKS[min((field.risk for field in kind.fields()), key=order.index)]


def _fields(file: CentreFile, row: Expected) -> Iterator[tuple[str, str, str]]:
    fields = sorted(_kind(row.kind).fields(), key=lambda field: list(_RISKS).index(field.risk))
    for field in fields:
        if field.name == "predictions.*" and not file.release.predictions:
            continue
        if field.risk == "model" and field.name.startswith("classifier") and not row.bytes_up:
            continue  # nobody else tests it
        yield f"`{field.name}`", field.type, _tells(field)


def _tells(field: Field) -> str:
    text = field.tells if field.risk != "none" else f"nothing about patients: {field.tells}"
    return text + (f" ({field.when})" if field.when else "")


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def _size(size: int | None) -> str:
    if size is None:
        return "real images"
    return "none" if size == 0 else f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(1, round(size / 2**10))} KiB"
