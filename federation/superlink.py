"""A Flower SuperLink of our own, and Flower's command line pointed at it.

Flower keeps one background SuperLink on fixed ports whose environment and working directory are frozen
at its first start and which every later `flwr run`, also of other projects, uses again: with generic
package names another project's code is executed. So each run gets a SuperLink of its own: own home, own
free port, a neutral working directory, no installation of dependencies, telemetry off. `flwr run` ends
with status 0 even when the run failed, so the state is asked for.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from federation.errors import StudyError
from federation.processes import OwnProcesses, free_ports

# The name under which Flower's configuration file knows our SuperLink.
_NAME = "run"


class SuperLink:
    """One SuperLink.

    Args:
        processes: the runtime that it belongs to.
        log_file: where its log goes, and that of the ServerApp.
        options: further options of `flower-superlink`.
    """

    def __init__(self, processes: OwnProcesses, log_file: Path, options: Sequence[str] = ()):
        self._processes = processes
        self._options = list(options)
        self.log_file = log_file
        (port,) = free_ports(1)
        self._port = port
        self.address = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until it answers.

        Raises:
            StudyError: it ended or did not answer in time; its log is named.
        """
        (self._processes.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_NAME}"\n\n[superlink.{_NAME}]\naddress = "{self.address}"\ninsecure = true\n'
        )
        command = [
            "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self._port),
            "--disable-runtime-dependency-installation", *self._options,
        ]  # fmt: skip
        self._process = self._processes.start(command, self.log_file)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StudyError(
                    f"Flower's SuperLink ended with status {self._process.returncode}; see {self.log_file}"
                )
            try:
                if httpx.get(f"http://{self.address}/health", timeout=1.0).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise StudyError(f"Flower's SuperLink did not answer within {timeout_s:.0f} s; see {self.log_file}")

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self._process is not None and self._process.poll() is None

    def submit(self, app: Path, run_config: Mapping[str, str | bool | int | float], federation: str = "") -> str:
        """Hand an app to the SuperLink; returns Flower's run id.

        Args:
            app: folder with the app's pyproject.toml.
            federation: what Flower calls the federation's configuration, `key=value ...` (simulation only).
        """
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in run_config.items())
        arguments = ["--federation-config", federation] if federation else []
        return str(self.flwr("run", str(app), _NAME, "--run-config", config, *arguments)["run-id"])

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        run = self.flwr("ls", _NAME, "--run-id", run_id)["runs"][0]
        return str(run["status"]), str(run.get("status-details", ""))

    def online(self) -> int:
        """Number of SuperNodes that are online."""
        nodes = self.flwr("supernode", "list", _NAME)["nodes"]
        return sum(node["status"] == "online" for node in nodes)

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """The answer of a `flwr` command.

        Raises:
            StudyError: no answer, or one that says that it failed.
        """
        try:
            done = subprocess.run(
                ["flwr", *arguments, "--format", "json"],
                env=self._processes.environment, cwd=self._processes.home, capture_output=True, text=True,
                stdin=subprocess.DEVNULL, timeout=120,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StudyError(f"flwr {arguments[0]} did not answer within 120 s (log: {self.log_file})") from None
        try:
            # Warnings may stand before the JSON document.
            answer = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            answer = {"success": False, "error-message": (done.stdout + done.stderr).strip()[-500:]}
        if not answer.get("success", False):
            raise StudyError(f"flwr {arguments[0]} failed: {answer.get('error-message', '?')} (log: {self.log_file})")
        return answer
