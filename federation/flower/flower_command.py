"""Flower's command line, pointed at one SuperLink.

`flwr run` ends with status 0 even if the run failed, so one has to ask for the status of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from federation.flower.bundle import BundleError, copy_candidates
from federation.flower.processes import OwnProcesses, end_with_parent
from federation.wire.errors import StudyError

# The name under which Flower's configuration file knows our SuperLink.
_NAME = "run"


class FlowerCommand:
    """Asks a SuperLink with `flwr`.

    Args:
        processes: whose home holds Flower's configuration.
        address: host:port of the SuperLink's control interface.
        root_certificate: of the authority that signed its certificate; None for plain HTTP, on loopback only.
        log_file: error messages point to it.
    """

    def __init__(self, processes: OwnProcesses, address: str, root_certificate: Path | None, log_file: Path):
        self._processes, self._log_file = processes, log_file
        secured = (
            "insecure = true"
            if root_certificate is None
            else f"root-certificates = {json.dumps(str(root_certificate))}"
        )
        (processes.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_NAME}"\n\n[superlink.{_NAME}]\naddress = "{address}"\n{secured}\n',
            encoding="utf-8",
        )

    def submit(self, app: Path, run_config: Mapping[str, str | bool | int | float], federation: str = "") -> str:
        """Hand an app to the SuperLink; returns Flower's run id.

        Args:
            app: folder with the app's pyproject.toml.
            federation: Flower's configuration of the federation, `key=value ...` (simulation only).

        Raises:
            StudyError: with status 2, there is no app; or the SuperLink did not take it.
        """
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in run_config.items())
        arguments = ["--federation-config", federation] if federation else []
        with tempfile.TemporaryDirectory(dir=self._processes.home, prefix="app-") as folder:
            try:
                copy_candidates(app, Path(folder))
            except BundleError as problem:
                raise StudyError(str(problem), 2) from None
            return str(self("run", folder, _NAME, "--run-config", config, *arguments)["run-id"])

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details)."""
        run = self("ls", _NAME, "--run-id", run_id)["runs"][0]
        return str(run["status"]), str(run.get("status-details", ""))

    def stop_run(self, run_id: str) -> None:
        """End a run, and its jobs at the nodes."""
        self("stop", run_id, _NAME)

    def nodes(self) -> list[dict[str, Any]]:
        """The registered SuperNodes: {"node-id", "name", "status": "registered" | "online" | "offline", ...}."""
        return list(self("supernode", "list", _NAME)["nodes"])

    def register(self, public_key: Path, name: str) -> str:
        """Admit a hospital by its public key; returns the id of its node.

        Raises:
            StudyError: with the SuperLink's reason, for example that the key is already registered.
        """
        return str(self("supernode", "register", str(public_key), _NAME, "--name", name)["node-id"])

    def unregister(self, node_id: str) -> None:
        """Lock a hospital out: the SuperLink refuses its key from now on."""
        self("supernode", "unregister", node_id, _NAME)

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """The answer of a `flwr` command.

        Raises:
            StudyError: the command did not answer, or reports that it failed.
        """
        try:
            done = subprocess.run(
                ["flwr", *arguments, "--format", "json"],
                env=self._processes.environment, cwd=self._processes.home, capture_output=True, text=True,
                stdin=subprocess.DEVNULL, timeout=120,
                # Without it, a command whose SuperLink is gone would outlive this process: `flwr` tries again for minutes.
                preexec_fn=partial(end_with_parent, os.getpid()),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StudyError(f"flwr {arguments[0]} did not answer within 120 s (log: {self._log_file})") from None
        try:
            # Warnings may precede the JSON document.
            answer = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            answer = {"success": False, "error-message": (done.stdout + done.stderr).strip()[-500:]}
        if not answer.get("success", False):
            raise StudyError(f"flwr {arguments[0]} failed: {answer.get('error-message', '?')} (log: {self._log_file})")
        return answer
