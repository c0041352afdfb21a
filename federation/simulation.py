"""Flower's simulation runtime for one run: a SuperLink of our own, whose nodes are Ray actors on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from federation.flower_command import FlowerCommand
from federation.processes import OwnProcesses
from federation.superlink import SuperLink


class SimulationRuntime:
    """A SuperLink in simulation mode.

    Args:
        app: folder with the project's pyproject.toml.
        log_folder: where the log of the SuperLink (and of everything below it) goes.
    """

    def __init__(self, app: Path, log_folder: Path):
        self._app = app
        self._processes = OwnProcesses()
        self._processes.environment |= {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self._processes.home),
            "RAY_DISABLE_IMPORT_WARNING": "1",
        }
        self._link = SuperLink(self._processes, log_folder / "flower.log")
        self._flwr = FlowerCommand(self._processes, self._link.address, None, self._link.log_file)

    @property
    def log_file(self) -> Path:
        """Log of the SuperLink."""
        return self._link.log_file

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the SuperLink and wait until it answers.

        Raises:
            StudyError: it ended or did not answer in time; its log is named.
        """
        self._link.start_simulation(timeout_s)

    def submit(
        self, run_config: Mapping[str, str | bool | int | float], nodes: int, workers: int, gpus_per_worker: float = 0.0
    ) -> str:
        """Hand the app to the SuperLink; returns Flower's run id."""
        federation = f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={workers}"
        federation += " init-args-log-to-driver=false"
        if gpus_per_worker > 0:
            federation += f" client-resources-num-gpus={gpus_per_worker}"
        return self._flwr.submit(self._app, run_config, federation)

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        return self._flwr.status(run_id)

    @property
    def alive(self) -> bool:
        """Whether the SuperLink process still runs."""
        return self._link.alive

    def stop(self) -> None:
        """End every process of this runtime and remove its home."""
        self._processes.stop()
