"""A Flower SuperLink of our own.

Flower keeps one SuperLink in the background, on fixed ports, with the environment and the working
directory of its first start. Every later `flwr run`, even of another project, uses it again: with generic
package names, another project's code would run. So each run gets its own SuperLink, with its own home, a
free port, a neutral working directory, no installation of dependencies and no telemetry.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from federation.flower.certificates import AUTHORITY, SERVER, SERVER_KEY
from federation.flower.processes import OwnProcesses, free_ports, wait_until_up
from federation.flower.superlink_health import ask


class SuperLink:
    """A SuperLink on this machine's loopback.

    Args:
        processes: the runtime to which it belongs.
        log_file: its log; in a simulation also that of the ServerApp.
        port: the hospitals' door; by default a free one. A simulation has only this one.
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
        """Where nodes connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def operator_address(self) -> str:
        """Where runs are submitted and nodes registered."""
        return self.address if self._root_certificate is None else f"127.0.0.1:{self._operator_port}"

    def start_simulation(self, timeout_s: float = 60.0) -> None:
        """Start one that simulates nodes, without TLS, and wait until it answers.

        Raises:
            StudyError: it ended, or did not answer in time; the text names its log.
        """
        command = ["flower-superlink", "--insecure", "--simulation", *self._common()]
        self._process = self._processes.start(command, self.log_file)
        self._wait(timeout_s)

    def start(self, certificates: Path, secret: Path, database: Path, timeout_s: float = 60.0) -> None:
        """Start one for real nodes, with TLS, registered keys and a door for the operator, and wait until it answers.

        Args:
            certificates: folder with what `federation.flower.certificates` makes for a SuperLink.
            secret: file that the operator's machine also has.
            database: file for registered nodes and messages under way; created if it does not exist.

        Raises:
            StudyError: it ended, or did not answer in time; the text names its log.
        """
        self._root_certificate = certificates / AUTHORITY
        command = [
            *superlink_command(certificates, secret, database), *self._common(),
            "--operator-host", "127.0.0.1", "--operator-port", str(self._operator_port),
        ]  # fmt: skip
        self._process = self._processes.start(command, self.log_file)
        self._wait(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL, as when its machine goes down."""
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

        def answers() -> bool:
            return not ask(self.address, self._root_certificate, timeout_s=1.0).problem

        wait_until_up(self._process, "Flower's SuperLink", answers, self.log_file, timeout_s)


def superlink_command(certificates: Path, secret: Path, database: Path) -> list[str]:
    """The command that starts a SuperLink with TLS, registered keys and two doors; the caller adds addresses.

    The ServerApp runs on the operator's machine (`--isolation process`), which fetches runs with the shared secret.
    """
    return [
        sys.executable, "-m", "federation.flower.superlink_server",
        "--ssl-ca-certfile", str(certificates / AUTHORITY), "--ssl-certfile", str(certificates / SERVER),
        "--ssl-keyfile", str(certificates / SERVER_KEY), "--enable-supernode-auth", "--isolation", "process",
        "--superexec-auth-secret-file", str(secret), "--database", str(database),
    ]  # fmt: skip
