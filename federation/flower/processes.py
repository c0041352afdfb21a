"""Processes of one runtime: started apart from everything else on the machine, and ended without exception.

Flower's processes start others that may detach themselves, so all of them carry a mark in their environment, by which
they can be found. A child also ends when the process that started it ends, however that ends (Linux only).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from federation.wire.errors import StudyError

MARK = "POLYCENTRE_RUNTIME"
_PR_SET_PDEATHSIG = 1
# Loaded here, not in a child between fork and exec, where another thread's lock may be held for ever.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
# Settings of the user's own Flower, Ray or Python, which must not reach ours.
_NOT_INHERITED = ("PYTHONPATH", "RAY_ADDRESS", "FLWR_LOCAL_CONTROL_API_PORT", "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT")


def flower_environment(home: Path) -> dict[str, str]:
    """What each of Flower's processes gets: its home, no telemetry, no installation of dependencies, the mark of `home`."""
    # Flower's command line tools are in the folder of the running Python, which need not be on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **{name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
        "PATH": path,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Seconds. The default is 1, which would delay every message to a deployed node. Each poll costs about 3 ms.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        MARK: str(home),
    }


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class OwnProcesses:
    """The processes of one runtime, and their temporary folder.

    Attributes:
        home: the folder; its path is short, because Ray puts sockets below it and a socket's path has at most 107
            characters.
        environment: what every process gets; see `flower_environment`.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="polycentre-"))
        self.environment = flower_environment(self.home)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], log_file: Path, *, cwd: Path | None = None, environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with this one.

        Args:
            log_file: its output, and that of everything below it, is appended here.
            cwd: its working directory; by default `home`, which holds no code of another project.
            environment: added to `self.environment`.
        """
        with open(log_file, "ab") as log:
            child = subprocess.Popen(
                command,
                env=self.environment | dict(environment),
                cwd=cwd or self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # A session of its own: Ctrl-C reaches only the command line, which then ends the others in order.
                start_new_session=True,
                preexec_fn=partial(end_with_parent, os.getpid()),
            )
        self._children.append(child)
        return child

    def stop(self) -> None:
        """End every process of this runtime and remove its home."""
        end_all(self.home)
        for child in self._children:
            child.kill()  # does nothing to a child that has ended
            child.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def wait_until_up(
    process: subprocess.Popen[bytes],
    name: str,
    up: Callable[[], bool],
    log_file: Path,
    timeout_s: float,
    since: float | None = None,
) -> None:
    """Wait for a process that has just been started.

    Args:
        up: whether it can be used now.
        since: when the time began to run, on the monotonic clock; by default now.

    Raises:
        StudyError: it ended, or was not up in time; the text names its log.
    """
    deadline = (time.monotonic() if since is None else since) + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StudyError(f"{name} ended with status {process.returncode}; see {log_file}")
        if up():
            return
        time.sleep(0.1)
    raise StudyError(f"{name} did not answer within {timeout_s:.0f} s; see {log_file}")


def end_all(home: Path, patience_s: float = 3.0) -> None:
    """End every process that carries the mark of a home: with SIGTERM, then with SIGKILL those that have not ended.

    So are those below them: Ray's processes write their titles over the environment in which the mark is looked for.
    """
    ours = {one for process in carrying(MARK, str(home)) for one in (process, *_below(process))}
    for process in ours:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(ours, timeout=patience_s)
    for process in alive + carrying(MARK, str(home)):
        _quietly(process.kill)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def carrying(variable: str, value: str) -> list[psutil.Process]:
    """All other processes whose environment has `variable=value`, including those that detached themselves."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.pid != os.getpid():
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            continue
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone."""
    for process in processes:
        _quietly(process.kill)
    psutil.wait_procs(processes, timeout=5)


def _quietly(action: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        action()


def end_with_parent(parent: int | None = None) -> None:
    """Let the kernel send this process SIGTERM when its parent ends, however that ends (Linux only).

    Precisely: when the parent's thread that started it ends. With `partial(end_with_parent, os.getpid())` a `Popen` runs
    this in the child.

    Args:
        parent: process id of the parent, if known. A parent that has already ended sends nothing, so this process then
            ends at once.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
