"""Flower's simulation runtime for one run: a SuperLink of our own, whose nodes are Ray actors.

The actors run on this machine, in a Ray that starts and ends with the run, or on an existing Ray cluster, which stays: there
the run is one of the cluster's jobs, and its actors end with it.

Flower would start a Ray itself, but only when the app already runs. Ours starts beside the SuperLink, which is three seconds
earlier, and Flower joins it like any other cluster.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from federation.flower.flower_command import FlowerCommand
from federation.flower.processes import OwnProcesses, free_ports, wait_until_up
from federation.flower.ray_cluster import WorkerShare
from federation.flower.superlink import SuperLink

_HEAD = Path(__file__).with_name("ray_head.py")


class SimulationRuntime:
    """A SuperLink in simulation mode.

    Args:
        app: folder with the project's pyproject.toml.
        log_folder: for the log of the SuperLink and everything below it.
        workers: CPUs of the Ray that starts here; a cluster has its own.
        ray_address: HOST:PORT of a running Ray cluster to which this machine belongs; None: a Ray of its own, here.
    """

    def __init__(self, app: Path, log_folder: Path, workers: int, ray_address: str | None = None):
        self._app, self._workers = app, workers
        self._own_port = free_ports(1)[0] if ray_address is None else None
        self._ray: subprocess.Popen[bytes] | None = None
        self._processes = OwnProcesses()
        self._processes.environment |= {
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1",
            # `flwr run` has no setting for it; Ray reads the variable when Flower starts it.
            "RAY_ADDRESS": ray_address or f"127.0.0.1:{self._own_port}",
            # There is one task, the run itself; no message to a node waits for a poll. Polls of a whole run cost more than they
            # shorten its start.
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        }  # fmt: skip
        self._link = SuperLink(self._processes, log_folder / "flower.log")
        self._flwr = FlowerCommand(self._processes, self._link.address, None, self._link.log_file)

    @property
    def log_file(self) -> Path:
        """Log of the SuperLink."""
        return self._link.log_file

    def start(self, timeout_s: float = 60.0) -> None:
        """Start Ray and the SuperLink and wait until both answer.

        Raises:
            StudyError: one of them ended, or did not answer in time; the text names the log.
        """
        began = time.monotonic()
        if self._own_port is not None:
            folder = self._processes.home / "ray"
            # Flower's actors have an environment of their own, so Ray would start workers in advance for nobody.
            self._ray = self._processes.start(
                [sys.executable, "-P", str(_HEAD), str(self._own_port), str(self._workers), str(folder)],
                self.log_file, environment={"RAY_prestart_worker_first_driver": "0"},
            )  # fmt: skip
        self._link.start_simulation(timeout_s)
        if self._ray is not None:
            wait_until_up(self._ray, "Ray", (folder / "ready").exists, self.log_file, timeout_s, began)

    def submit(self, run_config: Mapping[str, str | bool | int | float], nodes: int, share: WorkerShare) -> str:
        """Hand the app to the SuperLink; returns Flower's run id.

        Args:
            nodes: number of simulated nodes.
            share: what each Ray actor takes.
        """
        # No `init-args-num-cpus`: Ray refuses it for a cluster that it only joins, and Flower then hangs.
        federation = f"num-supernodes={nodes} client-resources-num-cpus={share.cpus} init-args-log-to-driver=false"
        if share.gpus > 0:
            federation += f" client-resources-num-gpus={share.gpus}"
        return self._flwr.submit(self._app, run_config, federation)

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        return self._flwr.status(run_id)

    @property
    def alive(self) -> bool:
        """Whether the SuperLink, and the Ray of this run's own, still run."""
        return self._link.alive and (self._ray is None or self._ray.poll() is None)

    def stop(self) -> None:
        """End every process of this runtime and remove its home. An existing cluster stays."""
        self._processes.stop()
