"""The ServerApp: read the scenario, find the nodes, run the study, write the run folder.

In simulation the nodes are alike and any of them plays any centre; in a deployment every node is one centre.

`polycentre run` passes a run folder that it made, with the resolved scenario in it. `flwr run .` by itself runs the
default scenario into a new folder below the cache.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.wire.centres import Centres
from federation.wire.code_digest import COMPUTING, code_digest, package_folder
from federation.wire.errors import StudyError
from federation.wire.grid_centres import GridCentres, assign_lanes, wait_for_nodes
from federation.wire.roll_call import RollCall
from reports.run_record import RunRecord
from scenarios import reader
from scenarios.plugins import changed, uses
from scenarios.scenario import Scenario
from server.environment import describe
from server.study import Study
from strategies import STRATEGIES

app = ServerApp()
log = logging.getLogger("flwr")
# A deployed job takes seconds from message to message anyway, and the SuperLink answers each poll over HTTP.
_DEPLOYED_POLL_S = 0.25
TOLD = 3  # failures in the last line of a run


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's entry point. Raises when the run failed, so that Flower reports it as failed."""
    refuse_foreign_code(Path.cwd())
    config = context.run_config
    cache = Path(str(config["cache"]) or default_cache())
    out = Path(str(config["out"])) if config["out"] else None
    if out is not None and (out / "scenario.yaml").exists():
        record = RunRecord.open(out)  # go on with it
    else:
        name = str(config["scenario"]) or reader.DEFAULT
        scenario = reader.read(name)
        reader.check_files(scenario, name)
        out = out or cache / "runs" / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        record = RunRecord.create(out, reader.resolved_yaml(scenario), describe(uses(scenario)))
    if not config["begun"]:
        begin(record)
    log.info("polycentre: code from %s (digest %s)", package_folder("server").parent, code_digest())
    log.info("polycentre: run folder %s", record.folder)
    node_wait_s = float(config["node_wait_s"]) if config["deployed"] else None
    done = conduct(grid, record, cache, node_wait_s)
    if not config["begun"]:  # with `polycentre run` the command line builds the report
        from reports.html import build_report  # here, so that a server that only records does not load matplotlib

        log.info("polycentre: report %s", build_report(record))
    if not done:
        raise RuntimeError(f"{record.events()[-1]['text']} (run folder {record.folder})")


def refuse_foreign_code(working_directory: Path) -> None:
    """Stop before another project's code does our work.

    Ray's workers look for modules in the SuperLink's working directory first. `flwr run` uses a SuperLink that is already
    there, also one that was started in another project's folder; packages of our names in it would be imported instead.

    Raises:
        StudyError: with whose code it is and what to do.
    """
    hiding = [
        name
        for name in COMPUTING
        if (working_directory / name / "__init__.py").exists() or (working_directory / f"{name}.py").exists()
    ]
    if hiding and code_digest(root=working_directory) != code_digest():
        raise StudyError(
            f"Flower's SuperLink{_superlink_pid()} was started in {working_directory}, whose {hiding[0]!r} would be run instead of "
            f"that of {package_folder('server').parent}; stop that SuperLink and run again, or use `polycentre run`, which "
            "starts its own", 2,
        )  # fmt: skip


def _superlink_pid() -> str:
    """ " (process N)" of the SuperLink above this process, where it can be seen."""
    for process in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            if any("flower-superlink" in part for part in process.cmdline()):
                return f" (process {process.pid})"
    return ""


def begin(record: RunRecord, deployment: str = "") -> None:
    """Open a session of the run: from here its wall time counts, so the start of Flower is in it.

    Args:
        deployment: the name under which `polycentre run` knows the nodes; empty in simulation.
    """
    record.event(
        "run_started",
        run_id=record.folder.name,
        resumed=bool(record.units()),
        code=code_digest(),
        deployment=deployment,
    )


