"""A whole deployment on this machine's loopback, for trials: a SuperLink, and a SuperNode for every centre.

The processes are those of real sites, with TLS and registered keys. Each node has its own home, workspace and cache, as in
its hospital.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from federation.flower.certificates import AUTHORITY, SECRET
from federation.flower.flower_command import FlowerCommand
from federation.flower.operator import DeploymentFile
from federation.flower.processes import OwnProcesses
from federation.flower.superlink import SuperLink
from federation.wire.errors import StudyError


@dataclass(frozen=True)
class TrialNode:
    """A centre's node.

    Attributes:
        centre_file: the settings that the hospital writes for it.
        public_key: the key that the operator registers.
        log_file: of the node.
    """

    centre_file: Path
    public_key: Path
    log_file: Path


class LoopbackDeployment:
    """A SuperLink and its SuperNodes; the operator's side is `federation.flower.operator`.

    Args:
        processes: the runtime to which they belong.
        secrets: folder with the SuperLink's certificate and the operator's secret, and for its database.
        nodes: by the node's name, usually that of its centre.
        log_file: of the SuperLink.
        port: of the hospitals' door; by default a free one.
    """

    def __init__(
        self,
        processes: OwnProcesses,
        secrets: Path,
        nodes: Mapping[str, TrialNode],
        log_file: Path,
        port: int | None = None,
    ):
        self._processes, self._secrets, self._nodes = processes, secrets, dict(nodes)
        self.link = SuperLink(processes, log_file, port)
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._ids: dict[str, str] = {}
        self._flwr: FlowerCommand | None = None

    def start(self, timeout_s: float = 180.0) -> None:
        """Start the SuperLink, register and start all nodes, and wait until they are online.

        A node that ends is noticed at once. One that needs minutes is on a busy machine: it starts four processes.

        Raises:
            StudyError: one ended, or was not online in time; the text names its log.
        """
        self.start_link(timeout_s)
        self._flwr = FlowerCommand(
            self._processes, self.link.operator_address, self._secrets / AUTHORITY, self.link.log_file
        )
        deadline = time.monotonic() + timeout_s
        # Each question to the SuperLink starts a process.
        with ThreadPoolExecutor(max_workers=4) as pool:
            registered = pool.map(lambda name: self._flwr.register(self._nodes[name].public_key, name), self._nodes)  # type: ignore[union-attr]
            self._ids = dict(zip(self._nodes, registered, strict=True))
        for name in self._nodes:
            self.start_node(name)
        while absent := self.offline():
            for name in absent:
                if (status := self._started[name].poll()) is not None:
                    raise StudyError(
                        f"the SuperNode of {name} ended at its start (status {status}); see {self._nodes[name].log_file}"
                    )
            if time.monotonic() > deadline:
                logs = ", ".join(str(self._nodes[name].log_file) for name in absent)
                raise StudyError(f"{', '.join(absent)} were not online within {timeout_s:.0f} s; see {logs}")

    def start_link(self, timeout_s: float = 60.0) -> None:
        """Start the SuperLink, for the first time or again; nodes that it knows may come back."""
        self.link.start(self._secrets, self._secrets / SECRET, self._secrets / "superlink.db", timeout_s)

    def start_node(self, name: str) -> None:
        """Start the SuperNode of a centre, for the first time or again."""
        node = self._nodes[name]
        command = [sys.executable, "-m", "polycentre", "centre", "run", str(node.centre_file)]
        self._started[name] = self._processes.start(command, node.log_file)

    def offline(self) -> list[str]:
        """Names of the nodes that are not online."""
        assert self._flwr is not None
        online = {node["node-id"] for node in self._flwr.nodes() if node["status"] == "online"}
        return [name for name, number in self._ids.items() if number not in online]

    @property
    def place(self) -> DeploymentFile:
        """How the operator reaches it."""
        return DeploymentFile(self.link.operator_address, self._secrets / AUTHORITY, self._secrets / SECRET)
