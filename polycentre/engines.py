"""What conducts a run: Ray workers, this process, or a node for each centre.

The ServerApp writes the record, in another process or thread; here it is only read, to show progress and to see the
end.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from federation.flower.operator import DeploymentFile, Operator
from federation.flower.processes import OwnProcesses
from federation.flower.ray_cluster import RayCluster, RayNode, WorkerShare, worker_share
from federation.flower.simulation import SimulationRuntime
from federation.wire.errors import StudyError
from federation.wire.grid_centres import nodes_for
from polycentre.deploy import trial
from reports.run_record import RunRecord
from scenarios.plugins import uses
from scenarios.scenario import Scenario
from server.app import conduct

CHECKOUT = Path(__file__).resolve().parent.parent
# Runs the study of a record to its end: (record, scenario, cache, called now and then to show progress).
Conduct = Callable[[RunRecord, Scenario, Path, Callable[[], None]], None]


def with_ray(
    record: RunRecord,
    scenario: Scenario,
    cache: Path,
    refresh: Callable[[], None],
    cluster: RayCluster | None = None,
) -> None:
    """Flower's simulation runtime, whose nodes play whichever centre a job names.

    Args:
        cluster: a Ray cluster that exists; None: a Ray of the run's own, on this machine.

    Raises:
        StudyError: with status 2; the workers do not fit.
    """
    workers = scenario.compute.workers
    share = share_for(scenario, cluster)
    runtime = SimulationRuntime(CHECKOUT, record.folder, workers, cluster.address if cluster else None)
    try:
        runtime.start()
        run_id = runtime.submit(_run_config(record, scenario, cache), nodes_for(workers), share)
        _follow(runtime, run_id, record, refresh)
    finally:
        with _undisturbed():
            runtime.stop()


def share_for(scenario: Scenario, cluster: RayCluster | None) -> WorkerShare:
    """What each Ray worker takes of the cluster, or of this machine, whose GPUs Ray finds itself.

    Raises:
        StudyError: with status 2; the workers do not fit.
    """
    compute = scenario.compute
    gpus = gpu_count() if cluster is None else cluster.gpus
    if cluster is not None and compute.device == "cuda" and gpus == 0:
        raise StudyError(
            "compute.device is cuda, but no node of the Ray cluster has a GPU; set compute.device=cpu or auto", 2
        )
    # Ray takes one number for all workers, and any worker may play any centre: the largest share.
    gpu = max(centre.gpu for centre in scenario.centres.values()) if gpus and compute.device != "cpu" else None
    if cluster is not None:
        return worker_share(cluster.nodes, compute.workers, compute.threads_per_job, gpu)
    # Ray gets a CPU per worker of this machine; `check_machine` has compared them with the real ones.
    here = [RayNode("this machine", compute.workers, gpus)]
    return worker_share(here, compute.workers, 1, gpu, where="this machine")


def on_loopback(record: RunRecord, scenario: Scenario, cache: Path, refresh: Callable[[], None]) -> None:
    """A deployment on this machine for this run, whose workspaces are in the run folder as in a simulation."""
    centres = {
        name: {"workspace": record.local(name).absolute(), "cache": cache / "centres" / name}
        for name in scenario.centres
    }
    processes = OwnProcesses()  # all of it ends together, so nodes need not hear that the run has ended
    try:
        deployment = trial(processes, processes.home / "trial", centres, record.folder / "superlink.log", preload=True,
                           plugins=uses(scenario))  # fmt: skip
        deployment.start()
        _operate(Operator(CHECKOUT, record.folder, deployment.place, processes), record, scenario, cache, refresh)
    finally:
        with _undisturbed():
            processes.stop()


def over(name: str) -> Conduct:
    """What runs a study over the nodes of an existing deployment.

    Raises:
        StudyError: there is no such deployment, or its file is wrong; with status 2.
    """
    place = DeploymentFile.find(name)

    def conduct(record: RunRecord, scenario: Scenario, cache: Path, refresh: Callable[[], None]) -> None:
        operator = Operator(CHECKOUT, record.folder, place)
        try:
            _operate(operator, record, scenario, cache, refresh)
        finally:
            with _undisturbed():
                operator.stop()

    return conduct


def _operate(
    operator: Operator, record: RunRecord, scenario: Scenario, cache: Path, refresh: Callable[[], None]
) -> None:
    """Run the ServerApp here, over whatever nodes the SuperLink has."""
    if note := operator.start():
        record.event("note", centre="", text=note)
    run_id = operator.submit(_run_config(record, scenario, cache) | {"deployed": True})
    _follow(operator, run_id, record, refresh)


def in_process(record: RunRecord, scenario: Scenario, cache: Path, refresh: Callable[[], None]) -> None:
    """The engine without Ray, in a thread so that progress can be shown."""
    from clients.app import app as client_app
    from federation.flower.in_process import InProcessGrid

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


ENGINES: dict[str, Conduct] = {"ray": with_ray, "inprocess": in_process}
LOOPBACK = "loopback"


def deployment(name: str) -> Conduct:
    """What runs a study over real nodes: on loopback, started for the run, or a deployment by name or file."""
    return on_loopback if name == LOOPBACK else over(name)


def gpu_count() -> int:
    """How many GPUs this machine shows."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def last_end(record: RunRecord) -> dict[str, Any] | None:
    """The run_finished event of this session, if it has come."""
    for event in reversed(record.events()):
        if event["event"] == "run_finished":
            return event
        if event["event"] == "run_started":
            return None
    return None


class _Runtime(Protocol):
    @property
    def log_file(self) -> Path: ...

    @property
    def alive(self) -> bool: ...

    def status(self, run_id: str) -> tuple[str, str]: ...


def _run_config(record: RunRecord, scenario: Scenario, cache: Path) -> dict[str, Any]:
    return {"scenario": scenario.name, "out": str(record.folder), "cache": str(cache), "begun": True}


def _follow(runtime: _Runtime, run_id: str, record: RunRecord, refresh: Callable[[], None]) -> None:
    """Wait until the record holds the end, or the runtime has ended without one."""
    asked, unanswered, known = time.monotonic(), 0, 0
    while True:
        refresh()
        time.sleep(0.25)
        if known != (known := len(record.events())):
            asked = time.monotonic()  # the run goes on
        if last_end(record) is not None:
            return
        if not runtime.alive:
            raise StudyError(f"Flower's runtime ended during the run; see {runtime.log_file}; resume with --resume")
        if time.monotonic() - asked > 30.0:  # asking costs 2 s of a processor, and the record shows a regular end
            try:
                (status, details), unanswered = runtime.status(run_id), 0
            except StudyError:
                # A busy machine may leave one question unanswered; the run itself goes on.
                status, details, unanswered = "unknown", "", unanswered + 1
                if unanswered == 3:
                    raise
            asked = time.monotonic()
            if status.startswith("finished") and last_end(record) is None:
                raise StudyError(f"Flower reports {status} ({details or 'no details'}); see {runtime.log_file}")


class _undisturbed:
    """A second Ctrl-C must not leave processes behind while the first one is being answered."""

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)
