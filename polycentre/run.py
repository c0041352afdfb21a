"""`polycentre run`: check, start the engine, show progress, stop what was started, build the report."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.prompt import Confirm

from federation.errors import StudyError
from federation.simulation import SimulationRuntime
from polycentre.describe import expected_units
from polycentre.progress import Progress
from reports.run_record import RunRecord
from reports.timeline import start_up_seconds, working_share
from scenarios import reader
from scenarios.scenario import PooledArm, Scenario
from server.app import begin, conduct, default_cache
from server.environment import describe, usable_cpus

CHECKOUT = Path(__file__).resolve().parent.parent
RUNS = Path("runs")
# What a worker needs at the least: Python, torch and a small model. Measured: 0.45 GiB.
_WORKER_GIB = 0.6


def run_scenario(
    console: Console,
    file: str,
    overrides: list[str],
    out: Path | None,
    resume: bool,
    engine: str,
    cache: Path | None,
    yes: bool,
) -> int:
    """Run and report; returns the exit status."""
    began = time.time()
    scenario = reader.read(file, overrides)
    check_machine(scenario)
    reader.check_files(scenario, file)
    _agree_to_pooling(console, scenario, yes)
    record = _resumed(scenario, out) if resume else _new(scenario, out)
    cache = (cache or Path(default_cache())).absolute()
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
    begin(record)
    with Progress(console, record, expected_units(scenario), done_before) as progress:
        try:
            if engine == "ray":
                _with_ray(record, scenario, cache, progress.refresh)
            else:
                _in_process(record, scenario, cache, progress.refresh)
        except KeyboardInterrupt:
            record.event(
                "run_finished", status="interrupted", seconds=time.time() - began, text="interrupted", exit_status=1
            )
        except StudyError as problem:
            if not _ended(record):
                record.event(
                    "run_finished", status="failed", seconds=time.time() - began, text=str(problem), exit_status=1
                )
    return _finish(console, record, file, began)


def check_machine(scenario: Scenario) -> None:
    """Refuse more than this machine can hold, before anything starts.

    Raises:
        StudyError: with status 2.
    """
    compute = scenario.compute
    wanted, cpus = compute.workers * compute.threads_per_job, usable_cpus()
    if wanted > cpus:
        raise StudyError(
            f"compute.workers is {compute.workers} with {compute.threads_per_job} threads each, but this machine has {cpus} "
            f"processors; set compute.workers={max(1, cpus // compute.threads_per_job)} (--set works too)", 2,
        )  # fmt: skip
    memory = psutil.virtual_memory().available / 2**30
    if compute.workers * _WORKER_GIB > memory:
        raise StudyError(
            f"compute.workers is {compute.workers}, which needs about {compute.workers * _WORKER_GIB:.1f} GiB, but only "
            f"{memory:.1f} GiB are free; lower compute.workers", 2,
        )  # fmt: skip
    if compute.device == "cuda" and not _has_gpu():
        raise StudyError("compute.device is cuda, but this machine shows no GPU; set compute.device=cpu or auto", 2)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _new(scenario: Scenario, out: Path | None) -> RunRecord:
    folder = out or RUNS / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return RunRecord.create(folder.absolute(), reader.resolved_yaml(scenario), describe())


def _resumed(scenario: Scenario, out: Path | None) -> RunRecord:
    """The run to go on with. Settings may be changed on the way: exactly what depends on them is done again."""
    folder = out or RUNS / "latest"
    if not folder.exists():
        raise StudyError(f"--resume: no run at {folder}; name its folder with --out", 2)
    record = RunRecord.open(folder.resolve())
    before = reader.parse(record.scenario_yaml, source=str(folder / "scenario.yaml"), base=folder)
    if before.name != scenario.name:
        raise StudyError(
            f"--resume: {folder} holds a run of {before.name!r}, not of {scenario.name!r}; name the right --out", 2
        )
    record.write_scenario(reader.resolved_yaml(scenario))
    record.write_environment(describe())
    return record


def _agree_to_pooling(console: Console, scenario: Scenario, yes: bool) -> None:
    """Say so when real patches will move, an upper bound that only a simulation may compute; ask a person who is there.

    Raises:
        StudyError: the person said no.
    """
    real = [
        name for name, arm in scenario.arms.items()
        if isinstance(arm, PooledArm) and any(_is_real(scenario.centres[c].data) for c in arm.centres)
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


def _with_ray(record: RunRecord, scenario: Scenario, cache: Path, refresh: Callable[[], None]) -> None:
    """Flower's simulation runtime: a node per centre, and spare ones as extra lanes."""
    workers = scenario.compute.workers
    # Ray takes one number for all workers, and any worker may play any centre: the largest share; by default an equal one.
    gpus = max(centre.gpu for centre in scenario.centres.values()) or 1.0 / workers
    nodes = len(scenario.centres) + workers - 1
    runtime = SimulationRuntime(CHECKOUT, record.folder)
    try:
        runtime.start()
        config: dict[str, Any] = {
            "scenario": scenario.name,
            "out": str(record.folder),
            "cache": str(cache),
            "begun": True,
        }
        run_id = runtime.submit(config, nodes, workers, gpus if _wants_gpu(scenario) else 0.0)
        asked, unanswered = time.monotonic(), 0
        while True:
            refresh()
            time.sleep(0.25)
            if _ended(record):
                return
            if not runtime.alive:
                raise StudyError(
                    f"Flower's SuperLink ended during the run; see {runtime.log_file}; resume with --resume"
                )
            if time.monotonic() - asked > 30.0:  # asking starts a process; the record tells of a regular end sooner
                try:
                    (status, details), unanswered = runtime.status(run_id), 0
                except StudyError:
                    # A busy machine may leave one question unanswered; the run itself goes on.
                    status, details, unanswered = "unknown", "", unanswered + 1
                    if unanswered == 3:
                        raise
                asked = time.monotonic()
                if status.startswith("finished") and not _ended(record):
                    raise StudyError(f"Flower reports {status} ({details or 'no details'}); see {runtime.log_file}")
    finally:
        with _undisturbed():
            runtime.stop()


