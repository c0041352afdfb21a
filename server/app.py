"""The ServerApp: read the scenario, find the nodes, run the study, write the run folder.

`polycentre run` passes a run folder that it made, with the resolved scenario in it. `flwr run .` by itself runs the
default scenario into a new folder below the cache.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

import psutil
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.centres import GridCentres, assign_lanes, wait_for_nodes
from federation.code_digest import COMPUTING, code_digest, package_folder
from federation.errors import StudyError
from reports.run_record import RunRecord
from scenarios import reader
from server.environment import describe
from server.study import Study

app = ServerApp()
log = logging.getLogger("flwr")


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
        record = RunRecord.create(out, reader.resolved_yaml(scenario), describe())
    if not config["begun"]:
        begin(record)
    log.info("polycentre: code from %s (digest %s)", package_folder("server").parent, code_digest())
    log.info("polycentre: run folder %s", record.folder)
    done = conduct(grid, record, cache)
    if not config["begun"]:  # with `polycentre run` the command line builds the report
        log.info("polycentre: report %s", record.build())
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


def begin(record: RunRecord) -> None:
    """Open a session of the run: from here its wall time counts, so the start of Flower is in it."""
    record.event("run_started", run_id=record.folder.name, resumed=bool(record.units()), code=code_digest())


def conduct(grid: Grid, record: RunRecord, cache: Path) -> bool:
    """Run the study of a record, whose session is open, over a grid; True when every unit finished.

    The last event says how it ended, also when it raises.
    """
    started = time.time()
    scenario = reader.parse(record.scenario_yaml, source=str(record.folder / "scenario.yaml"), base=record.folder)
    status, text, exit_status = "failed", "", 1
    try:
        nodes = wait_for_nodes(grid, at_least=len(scenario.centres), timeout_s=5.0)
        centres = GridCentres(
            grid,
            assign_lanes(list(scenario.centres), nodes),
            max_in_flight=scenario.compute.workers,
            on_event=record.event,
        )
        place = {"out": str(record.folder.absolute()), "cache": str(cache.absolute())}
        if Study(scenario, centres, record, place).run():
            status, exit_status = "completed", 0
        else:
            text = "some units failed; what does not depend on them is finished"
    except StudyError as problem:
        text, exit_status = str(problem), problem.exit_status
    except Exception as problem:
        text = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        record.event("run_finished", status=status, seconds=time.time() - started, text=text, exit_status=exit_status)
    return status == "completed"


def default_cache() -> str:
    """$POLYCENTRE_CACHE, or the usual place for caches."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return os.environ.get("POLYCENTRE_CACHE") or str(Path(home) / "polycentre")
