"""Flower's simulation runtime for one run: a SuperLink of our own, whose nodes are Ray actors.

The actors run on this machine, in a Ray that starts and ends with the run, or on an existing Ray cluster, which stays: there
the run is one of the cluster's jobs, and its actors end with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from federation.flower.flower_command import FlowerCommand
from federation.flower.processes import OwnProcesses
from federation.flower.ray_cluster import WorkerShare
from federation.flower.superlink import SuperLink


class SimulationRuntime:
    """A SuperLink in simulation mode.

    Args:
        app: folder with the project's pyproject.toml.
        log_folder: for the log of the SuperLink and everything below it.
        ray_address: HOST:PORT of a running Ray cluster to which this machine belongs; None: a Ray of its own, here.
    """

    def __init__(self, app: Path, log_folder: Path, ray_address: str | None = None):
        self._app = app
        self._ray_address = ray_address
        self._processes = OwnProcesses()
        self._processes.environment |= {
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1",
            # There is one task, the run itself; no message to a node waits for a poll. Polls of a whole run cost more than they
            # shorten its start.
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        }  # fmt: skip
        if ray_address is None:
            self._processes.environment["RAY_TMPDIR"] = str(self._processes.home)
        else:
            # `flwr run` has no setting for it; Ray reads the variable when Flower starts it.
            self._processes.environment["RAY_ADDRESS"] = ray_address
        self._link = SuperLink(self._processes, log_folder / "flower.log")
        self._flwr = FlowerCommand(self._processes, self._link.address, None, self._link.log_file)

    @property
    def log_file(self) -> Path:
        """Log of the SuperLink."""
        return self._link.log_file

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the SuperLink and wait until it answers.

        Raises:
            StudyError: it ended, or did not answer in time; the text names its log.
        """
        self._link.start_simulation(timeout_s)

    def submit(
        self, run_config: Mapping[str, str | bool | int | float], nodes: int, workers: int, share: WorkerShare
    ) -> str:
        """Hand the app to the SuperLink; returns Flower's run id.

        Args:
            nodes: number of simulated nodes.
            workers: CPUs of the Ray that starts here; a cluster has its own.
            share: what each Ray actor takes.
        """
        federation = f"num-supernodes={nodes} client-resources-num-cpus={share.cpus} init-args-log-to-driver=false"
        if self._ray_address is None:  # Ray refuses it for a cluster that it only joins, and Flower then hangs
            federation += f" init-args-num-cpus={workers}"
        if share.gpus > 0:
            federation += f" client-resources-num-gpus={share.gpus}"
        return self._flwr.submit(self._app, run_config, federation)

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        return self._flwr.status(run_id)

    @property
    def alive(self) -> bool:
        """Whether the SuperLink process still runs."""
        return self._link.alive

    def stop(self) -> None:
        """End every process of this runtime and remove its home. An existing cluster stays."""
        self._processes.stop()