def conduct(grid: Grid, record: RunRecord, cache: Path, node_wait_s: float | None = None) -> bool:
    """Run the study of a record, whose session is open, over a grid; True when every unit finished.

    The last event says how it ended, also when it raises.

    Args:
        node_wait_s: None in simulation; in a deployment, how long a centre's node is waited for.
    """
    started = time.time()
    scenario = reader.parse(record.scenario_yaml, source=str(record.folder / "scenario.yaml"), base=record.folder)
    status, text, exit_status = "failed", "", 1
    # What the server computes (a generator's steps) must not depend on how many cores it sees.
    torch.set_num_threads(scenario.compute.threads_per_job)
    try:
        refuse_changed_plugins(record, scenario)
        if node_wait_s is None:
            centres = simulated_centres(grid, scenario, record)
            place = {"out": str(record.folder.absolute()), "cache": str(cache.absolute())}
        else:
            refuse_pooling(scenario)
            centres = deployed_centres(grid, scenario, record, node_wait_s)
            place = {}  # every node knows its own
        failed = Study(scenario, centres, record, place, deployed=node_wait_s is not None).run()
        if failed:
            more = f"; and {len(failed) - TOLD} more, in events.jsonl" if len(failed) > TOLD else ""
            text = f"{'; '.join(failed[:TOLD])}{more}; what does not depend on this is finished"
        else:
            status, exit_status = "completed", 0
    except StudyError as problem:
        text, exit_status = str(problem), problem.exit_status
    except Exception as problem:
        text = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        record.event("run_finished", status=status, seconds=time.time() - started, text=text, exit_status=exit_status)
    return status == "completed"


def simulated_centres(grid: Grid, scenario: Scenario, record: RunRecord) -> Centres:
    """Nodes that play whichever centre a job names, as many at once as there are workers."""
    lanes = assign_lanes(list(scenario.centres), wait_for_nodes(grid, timeout_s=5.0))
    return GridCentres(grid, lanes, workers=scenario.compute.workers, on_event=record.event)


def deployed_centres(grid: Grid, scenario: Scenario, record: RunRecord, node_wait_s: float) -> Centres:
    """The scenario's centres, each on its own node and its own machine.

    Raises:
        StudyError: a centre without a node, or with two.
    """
    roll = RollCall(
        grid,
        list(scenario.centres),
        code=code_digest(),
        plugins=[asdict(plugin) for plugin in uses(scenario)],
        on_note=lambda text: record.event("note", centre="", text=text),
        on_node=lambda **what: record.event("node", **what),
    )
    return GridCentres(
        grid, roll.wait(node_wait_s), simulated=False, per_node=2, poll_s=_DEPLOYED_POLL_S, relocate=roll.lanes, patience_s=node_wait_s,
        on_event=record.event,
    )  # fmt: skip


def refuse_changed_plugins(record: RunRecord, scenario: Scenario) -> None:
    """A run goes on with the plug-ins that it began with: results of two versions would stand in one table.

    Raises:
        StudyError: with status 2; each plug-in, as recorded and as it is here.
    """
    if lines := changed(record.environment.get("plugins", []), scenario):
        raise StudyError("; ".join(lines), 2)


def refuse_pooling(scenario: Scenario) -> None:
    """A deployed node neither sends real patches nor takes them: an arm that needs it is refused before anything starts.

    Raises:
        StudyError: with the arms and what to do.
    """
    pooled = [name for name, arm in scenario.arms.items() if STRATEGIES[arm.strategy].pixels]
    if pooled:
        raise StudyError(
            f"arms.{', arms.'.join(pooled)}: pooled moves real patches, which a deployed centre refuses; remove "
            f"{'it' if len(pooled) == 1 else 'them'} ({' '.join(f'--set arms.{name}=null' for name in pooled)}), or simulate", 2,
        )  # fmt: skip


def default_cache() -> str:
    """$POLYCENTRE_CACHE, or the usual place for caches."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return os.environ.get("POLYCENTRE_CACHE") or str(Path(home) / "polycentre")
