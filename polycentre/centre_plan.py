"""`polycentre centre plan`: what a study would take out of a hospital, for whoever decides whether it may.

A page in Markdown: which messages, how many and how large, every field of them with what it tells about patients, what comes
in, what stays, and what this node's policy would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator

from clients.centre_file import CentreFile
from clients.introduction import ROLL_CALL
from clients.plugins import verdicts
from clients.policy import takes_part, unmet_release_rule, unmet_sum_rule
from federation.flower.bundle import own_checkout, own_digest
from federation.wire.code_digest import code_digest
from federation.wire.errors import StudyError, explain
from federation.wire.units import scenario_digest
from scenarios.messages import Expected, expected_messages
from scenarios.plan import Plan
from scenarios.plugins import uses
from scenarios.reader import resolved_yaml
from scenarios.scenario import Scenario
from strategies import KINDS, STRATEGIES, Kind
from strategies.ask import Ask
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
    plan = Plan(scenario, deployed=True)
    asks = [ask for ask in plan.asks() if ask.centre == centre]
    rows = [_ROLL_CALL, *(row for row in expected_messages(plan) if row.centre == centre)]
    refusals = [*_refused_plugins(file, scenario), *_refused(file, asks, rows)]
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
        *_plugins(file, scenario),
        "## What would leave",
        "",
        "Without faults; a job whose answer is lost is answered again.",
        "",
        *_table(
            ("message", "how many", "arrays in all", "the most telling part of it"),
            [(_title(row), str(row.messages), _size(row.bytes_up), _worst(_kind(row.kind))) for row in rows],
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
        f"Approve with: `{how_to_approve}`",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def refused(file: CentreFile, scenario: Scenario) -> list[str]:
    """What this node's policy would refuse of a study, one sentence each."""
    plan = Plan(scenario, deployed=True)
    rows = [row for row in expected_messages(plan) if row.centre == file.centre]
    return [
        *_refused_plugins(file, scenario),
        *_refused(file, [ask for ask in plan.asks() if ask.centre == file.centre], rows),
    ]


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
