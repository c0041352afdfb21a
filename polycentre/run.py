"""`polycentre run`: check, start the engine, show progress, stop what was started, build the report.

Longer than most files, because it is one command with all the ways in which it can end.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.prompt import Confirm

from federation.flower.ray_cluster import find_ray_cluster
from federation.wire.errors import StudyError
from polycentre.describe import expected_units
from polycentre.engines import ENGINES, LOOPBACK, Conduct, gpu_count, last_end, share_for, with_ray
from polycentre.engines import deployment as over_nodes
from polycentre.progress import Progress
from reports.refusals import real_failures, refusals
from reports.run_record import RunRecord
from reports.timeline import start_up_seconds, working_share
from scenarios import reader
from scenarios.plugins import missing, uses
from scenarios.scenario import Scenario
from server.app import begin, default_cache, refuse_changed_plugins, refuse_pooling
from server.environment import describe, usable_cpus
from strategies import STRATEGIES

RUNS = Path("runs")
# What a worker needs at the least: Python, torch and a small model. Measured: 0.45 GiB.
_WORKER_GIB = 0.6
# A deployed centre at work: SuperNode, SuperExec, a process that holds what jobs import, and such a worker. Measured: 0.9 GiB.
_NODE_GIB = 1.1


def run_scenario(
    console: Console,
    file: str,
    overrides: list[str],
    out: Path | None,
    resume: bool,
    engine: str | None,
    deployment: str | None,
    ray: str | None,
    cache: Path | None,
    precision_of: Path | None,
    yes: bool,
) -> int:
    """Run and report; returns the exit status."""
    began = time.time()
    conduct = _where(engine, deployment, ray)
    try:
        scenario = reader.read(file, overrides)
    except reader.ScenarioError:
        if resume:
            _refuse_missing_plugins(out or RUNS / "latest")
        raise
    precision = _precision_of(precision_of, scenario, resume) if precision_of is not None else {}
    if deployment is not None:
        refuse_pooling(scenario)
    if deployment in (None, LOOPBACK) and ray is None:  # otherwise other machines compute
        check_machine(scenario, deployed=deployment is not None)
    # Images at other nodes are theirs; each node's survey says whether they are there.
    reader.check_files(scenario, file, data_here=deployment in (None, LOOPBACK))
    _agree_to_pooling(console, scenario, yes)
    cache = (cache or Path(default_cache())).absolute()
    # Before anything is written, so that workers that do not fit leave no run folder behind.
    if ray is not None:
        cluster = find_ray_cluster(ray, [(out or RUNS / "new").absolute().parent, cache])
        share_for(scenario, cluster)
        conduct = partial(with_ray, cluster=cluster)
    elif conduct is with_ray:
        share_for(scenario, None)
    record = _resumed(scenario, out) if resume else _new(scenario, out)
    if precision:
        record.write_precision(precision)
    if ray is not None:
        record.write_environment(record.environment | {"ray_cluster": asdict(cluster)})
    cache.mkdir(parents=True, exist_ok=True)
    # matplotlib would keep its list of fonts in the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
    _point_latest(record.folder)
    console.print(f"run folder {record.folder}", highlight=False, soft_wrap=True)

    if threading.current_thread() is threading.main_thread():
        # SIGINT too: a shell starts background jobs with it ignored.
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, _interrupt)
    done_before = len(record.events())
    begin(record, deployment or "")
    at_once = scenario.compute.workers if deployment is None else None
    with Progress(console, record, expected_units(scenario), done_before, at_once) as progress:
        try:
            conduct(record, scenario, cache, progress.refresh)
        except KeyboardInterrupt:
            record.event(
                "run_finished", status="interrupted", seconds=time.time() - began, text="interrupted", exit_status=1
            )
        except StudyError as problem:
            if last_end(record) is None:
                record.event(
                    "run_finished", status="failed", seconds=time.time() - began, text=str(problem), exit_status=1
                )
    where = f" --deployment {deployment}" if deployment is not None else f" --ray {ray}" if ray is not None else ""
    return _finish(console, record, f"{file}{where}", began)


def _where(engine: str | None, deployment: str | None, ray: str | None) -> Conduct:
    """What runs the study: an engine of the simulation, by default Ray, or a deployment.

    Raises:
        StudyError: with status 2.
    """
    if ray is not None and (deployment is not None or engine == "inprocess"):
        other = "--engine inprocess" if deployment is None else "--deployment"
        raise StudyError(f"--ray simulates on a Ray cluster, which {other} does not use; give one of them", 2)
    if deployment is None:
        if (engine or "ray") == "ray" and find_spec("ray") is None:  # a node's lock leaves it out
            raise StudyError(
                "ray is not installed, on which simulations run; install requirements.lock, or give --engine inprocess",
                2,
            )
        return ENGINES[engine or "ray"]
    if engine is not None:
        raise StudyError("--engine chooses how a simulation runs, --deployment runs real nodes; give one of them", 2)
    return over_nodes(deployment)


def check_machine(scenario: Scenario, deployed: bool = False) -> None:
    """Refuse more than this machine can hold, before anything starts.

    Args:
        deployed: every centre is a node of its own on this machine, and `compute.workers` does not count.

    Raises:
        StudyError: with status 2.
    """
    compute = scenario.compute
    memory = psutil.virtual_memory().available / 2**30
    wanted, cpus = compute.workers * compute.threads_per_job, usable_cpus()
    if deployed and len(scenario.centres) * _NODE_GIB > memory:
        raise StudyError(
            f"{len(scenario.centres)} nodes need about {len(scenario.centres) * _NODE_GIB:.1f} GiB, but only {memory:.1f} GiB "
            "are free; simulate the scenario, or run it with fewer centres", 2,
        )  # fmt: skip
    if not deployed and wanted > cpus:
        raise StudyError(
            f"compute.workers is {compute.workers} with {compute.threads_per_job} threads each, but this machine has {cpus} "
            f"processors; set compute.workers={max(1, cpus // compute.threads_per_job)} (--set works too)", 2,
        )  # fmt: skip
    if not deployed and compute.workers * _WORKER_GIB > memory:
        raise StudyError(
            f"compute.workers is {compute.workers}, which needs about {compute.workers * _WORKER_GIB:.1f} GiB, but only "
            f"{memory:.1f} GiB are free; lower compute.workers", 2,
        )  # fmt: skip
    if compute.device == "cuda" and gpu_count() == 0:
        raise StudyError("compute.device is cuda, but this machine shows no GPU; set compute.device=cpu or auto", 2)


def _new(scenario: Scenario, out: Path | None) -> RunRecord:
    folder = out or RUNS / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return RunRecord.create(folder.absolute(), reader.resolved_yaml(scenario), describe(uses(scenario)))


def _resumed(scenario: Scenario, out: Path | None) -> RunRecord:
    """The run to resume. Settings may have changed: exactly what depends on them is done again."""
    folder = out or RUNS / "latest"
    if not folder.exists():
        raise StudyError(f"--resume: no run at {folder}; name its folder with --out", 2)
    record = RunRecord.open(folder.resolve())
    before = reader.parse(record.scenario_yaml, source=str(folder / "scenario.yaml"), base=folder)
    if before.name != scenario.name:
        raise StudyError(
            f"--resume: {folder} holds a run of {before.name!r}, not of {scenario.name!r}; name the right --out", 2
        )
    refuse_changed_plugins(record, scenario)
    record.write_scenario(reader.resolved_yaml(scenario))
    record.write_environment(describe(uses(scenario)))
    return record


def _refuse_missing_plugins(folder: Path) -> None:
    """Of a scenario that names what nobody offers here, say which plug-in of the run is not there.

    Raises:
        StudyError: with status 2.
    """
    if (folder / "scenario.yaml").is_file() and (
        lines := missing(RunRecord.open(folder).environment.get("plugins", []))
    ):
        raise StudyError(f"--resume: {'; '.join(lines)}", 2)


def _precision_of(folder: Path, scenario: Scenario, resume: bool) -> dict[str, dict[str, str]]:
    """The precision that an earlier run computed each model in.

    Raises:
        StudyError: with status 2; there is none to read, or it would not be used.
    """
    if resume:
        raise StudyError("--resume goes on in the precision that the run itself chose; leave --precision-of out", 2)
    if scenario.compute.precision != "auto":
        raise StudyError(
            f"compute.precision is {scenario.compute.precision}, so --precision-of would change nothing; leave one of them out", 2
        )  # fmt: skip
    precision = RunRecord.open(folder).precision()
    if not precision:
        raise StudyError(
            f"--precision-of: {folder} has no precision.json, which a run writes after its survey; name another run", 2
        )
    return precision


def _agree_to_pooling(console: Console, scenario: Scenario, yes: bool) -> None:
    """Say when real patches will move, an upper bound that only a simulation may compute; ask, at a terminal.

    Raises:
        StudyError: the person said no.
    """
    real = [
        name for name, arm in scenario.arms.items()
        if STRATEGIES[arm.strategy].pixels
        and any(_is_real(scenario.centres[c].data) for c in scenario.members(arm))
    ]  # fmt: skip
    if real:
        console.print(
            f"note: {', '.join(real)} moves real patches between centres, an upper bound that only a simulation computes",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        if not yes and sys.stdin.isatty() and not Confirm.ask("go on?", console=console, default=True):
            raise StudyError("stopped before anything was done; remove the pooled arm, or answer yes", 2)


def _is_real(data: Any) -> bool:
    """Whether a centre's images, or those of the archive it has a part of, show patients."""
    return getattr(data, "archive", data).source != "phantom"


