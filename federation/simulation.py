"""Start Flower's simulation runtime for one run, follow it, and stop everything that was started.

Flower keeps one background SuperLink on fixed ports whose environment and working directory are frozen
at its first start and which every later `flwr run`, also of other projects, uses again: with generic
package names another project's code is executed. So each run gets a SuperLink of its own: own home, own
free ports, a neutral working directory, no installation of dependencies, telemetry off. `flwr run` ends
with status 0 even when the run failed, so the state is asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from federation.errors import StudyError

_MARK = "POLYCENTRE_RUNTIME"
_PR_SET_PDEATHSIG = 1


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _die_with_parent() -> None:
    """In the child, before exec: end when the command line ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class SimulationRuntime:
    """A SuperLink in simulation mode of our own.

    Args:
        app: folder with the project's pyproject.toml.
        log_folder: where the log of the SuperLink (and of everything below it) goes.
    """

    def __init__(self, app: Path, log_folder: Path):
        self._app = app
        self.log_file = log_folder / "flower.log"
        # Short path: Ray puts sockets below it, and a socket's path has at most 107 characters.
        self._home = Path(tempfile.mkdtemp(prefix="polycentre-"))
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        # Flower's own command line tools lie beside the running Python, which need not be on PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._environment = {
            **os.environ,
            "PATH": path,
            "FLWR_HOME": str(self._home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self._home),
            "RAY_DISABLE_IMPORT_WARNING": "1",
            _MARK: str(self._home),
        }
        for name in ("PYTHONPATH", "RAY_ADDRESS", "FLWR_LOCAL_CONTROL_API_PORT", "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"):
            self._environment.pop(name, None)

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the SuperLink and wait until it answers.

        Raises:
            StudyError: it ended or did not answer in time; its log is named.
        """
        config = self._home / "config.toml"
        config.write_text(
            f'[superlink]\ndefault = "run"\n\n[superlink.run]\naddress = "{self._address}"\ninsecure = true\n'
        )
        command = [
            "flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(self._port),
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._home,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # A session of its own: Ctrl-C reaches the command line only, which then stops things in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StudyError(
                    f"Flower's SuperLink ended with status {self._process.returncode}; see {self.log_file}"
                )
            try:
                if httpx.get(f"http://{self._address}/health", timeout=1.0).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise StudyError(f"Flower's SuperLink did not answer within {timeout_s:.0f} s; see {self.log_file}")

    def submit(
        self, run_config: Mapping[str, str | bool | int], nodes: int, workers: int, gpus_per_worker: float = 0.0
    ) -> str:
        """Hand the app to the SuperLink; returns Flower's run id."""
        federation = f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={workers}"
        federation += " init-args-log-to-driver=false"
        if gpus_per_worker > 0:
            federation += f" client-resources-num-gpus={gpus_per_worker}"
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in run_config.items())
        answer = self._flwr("run", str(self._app), "run", "--run-config", config, "--federation-config", federation)
        return str(answer["run-id"])

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        answer = self._flwr("ls", "run", "--run-id", run_id)
        run = answer["runs"][0]
        return str(run["status"]), str(run.get("status-details", ""))

    @property
    def alive(self) -> bool:
        """Whether the SuperLink process still runs."""
        return self._process is not None and self._process.poll() is None

    def _flwr(self, *arguments: str) -> dict:
        try:
            done = subprocess.run(
                ["flwr", *arguments, "--format", "json"],
                env=self._environment, cwd=self._home, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
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

    def stop(self) -> None:
        """End every process of this runtime and remove its home."""
        ours = _marked(str(self._home))
        for process in ours:
            _quietly(process.terminate)
        _, alive = psutil.wait_procs(ours, timeout=3)
        for process in alive + _marked(str(self._home)):
            _quietly(process.kill)
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)


def _quietly(action) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        action()


def _marked(mark: str) -> list[psutil.Process]:
    """All processes that carry our mark in their environment, also those that detached themselves."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.pid != os.getpid():
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            continue
    return found
