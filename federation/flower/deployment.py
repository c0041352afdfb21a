"""A whole deployment on this machine's loopback, for trials: a SuperLink, and a SuperNode for every centre.

The same processes as at real sites, with TLS and registered keys, each node with a home, a workspace and a cache of its own,
as it would be in its hospital.
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
from federation.flower.processes import OwnProcesses, carrying, kill
from federation.flower.superlink import SuperLink
from federation.wire.errors import StudyError

# In the environment of a node's processes, so that all of them are found when it is to be killed.
_NODE_MARK = "POLYCENTRE_NODE"


@dataclass(frozen=True)
class TrialNode:
    """A centre's node.

    Attributes:
        centre_file: what the hospital tells its node.
        public_key: what the operator registers.
        log_file: where its log goes.
    """

    centre_file: Path
    public_key: Path
    log_file: Path


class LoopbackDeployment:
    """A SuperLink and its SuperNodes; the operator's side is `federation.flower.operator`.

    Args:
        processes: the runtime that they belong to.
        secrets: folder with the SuperLink's certificate and the operator's secret; its database is made there.
        nodes: by a name for each node, usually its centre's.
        log_file: of the SuperLink.
        port: of the hospitals' door; a free one when left out.
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

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the SuperLink, register and start all nodes, and wait until they are online.

        Raises:
            StudyError: one ended or was not there in time; its log is named.
        """
        self.start_link(timeout_s)
        self._flwr = FlowerCommand(
            self._processes, self.link.operator_address, self._secrets / AUTHORITY, self.link.log_file
        )
        deadline = time.monotonic() + timeout_s
        # Each question to the SuperLink is a process of its own.
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
        """Start the SuperLink, for the first time or again; nodes that it knew may come back."""
        self.link.start(self._secrets, self._secrets / SECRET, self._secrets / "superlink.db", timeout_s)

    def start_node(self, name: str) -> None:
        """Start the SuperNode of a centre, for the first time or again."""
        node = self._nodes[name]
        command = [sys.executable, "-m", "polycentre", "centre", "run", str(node.centre_file)]
        self._started[name] = self._processes.start(command, node.log_file, environment={_NODE_MARK: self._mark(name)})

    def kill_node(self, name: str) -> None:
        """SIGKILL a node and whatever it is doing, as when its machine goes down."""
        kill(carrying(_NODE_MARK, self._mark(name)))
        self._started[name].wait()

    def offline(self) -> list[str]:
        """Names of the nodes that the SuperLink does not see."""
        assert self._flwr is not None
        online = {node["node-id"] for node in self._flwr.nodes() if node["status"] == "online"}
        return [name for name, number in self._ids.items() if number not in online]

    @property
    def place(self) -> DeploymentFile:
        """How the operator reaches it."""
        return DeploymentFile(self.link.operator_address, self._secrets / AUTHORITY, self._secrets / SECRET)

    def _mark(self, name: str) -> str:
        return f"{self._processes.home}/{name}"
