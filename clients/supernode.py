"""The SuperNode of one centre: started with the settings of its `centre.yaml`, kept in the foreground, ended with its jobs.

The launcher (`clients.launcher`) comes first on its PATH under the name of Flower's own client process, and scripts that
refuse come under the names of the other task processes, so that no app bundle runs unchecked.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from basics.atomic_files import write_text
from basics.plugins import CENTRE_FILE_VARIABLE
from basics.private_files import UMASK, make_private_folder
from clients.centre_file import CentreFile
from clients.preload import SOCKET
from federation.flower.launchers import launcher_script, write_launchers
from federation.flower.processes import end_all, end_with_parent, flower_environment
from federation.wire.errors import StudyError


class SuperNode:
    """One SuperNode.

    Args:
        path: its `centre.yaml`.
        file: its content.
    """

    def __init__(self, path: Path, file: CentreFile):
        self._path, self._file = path.absolute(), file
        self._home = file.workspace / "flwr"
        self._bin = file.workspace / "bin"

    @property
    def command(self) -> list[str]:
        """The command line of Flower's SuperNode."""
        return [
            sys.executable, "-P", "-m", "clients.flower_supernode", "--superlink", self._file.superlink,
            "--root-certificates", str(self._file.root_certificate),
            "--auth-supernode-private-key", str(self._file.key), "--host", "127.0.0.1", "--port", str(self._file.port),
            "--node-config", str(self._home / "node.toml"),
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the SuperNode and everything below it."""
        environment = flower_environment(self._home)
        path = os.pathsep.join([str(self._bin), environment["PATH"]])
        return environment | {"PATH": path, CENTRE_FILE_VARIABLE: str(self._path)}

    def prepare(self) -> None:
        """Write the launcher's script and the node's configuration into the workspace."""
        self._home.mkdir(parents=True, exist_ok=True)
        # In a file, because Flower's inline syntax cannot hold every path. A JSON string is also a TOML string.
        write_text(self._home / "node.toml", f"centre_file = {json.dumps(str(self._path), ensure_ascii=False)}\n")
        script = handover_script(self._home) if self._file.preload else launcher_script("clients.launcher")
        write_launchers(self._bin, {"flwr-clientapp": script})

    def run(self, say: Callable[[str], None]) -> int:
        """Run it until it ends, or until SIGINT, SIGTERM or SIGHUP, which end it and its job at once.

        Returns:
            Its exit status; 0 after one of these signals.

        Raises:
            StudyError: another node uses this workspace.
        """
        os.umask(UMASK)  # also of every process below this one
        make_private_folder(self._file.workspace)
        with open(self._file.workspace / "node.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StudyError(
                    f"another node uses {self._file.workspace}; stop that node first, or name another workspace"
                ) from None
            self.prepare()
            end_all(self._home)  # jobs left behind by a node that was killed
            return self._supervised(say)

    def _supervised(self, say: Callable[[str], None]) -> int:
        stopping = False

        def stop(number: int, frame: object) -> None:
            nonlocal stopping
            if not stopping:
                stopping = True
                child.terminate()

        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if self._file.preload:  # until it is ready, each job starts a process of its own
            self._start([sys.executable, "-P", "-m", "clients.preload", str(self._home)])
        child = self._start(self.command)
        try:
            for number in previous:
                signal.signal(number, stop)
            say(f"node of centre {self._file.centre} started (process {child.pid}), SuperLink {self._file.superlink}")
            status = self._wait(child, lambda: stopping)
        finally:
            end_all(self._home)
            child.kill()  # does nothing to a child that has ended
            child.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        if stopping:
            say("stopped")
            return 0
        return status if status >= 0 else 128 - status

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self.environment, cwd=self._home, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid()),
        )  # fmt: skip

    def _wait(self, child: subprocess.Popen[bytes], stopping: Callable[[], bool]) -> int:
        while True:
            try:
                return child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if stopping():
                    end_all(self._home)


def handover_script(folder: Path) -> str:
    """A script that hands a job to the resident process of a folder; see `clients.preload`."""
    program = Path(__file__).with_name("handover.py")
    words = [sys.executable, "-I", "-S", str(program), str(folder), SOCKET]
    return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'
