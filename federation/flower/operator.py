"""The operator's side of a deployment: where runs are submitted, and where the ServerApp computes and writes the run folder.

The SuperLink only forwards messages. The ServerApp runs here, in a SuperExec that starts and ends with the run. So results
never lie on a machine between the hospitals, and the run folder is where `polycentre run` says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import yaml

from basics.bounded_text import SETTINGS, load_yaml, read_text
from basics.words import one_line
from federation.flower.flower_command import FlowerCommand
from federation.flower.launchers import launcher_script, write_launchers
from federation.flower.processes import OwnProcesses
from federation.flower.superlink_health import ask, clock_problem
from federation.wire.errors import StudyError

# Below the working directory: one folder per deployment, each with this file.
DEPLOYMENTS, FILE = Path("deployments"), "deployment.yaml"
# A module of a higher layer, so it is started by name, in a process of its own.
_SERVER_LAUNCHER = "server.launcher"
_KEYS = ("address", "root_certificate", "operator_secret")


@dataclass(frozen=True)
class DeploymentFile:
    """How the operator reaches a SuperLink.

    Attributes:
        address: host:port of the operator's door.
        root_certificate: of the authority that issued its certificate.
        operator_secret: file with the secret that the SuperLink also has.
    """

    address: str
    root_certificate: Path
    operator_secret: Path

    @staticmethod
    def find(name: str) -> DeploymentFile:
        """Read `deployments/NAME/deployment.yaml`, or the file of that path. Paths in it are relative to it.

        Raises:
            StudyError: with status 2.
        """
        file = Path(name) if name.endswith((".yaml", ".yml")) else DEPLOYMENTS / name / FILE
        if not file.is_file():
            there = sorted(f.parent.name for f in DEPLOYMENTS.glob(f"*/{FILE}"))
            raise StudyError(
                f"no deployment {name!r}: there is no {file} (known: {', '.join(['loopback', *there])}); create one with "
                "`polycentre deploy init`, or name the file", 2,
            )  # fmt: skip
        try:
            tree = load_yaml(read_text(file, SETTINGS), SETTINGS)
        except (OSError, ValueError) as problem:
            raise StudyError(f"{file}: cannot be read ({one_line(problem)})", 2) from None
        if not isinstance(tree, dict) or set(tree) != set(_KEYS) or not all(isinstance(v, str) for v in tree.values()):
            found = ", ".join(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
            raise StudyError(f"{file}: has {found}; write exactly {', '.join(_KEYS)}, each as text", 2)
        paths = {key: (file.parent / tree[key]).absolute() for key in _KEYS[1:]}
        for key, path in paths.items():
            if not path.is_file():
                raise StudyError(f"{file}: {key}: no file {path}; copy it from the SuperLink's administrator", 2)
        return DeploymentFile(tree["address"], **paths)

    def write(self, file: Path) -> None:
        """Write it with absolute paths."""
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.write_text(yaml.safe_dump({key: str(getattr(self, key)) for key in _KEYS}, sort_keys=False))
        temporary.replace(file)


class Operator:
    """A SuperLink somewhere, and the process here that runs what is submitted to it.

    Args:
        app: folder with the project's pyproject.toml.
        log_folder: for the log of the ServerApp.
        place: the SuperLink.
        processes: the runtime to which this belongs; by default one of its own.
    """

    def __init__(self, app: Path, log_folder: Path, place: DeploymentFile, processes: OwnProcesses | None = None):
        self._app, self._place = app, place
        self._processes = processes or OwnProcesses()
        self.log_file = log_folder / "flower.log"
        self.flwr = FlowerCommand(self._processes, place.address, place.root_certificate, self.log_file)
        self._process: subprocess.Popen[bytes] | None = None
        self._run_id = ""
        self._secret: BinaryIO | None = None  # locked while this operator has a run

    def start(self) -> str:
        """Start to wait for runs; returns a note about this machine's clock, empty if the clock is right.

        Raises:
            StudyError: the SuperLink does not answer, or with a different certificate; with status 2, another run is using
                this deployment.
        """
        self._lock()
        found = ask(self._place.address, self._place.root_certificate)
        if found.problem:
            raise StudyError(found.problem)
        # Otherwise, whoever can submit to the SuperLink could run any code here.
        launchers = self._processes.home / "bin"
        write_launchers(launchers, {"flwr-serverapp": launcher_script(_SERVER_LAUNCHER)})
        path = os.pathsep.join([str(launchers), self._processes.environment["PATH"]])
        command = [
            "flower-superexec", "--runtime-api-address", self._place.address,
            "--root-certificates", str(self._place.root_certificate),
            "--superexec-auth-secret-file", str(self._place.operator_secret),
        ]  # fmt: skip
        self._process = self._processes.start(command, self.log_file, environment={"PATH": path})
        return clock_problem(found.clock_offset_s)

    def _lock(self) -> None:
        """A SuperExec takes any run that the SuperLink has: with two of them, ending one run would end the other."""
        secret = self._place.operator_secret.open("rb")
        try:
            fcntl.flock(secret, fcntl.LOCK_EX | fcntl.LOCK_NB)  # belongs to this process, and ends with it in any case
        except BlockingIOError:
            secret.close()
            raise StudyError(
                f"another run is using the SuperLink at {self._place.address}; wait until it ends, or end it with Ctrl-C",
                2,
            ) from None
        self._secret = secret

    def submit(self, run_config: Mapping[str, str | bool | int | float]) -> str:
        """Hand the app to the SuperLink; returns Flower's run id."""
        self._run_id = self.flwr.submit(self._app, run_config)
        return self._run_id

    def status(self, run_id: str) -> tuple[str, str]:
        """Flower's view of the run: ("running" | "finished:completed" | "finished:failed" | ..., details).

        Raises:
            StudyError: the SuperLink does not answer.
        """
        # `flwr` would keep trying for minutes.
        if problem := ask(self._place.address, self._place.root_certificate).problem:
            raise StudyError(problem)
        return self.flwr.status(run_id)

    @property
    def alive(self) -> bool:
        """Whether the process that runs the ServerApp still runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the run if it has not ended, so that no node goes on with it; then end every process of this runtime."""
        with contextlib.suppress(StudyError):  # the SuperLink may have ended, and the run with it
            if self._run_id and not self.status(self._run_id)[0].startswith("finished"):
                self.flwr.stop_run(self._run_id)
        self._processes.stop()
        if self._secret is not None:
            self._secret.close()