def _point_latest(folder: Path) -> None:
    """runs/latest -> the newest run, when the run lies in a folder called runs."""
    if folder.parent.name != "runs":
        return
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


def _interrupt(*_: object) -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: what was started is stopped, and the run can be resumed."""
    raise KeyboardInterrupt


def _finish(console: Console, record: RunRecord, what: str, began: float) -> int:
    """Table, report, where the time went, and the exit status.

    Args:
        what: the scenario and where it ran, as a command line names them.
    """
    end = last_end(record) or {"status": "failed", "text": "the run ended without a message", "exit_status": 1}
    events = record.events()
    status = 0 if end["status"] == "completed" else int(end.get("exit_status", 1))
    if status == 2:
        _print_details(console, record, events, began)
        raise StudyError(str(end["text"]), 2)
    from reports.html import build_report  # here, as matplotlib takes a second

    report = build_report(record)
    table = record.folder / "table.md"
    if table.exists() and len(record.results()):
        console.print(table.read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    waited = start_up_seconds(events)
    start_up = "" if math.isnan(waited) else f"; start-up {waited:.0f} s"
    console.print(
        f"work in a centre: {working_share(events):.0%} of {time.time() - began:.0f} s{start_up}", highlight=False
    )
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    if not status:  # a federation may have done without
        _print_refusals(console, events)
    else:
        console.print(
            f"the run did not finish: {end['text'] or end['status']}", style="red", highlight=False, soft_wrap=True
        )
        _print_details(console, record, events, began)
        console.print(
            f"resume with: polycentre run {what} --out {record.folder} --resume", highlight=False, soft_wrap=True
        )
    return status


def _print_details(console: Console, record: RunRecord, events: list[dict[str, Any]], began: float) -> None:
    """Print what was refused and what failed; in simulation also what the centres' own logs say about failures."""
    _print_refusals(console, events)
    for event in real_failures(events):
        if event["t"] < began:
            continue
        console.print(f"  {event['text']}", highlight=False, markup=False, soft_wrap=True)
        log = record.folder / "centres" / event["centre"] / "node.log"
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
            if event["unit"] in line and ": reference " not in line:
                console.print(
                    f"    {event['centre']}'s own log: {line.split(']: ', 1)[-1]}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )


def _print_refusals(console: Console, events: list[dict[str, Any]]) -> None:
    for line in refusals(events):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