def _wants_gpu(scenario: Scenario) -> bool:
    return scenario.compute.device != "cpu" and _has_gpu()


def _in_process(record: RunRecord, scenario: Scenario, cache: Path, refresh: Callable[[], None]) -> None:
    """The engine without Ray, in a thread so that progress can be shown."""
    from clients.app import app as client_app
    from federation.in_process import InProcessGrid

    grid = InProcessGrid(client_app, len(scenario.centres), {})
    problems: list[BaseException] = []

    def work() -> None:
        try:
            conduct(grid, record, cache)
        except BaseException as problem:  # shown by the thread that waits
            problems.append(problem)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        refresh()
        thread.join(0.25)
    if problems:
        raise problems[0]


def _interrupt(*_: object) -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: what was started is stopped, and the run can be resumed."""
    raise KeyboardInterrupt


class _undisturbed:
    """A second Ctrl-C must not leave processes behind while the first one is being answered."""

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)


def _last_end(record: RunRecord) -> dict[str, Any] | None:
    """The run_finished event of this session, if it has come."""
    for event in reversed(record.events()):
        if event["event"] == "run_finished":
            return event
        if event["event"] == "run_started":
            return None
    return None


def _ended(record: RunRecord) -> bool:
    return _last_end(record) is not None


def _finish(console: Console, record: RunRecord, file: str, began: float) -> int:
    """Table, report, where the time went, and the exit status."""
    end = _last_end(record) or {"status": "failed", "text": "the run ended without a word", "exit_status": 1}
    events = record.events()
    status = 0 if end["status"] == "completed" else int(end.get("exit_status", 1))
    if status == 2:
        _print_details(console, record, events, began)
        raise StudyError(str(end["text"]), 2)
    report = record.build()
    table = record.folder / "table.md"
    if table.exists() and len(record.results()):
        console.print(table.read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"work in a centre: {working_share(events):.0%} of {time.time() - began:.0f} s; start-up {start_up_seconds(events):.0f} s",
        highlight=False,
    )  # fmt: skip
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    if status:
        console.print(
            f"the run did not finish: {end['text'] or end['status']}", style="red", highlight=False, soft_wrap=True
        )
        _print_details(console, record, events, began)
        console.print(
            f"resume with: polycentre run {file} --out {record.folder} --resume", highlight=False, soft_wrap=True
        )
    return status


def _print_details(console: Console, record: RunRecord, events: list[dict[str, Any]], began: float) -> None:
    """What failed; in simulation also what the centres' own logs say of it."""
    for event in events:
        if event["event"] != "unit_failed" or event["t"] < began:
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
