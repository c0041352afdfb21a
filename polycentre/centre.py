"""`polycentre centre`: the commands of a hospital's administrator.

Longer than most files, because each command of an administrator is a function here.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from basics.private_files import UMASK, make_private_folder

if TYPE_CHECKING:
    from polycentre.centre_check import Finding

cli = typer.Typer(
    help="A hospital's node: what it may do, running it, and what left the hospital.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


@cli.callback()
def private() -> None:
    # No docstring: Typer would take it for the group's help.
    os.umask(UMASK)


SCENARIO = typer.Argument(help="A scenario file, or the name of a shipped one.")
SET = typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the scenario. May be repeated.")
FILE = typer.Argument(help="The centre's settings, centre.yaml.", metavar="CENTRE.yaml")
_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


def say(text: str, style: str | None = None) -> None:
    """Print one line, exactly as given."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def show(findings: Iterable[Finding]) -> bool:
    """Print findings as they come; True when none of them is a problem."""
    fine = True
    for finding in findings:
        fine &= finding.kind != "problem"
        style = _STYLES[finding.kind]
        console.print(
            f"[{style}]{finding.kind.upper():<8}[/{style}]{escape(finding.text)}", highlight=False, soft_wrap=True
        )
    return fine


@cli.command()
def check(file: Annotated[Path, FILE]) -> None:
    """Check whether this node is ready: settings, key, certificate, plug-ins, data, disk, clock, and the way to the SuperLink."""
    from clients.centre_file import CentreFile
    from polycentre.centre_check import data_findings, network_findings, own_findings, plugin_findings

    centre = CentreFile.read(file, complete=False)  # the rest can be checked while data is missing
    checks = (own_findings, plugin_findings, data_findings, network_findings)
    fine = [show(findings(centre)) for findings in checks]
    raise typer.Exit(0 if all(fine) else 1)


@cli.command()
def plugins(file: Annotated[Path, FILE]) -> None:
    """List the installed plug-ins, what this node thinks of each, and the lines that allow them in centre.yaml."""
    import yaml

    from basics.plugins import PluginError, installed
    from clients.centre_file import CentreFile
    from polycentre.centre_check import plugin_findings

    fine = show(plugin_findings(CentreFile.read(file)))
    found = []
    for plugin in installed():
        with suppress(PluginError):  # which the findings name
            found.append(plugin.identity)
    if not found:
        say("no plug-in is installed")
    else:
        say("to allow exactly what is installed here, let centre.yaml say (and remove what you do not want to run):")
        say(yaml.safe_dump({"plugins": [asdict(one) for one in found]}, sort_keys=False, width=200).rstrip())
    raise typer.Exit(0 if fine else 1)


@cli.command()
def plan(
    file: Annotated[Path, FILE],
    scenario: Annotated[str, SCENARIO],
    set: Annotated[list[str] | None, SET] = None,
    out: Annotated[Path | None, typer.Option(help="Write the page into this file, as Markdown.")] = None,
    count: Annotated[
        bool, typer.Option(help="Count patients in this hospital's data, for which patches are made.")
    ] = True,
) -> None:
    """What a study would take out of this hospital, from how many patients, and what the node would refuse."""
    from rich.markdown import Markdown

    from basics.atomic_files import write_text
    from clients.centre_file import CentreFile
    from polycentre.centre_plan import plan_page
    from polycentre.plan_minimums import Counts
    from scenarios import reader

    command = f"polycentre centre approve {file} {scenario}" + "".join(f" --set {change}" for change in set or [])
    centre = CentreFile.read(file)
    page = plan_page(centre, reader.read(scenario, set), command, Counts(centre) if count else None)
    if out is None:
        console.print(Markdown(page))
    else:
        write_text(out, page)
        say(f"written to {out}")


@cli.command()
def approve(
    file: Annotated[Path, FILE],
    scenario: Annotated[str, SCENARIO],
    set: Annotated[list[str] | None, SET] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long, from now on.")] = 90,
    again: Annotated[
        bool, typer.Option("--again", help="Forget what was answered: the study may ask everything once more.")
    ] = False,
) -> None:
    """Approve a study: exactly this scenario, with every default written out. Read its `plan` first.

    Approved a second time, a study may go on for longer; what it was answered stays answered.
    """
    from clients.approval import Approvals
    from clients.centre_file import CentreFile
    from federation.wire.errors import StudyError
    from polycentre.centre_plan import refused
    from scenarios import reader
    from scenarios.messages import answers_at
    from scenarios.plan import Plan

    centre = CentreFile.read(file)
    study = reader.read(scenario, set)
    if centre.centre not in study.centres:
        raise StudyError(
            f"scenario {study.name!r} has no centre {centre.centre!r}; its centres: {', '.join(study.centres)}", 2
        )
    approvals = Approvals(centre.workspace)
    digest = approvals.add(reader.resolved_yaml(study), days=days, again=again)
    say(f"{digest}  {study.name}: approved until {approvals.read(digest).until:%Y-%m-%d %H:%M} UTC")
    given, most = approvals.answered(digest), answers_at(Plan(study, deployed=True), centre.centre)
    say(f"it may be given {most} answers at most" + (f", and has been given {given}" if given else ""))
    for part in refused(centre, study):
        say(f"note: the policy of this centre.yaml still refuses a part of this study: {part}", "yellow")
    if centre.approve.studies == "any":
        say("note: approve.studies is any in this centre.yaml, so the node does every other study as well", "yellow")


