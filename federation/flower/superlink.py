"""A Flower SuperLink of our own.

Flower keeps one background SuperLink on fixed ports whose environment and working directory are frozen
at its first start and which every later `flwr run`, also of other projects, uses again: with generic
package names another project's code is executed. So each run gets a SuperLink of its own: own home, own
free port, a neutral working directory, no installation of dependencies, telemetry off.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from federation.flower.certificates import AUTHORITY, SERVER, SERVER_KEY
from federation.flower.processes import OwnProcesses, free_ports
from federation.flower.superlink_health import ask
from federation.wire.errors import StudyError


class SuperLink:
    """A SuperLink on this machine's loopback.

    Args:
        processes: the runtime that it belongs to.
        log_file: where its log goes; of a simulation also that of the ServerApp.
        port: the hospitals' door; a free one when left out. A simulation has this one only.
    """

    def __init__(self, processes: OwnProcesses, log_file: Path, port: int | None = None):
        self._processes = processes
        self.log_file = log_file
        free = free_ports(2)
        self.port, self._operator_port = port or free[0], free[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._root_certificate: Path | None = None

    @property
    def address(self) -> str:
        """Where nodes connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def operator_address(self) -> str:
        """Where runs are submitted and nodes registered."""
        return self.address if self._root_certificate is None else f"127.0.0.1:{self._operator_port}"

    def start_simulation(self, timeout_s: float = 60.0) -> None:
        """Start one that simulates nodes, without TLS, and wait until it answers.

        Raises:
            StudyError: it ended or did not answer in time; its log is named.
        """
        command = ["flower-superlink", "--insecure", "--simulation", *self._common()]
        self._process = self._processes.start(command, self.log_file)
        self._wait(timeout_s)

    def start(self, certificates: Path, secret: Path, database: Path, timeout_s: float = 60.0) -> None:
        """Start one for real nodes, with TLS, registered keys and a door for the operator, and wait until it answers.

        Args:
            certificates: folder with what `federation.flower.certificates` makes for a SuperLink.
            secret: file that the operator's machine has, too.
            database: file with registered nodes and messages that are under way; made when it is not there.

        Raises:
            StudyError: it ended or did not answer in time; its log is named.
        """
        self._root_certificate = certificates / AUTHORITY
        command = [
            *superlink_command(certificates, secret, database), *self._common(),
            "--operator-host", "127.0.0.1", "--operator-port", str(self._operator_port),
        ]  # fmt: skip
        self._process = self._processes.start(command, self.log_file)
        self._wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, as when its machine goes down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self._process is not None and self._process.poll() is None

    def _common(self) -> Sequence[str]:
        return ["--host", "127.0.0.1", "--port", str(self.port), "--disable-runtime-dependency-installation"]

    def _wait(self, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StudyError(
                    f"Flower's SuperLink ended with status {self._process.returncode}; see {self.log_file}"
                )
            if not ask(self.address, self._root_certificate, timeout_s=1.0).problem:
                return
            time.sleep(0.1)
        raise StudyError(f"Flower's SuperLink did not answer within {timeout_s:.0f} s; see {self.log_file}")


def superlink_command(certificates: Path, secret: Path, database: Path) -> list[str]:
    """What starts a SuperLink with TLS, registered keys and two doors; addresses are to be added.

    The ServerApp runs on the operator's machine (`--isolation process`) and takes its orders with the shared secret.
    """
    return [
        sys.executable, "-m", "federation.flower.superlink_server",
        "--ssl-ca-certfile", str(certificates / AUTHORITY), "--ssl-certfile", str(certificates / SERVER),
        "--ssl-keyfile", str(certificates / SERVER_KEY), "--enable-supernode-auth", "--isolation", "process",
        "--superexec-auth-secret-file", str(secret), "--database", str(database),
    ]  # fmt: skip
