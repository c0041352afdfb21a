"""`polycentre centre`: a hospital's node, for its administrator: check, plan, approve, run, pause, log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from polycentre.centre_check import Finding

cli = typer.Typer(
    help="A hospital's node: what it may do, what left the house, and running it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

FILE = typer.Argument(help="The centre's own settings, centre.yaml.", metavar="CENTRE.yaml")
_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


def say(text: str, style: str | None = None) -> None:
    """One line, as it is."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def show(findings: Iterable[Finding]) -> bool:
    """Print findings as they come; True when none of them is a problem."""
    fine = True
    for finding in findings:
        fine &= finding.kind != "problem"
        style = _STYLES[finding.kind]
        console.print(f"[{style}]{finding.kind.upper():<8}[/{style}]{escape(finding.text)}", highlight=False, soft_wrap=True)
    return fine


@cli.command()
def check(file: Annotated[Path, FILE]) -> None:
    """Is this node ready: settings, key, certificate, data, disk, clock, and whether the SuperLink answers."""
    from clients.centre_file import CentreFile
    from polycentre.centre_check import data_findings, network_findings, own_findings

    centre = CentreFile.read(file)
    fine = [show(findings) for findings in (own_findings(centre), data_findings(centre), network_findings(centre))]
    raise typer.Exit(0 if all(fine) else 1)


@cli.command()
def run(file: Annotated[Path, FILE]) -> None:
    """Run this centre's node in the foreground, until Ctrl-C or SIGTERM, which end it and its job at once."""
    from clients.centre_file import CentreFile
    from clients.supernode import SuperNode
    from federation.errors import StudyError
    from polycentre.centre_check import network_findings, own_findings

    centre = CentreFile.read(file)
    if not show(own_findings(centre)):
        raise StudyError("the node cannot be started; mend what is marked PROBLEM", 2)
    # A SuperLink that is not there yet is waited for, and a clock may be set while the node runs.
    if not show(network_findings(centre)):
        say("the node is started all the same, and tries again and again", "yellow")
    raise typer.Exit(SuperNode(file, centre).run(say))


@cli.command()
def pause(file: Annotated[Path, FILE]) -> None:
    """Refuse every further job, until `resume`. A job that is being done is finished."""
    from clients.centre_file import CentreFile
    from clients.policy import PAUSED

    centre = CentreFile.read(file)
    centre.workspace.mkdir(parents=True, exist_ok=True)
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
