"""`polycentre`: the commands, and how a mistake of the user ends.

Exit status: 0 only when every unit finished; 1 for a failed run (the output says what failed, and how to resume); 2 for bad
input, which is one line without a traceback.
"""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from polycentre import centre
from polycentre.deploy import commands as deploy_commands

cli = typer.Typer(
    name="polycentre",
    help="Should our hospitals share data, models or generators? Simulate the question, or run it over real nodes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(centre.cli, name="centre")
console = Console()
errors = Console(stderr=True)

SCENARIO = typer.Argument(help="A scenario file, or the name of a shipped one (see `polycentre scenarios`).")
SET = typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. study.synthetic=600. May be repeated.")


class Engine(StrEnum):
    """ray: Flower's simulation runtime, as many jobs at once as compute.workers. inprocess: one job at a time, here."""

    ray = "ray"
    inprocess = "inprocess"


@cli.command()
def scenarios() -> None:
    """List the shipped scenarios, one line each."""
    from polycentre.describe import scenario_lines

    for line in scenario_lines():
        console.print(line, highlight=False, soft_wrap=True)


@cli.command()
def validate(file: Annotated[str, SCENARIO], set: Annotated[list[str] | None, SET] = None) -> None:
    """Read a scenario and print the resolved plan: centres, units of work, expected messages and bytes."""
    from polycentre.describe import print_plan
    from scenarios.reader import check_files, read

    scenario = read(file, set)
    check_files(scenario, file)
    changes = [word for change in set or [] for word in ("--set", change)]
    print_plan(console, scenario, shlex.join(["polycentre", "run", file, *changes]))


@cli.command()
def data(
    file: Annotated[str, SCENARIO],
    set: Annotated[list[str] | None, SET] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for page and table; data-NAME when left out.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for patches that can be made again.")] = None,
) -> None:
    """Show every centre's data before any training: tables, copies, warnings, contact sheets of real patches."""
    from polycentre.data import look_at_data

    raise typer.Exit(look_at_data(console, file, set or [], out, cache))


@cli.command()
def run(
    file: Annotated[str, SCENARIO] = "demo",
    set: Annotated[list[str] | None, SET] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one below runs/ when left out.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in --out, or with the newest one, in the precision that it chose."
        ),
    ] = False,
    engine: Annotated[
        Engine | None, typer.Option(help="How the centres are simulated; ray when left out.", show_default=False)
    ] = None,
    deployment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead of a simulation: real nodes. loopback starts one per centre on this machine for the run; any other name is "
            "a file, or that of one in deployments/ (see `polycentre deploy`).",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Simulate on a Ray cluster that is running: auto, or HOST:PORT of its head. This machine must be one of its nodes.",
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for patches that can be made again.")] = None,
    precision_of: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN_FOLDER",
            help="Compute every model in the precision that an earlier run chose (its precision.json) instead of measuring: "
            "the same bytes again on the same kind of processor.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before real patches of a centre are pooled (simulation).")
    ] = False,
) -> None:
    """Run a scenario: survey, share, learn, test, report."""
    from polycentre.run import run_scenario

    chosen = engine.value if engine else None
    raise typer.Exit(
        run_scenario(console, file, set or [], out, resume, chosen, deployment, ray, cache, precision_of, yes)
    )


@cli.command()
def report(runs: Annotated[list[Path], typer.Argument(help="One or more run folders.")]) -> None:
    """Rebuild table and HTML from the record; several runs side by side."""
    from reports.compare import compare
    from reports.html import build_report
    from reports.run_record import RunRecord

    records = [RunRecord.open(folder) for folder in runs]
    for record in records:
        console.print(f"{build_report(record)}", highlight=False, soft_wrap=True)
    if len(records) > 1:
        console.print(f"{compare(records)}", highlight=False, soft_wrap=True)


@cli.command()
def doctor(
    deployment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also look at its SuperLink, clocks and nodes.")
    ] = None,
) -> None:
    """Show versions, devices, ports and the clock, and what is missing."""
    from polycentre.doctor import diagnose

    raise typer.Exit(diagnose(console, deployment))


cli.add_typer(deploy_commands)


def main() -> None:
    """Entry point; a mistake of the user is one line and status 2, never a traceback."""
    from federation.wire.errors import StudyError

    try:
        cli()
    except StudyError as problem:
        errors.print(f"polycentre: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(problem.exit_status)
    except ValueError as problem:
        if not hasattr(problem, "code") and type(problem).__module__.partition(".")[0] not in (
            "scenarios",
            "reports",
            "federation",
        ):
            raise  # not raised by us on purpose: a bug, whose traceback is wanted
        errors.print(f"polycentre: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
