"""A real deployment on this machine's loopback: a SuperLink, and a SuperNode for every centre.

Each node is a process of its own with its own home, workspace and cache, as it would be in its hospital, and does each
job in a new process. Nothing is encrypted and a node is whoever it says it is: for trying a deployment out, not for
patients' data.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from federation.errors import StudyError
from federation.processes import OwnProcesses, carrying, free_ports, kill
from federation.superlink import SuperLink


@dataclass
class _SuperNode:
    home: Path
    config_file: Path
    log_file: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None


class LoopbackDeployment:
    """A SuperLink and its SuperNodes.

    Args:
        app: folder with the project's pyproject.toml.
        log_folder: where the log of the SuperLink and the ServerApp goes.
        nodes: by a name for each node, usually its centre's, what the node is told about itself
            (`clients.node.Node.of`): {"centre", "workspace", "cache"}. Its log goes into its workspace.
    """

    def __init__(self, app: Path, log_folder: Path, nodes: Mapping[str, Mapping[str, str]]):
        self._app = app
        self._processes = OwnProcesses()
        self._link = SuperLink(self._processes, log_folder / "flower.log")
        self._nodes: dict[str, _SuperNode] = {}
        for name, config in nodes.items():
            home = self._processes.home / "nodes" / name
            home.mkdir(parents=True)
            workspace = Path(config["workspace"])
            workspace.mkdir(parents=True, exist_ok=True)
            # A file, because Flower's inline spelling cannot hold every path. JSON's strings are TOML's, too.
            config_file = home / "node.toml"
            lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.items()]
            config_file.write_text("".join(lines), encoding="utf-8")
            self._nodes[name] = _SuperNode(home, config_file, workspace / "supernode.log")

    @property
    def log_file(self) -> Path:
        """Log of the SuperLink."""
        return self._link.log_file

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the SuperLink and all nodes, and wait until all of them are online.

        Raises:
            StudyError: one ended or was not there in time; its log is named.
        """
        self._link.start(timeout_s)
        for node, port in zip(self._nodes.values(), free_ports(len(self._nodes)), strict=True):
            node.port = port
        for name in self._nodes:
            self.start_node(name)
        deadline = time.monotonic() + timeout_s
        for name in self._nodes:
            self._wait_for_port(name, deadline)
        while (online := self._link.online()) < len(self._nodes):
            for name, node in self._nodes.items():
                if node.process is not None and node.process.poll() is not None:
                    raise StudyError(f"the SuperNode of {name} ended at its start; see {node.log_file}")
            if time.monotonic() > deadline:
                raise StudyError(
                    f"only {online} of {len(self._nodes)} SuperNodes were online within {timeout_s:.0f} s; see {self.log_file}"
                )

    def start_node(self, name: str) -> None:
        """Start the SuperNode of a centre, for the first time or again. Without a key it gets a new id each time."""
        node = self._nodes[name]
        command = [
            "flower-supernode", "--insecure", "--superlink", self._link.address, "--host", "127.0.0.1",
            "--port", str(node.port), "--node-config", str(node.config_file),
        ]  # fmt: skip
        node.process = self._processes.start(
            command, node.log_file, cwd=node.home, environment={"FLWR_HOME": str(node.home)}
        )

    def kill_node(self, name: str) -> None:
        """SIGKILL a node and whatever it is doing, as when its machine goes down."""
        node = self._nodes[name]
        kill(carrying("FLWR_HOME", str(node.home)))
        if node.process is not None:
            node.process.wait()

    def submit(self, run_config: Mapping[str, str | bool | int | float]) -> str:
        """Hand the app to the SuperLink; returns Flower's run id."""
        return self._link.submit(self._app, run_config)

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        return self._link.status(run_id)

    @property
    def alive(self) -> bool:
        """Whether the SuperLink process still runs. A node that ends is the study's business, not the runtime's."""
        return self._link.alive

    def stop(self) -> None:
        """End every process of this deployment and remove its home; the workspaces stay."""
        self._processes.stop()

    def _wait_for_port(self, name: str, deadline: float) -> None:
        """Until the node's own interface answers: asking the SuperLink starts a process, and would only slow it down."""
        node = self._nodes[name]
        while node.process is not None and node.process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", node.port)) == 0:
                    return
            time.sleep(0.1)
