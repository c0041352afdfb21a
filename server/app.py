"""The ServerApp: read the scenario, find the nodes, run the study, write the run folder.

`polycentre run` passes a run folder that it made, with the resolved scenario in it. `flwr run .` by itself runs the
default scenario into a new folder below the cache.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

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
    name = str(config["scenario"]) or reader.DEFAULT
    if config["out"]:
        record = RunRecord.open(Path(str(config["out"])))
    else:
        scenario = reader.read(name)
        folder = cache / "runs" / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        record = RunRecord.create(folder, reader.resolved_yaml(scenario), describe())
        begin(record)
    log.info("polycentre: code from %s (digest %s)", package_folder("server").parent, code_digest())
    log.info("polycentre: run folder %s", record.folder)
    if not conduct(grid, record, cache):
        raise RuntimeError(f"some units failed; see {record.folder / 'events.jsonl'}")
    if not config["out"]:
        # Nobody else will: with `polycentre run` the command line builds the report.
        log.info("polycentre: report %s", record.build())


def refuse_foreign_code(working_directory: Path) -> None:
    """Stop before another project's code does our work.

    Ray's workers look for modules in the SuperLink's working directory first. `flwr run` uses a SuperLink that is already
    there, also one that was started in another project's folder; packages of our names in it would be imported instead.

    Raises:
        StudyError: with whose code it is and what to do.
    """
    hiding = [
        name for name in COMPUTING if (working_directory / name).exists() or (working_directory / f"{name}.py").exists()
    ]
    if hiding and code_digest(root=working_directory) != code_digest():
        raise StudyError(
            f"Flower's SuperLink was started in {working_directory}, whose {hiding[0]!r} would be run instead of that of "
            f"{package_folder('server').parent}; stop that SuperLink (pkill -f flower-superlink) and run again, or use "
            "`polycentre run`, which starts its own", 2,
        )  # fmt: skip


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