@cli.command()
def revoke(file: Annotated[Path, FILE], scenario_hash: Annotated[str, typer.Argument(metavar="HASH")]) -> None:
    """Take an approval back. The node refuses that study's jobs from then on, and deletes what it kept for them."""
    from clients.approval import Approvals
    from clients.centre_file import CentreFile
    from federation.wire.errors import StudyError

    approvals = Approvals(CentreFile.read(file).workspace)
    known = [digest for digest in approvals.digests() if digest.startswith(scenario_hash)]
    if len(known) != 1:
        raise StudyError(
            f"{len(known)} approved studies have the hash {scenario_hash}; see `polycentre centre approved {file}`", 2
        )
    approvals.remove(known[0])
    say(f"{known[0]}: no longer approved")


@cli.command()
def approved(file: Annotated[Path, FILE]) -> None:
    """List the approved studies: hash, name, until when, and how much was answered."""
    from basics.bounded_text import SCENARIO, load_yaml
    from clients.approval import Approvals
    from clients.centre_file import CentreFile
    from clients.node import Refusal
    from federation.wire.errors import explain

    centre = CentreFile.read(file)
    approvals = Approvals(centre.workspace)
    for digest in approvals.digests():
        try:
            found = approvals.read(digest)
            given = approvals.answered(digest)
        except Refusal as problem:
            say(f"{digest}  {explain(centre.centre, problem.code, 'it', problem.numbers)}", "yellow")
            continue
        name = load_yaml(found.resolved, SCENARIO)["name"]
        say(f"{digest}  {name}, until {found.until:%Y-%m-%d %H:%M} UTC, {given} answers given")
    if not approvals.digests():
        say("no study is approved")


@cli.command()
def run(file: Annotated[Path, FILE]) -> None:
    """Run this centre's node in the foreground, until Ctrl-C or SIGTERM, which end it and its job at once."""
    from clients.centre_file import CentreFile
    from clients.supernode import SuperNode
    from federation.wire.errors import StudyError

    centre = CentreFile.read(file)

    def own() -> bool:
        from polycentre.centre_check import own_findings, plugin_findings

        show(plugin_findings(centre))  # studies without the one that is wrong still run
        return show(own_findings(centre))

    def network() -> bool:
        from polycentre.centre_check import network_findings

        return show(network_findings(centre))

    if not _in_own_process(own):
        raise StudyError("the node cannot be started; correct what is marked PROBLEM", 2)
    # A SuperLink that is not there yet is waited for, and a clock may be set while the node runs.
    if not _in_own_process(network):
        say("the node starts anyway and keeps trying", "yellow")
    raise typer.Exit(SuperNode(file, centre).run(say))


def _in_own_process(work: Callable[[], bool]) -> bool:
    """Do something in a process of its own; what it imports (torch: 200 MiB) would stay in an idle node for weeks."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if work() else 1
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@cli.command()
def pause(file: Annotated[Path, FILE]) -> None:
    """Refuse every further job until `resume`. A job that has begun is finished, and its answer stays here until then."""
    from clients.centre_file import CentreFile
    from clients.policy import PAUSED

    centre = CentreFile.read(file)
    make_private_folder(centre.workspace)
    (centre.workspace / PAUSED).touch()
    say(f"centre {centre.centre} is paused; go on with: polycentre centre resume {file}")


@cli.command()
def resume(file: Annotated[Path, FILE]) -> None:
    """Do jobs again after `pause`."""
    from clients.centre_file import CentreFile
    from clients.policy import PAUSED

    centre = CentreFile.read(file)
    (centre.workspace / PAUSED).unlink(missing_ok=True)
    say(f"centre {centre.centre} does jobs again")


@cli.command()
def log(
    words: Annotated[
        list[str],
        typer.Argument(
            help="The centre's settings, after `verify` if only what is wrong is to be shown.",
            metavar="[verify] CENTRE.yaml",
        ),
    ],
    tail: Annotated[int, typer.Option(help="How many of the last lines are shown.", min=0)] = 20,
) -> None:
    """Verify the record of what left this hospital against its anchor, sum it up by study and kind, and show its last lines."""
    from clients.centre_file import CentreFile
    from clients.ledger import Ledger
    from polycentre.centre_log import print_record, print_verdict

    *verify, file = words
    if verify not in ([], ["verify"]):
        raise typer.BadParameter(
            f"write the centre's settings, or verify and the settings, and not {' '.join(words)!r}"
        )
    ledger = Ledger.of(CentreFile.read(Path(file)))
    raise typer.Exit(print_verdict(console, ledger) if verify else print_record(console, ledger, tail))


@cli.command()
def acknowledge(file: Annotated[Path, FILE]) -> None:
    """Let the node go on whose record does not match its anchor. What was found becomes an entry of the record."""
    from clients.centre_file import CentreFile
    from clients.ledger import Ledger, LedgerError
    from federation.wire.errors import StudyError

    centre = CentreFile.read(file)
    make_private_folder(centre.workspace)
    try:
        found = Ledger.of(centre).acknowledge(centre.centre)
    except (LedgerError, OSError) as problem:
        raise StudyError(str(problem)) from None
    say(f"acknowledged: {found}" if found else "nothing to acknowledge: the record goes on from its anchor")
