"""What is the node's own: its identity, its workspace, its secret, its log, its device.

In simulation all centres share one box, any node may play any centre, and a centre's workspace is a folder of the run.
A deployed node is one centre and says so in its own configuration, which also names its folders; what a job says
about places on a disk does not concern it. Nothing in a workspace is sent anywhere by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basics.private_files import make_private_folder
from clients import node_log
from clients.centre_file import CentreFile, CentreFileError
from federation.wire.job import Job, plain_name

log = logging.getLogger("flwr")

STUDIES = "studies"
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Node:
    """One centre: whose node it is, and where its own files are.

    Attributes:
        centre: which hospital this is.
        workspace: folder that only this centre reads and writes.
        cache: folder for what can be made again (patches); shared by processes of this machine.
        deployed: whether this is a real node, which keeps to its own rules, or plays the centre in a simulation.
        file: a deployed node's own settings; None where its configuration names its folders only (a trial).
        study: hash of the approved scenario whose job this is; empty where studies are not approved one by one.
    """

    centre: str
    workspace: Path
    cache: Path
    deployed: bool = False
    file: CentreFile | None = None
    study: str = ""

    @staticmethod
    def of(job: Job, config: Mapping[str, Any]) -> Node:
        """The node that a job has come to.

        Args:
            config: the configuration that the node was started with. A deployed one has `centre_file` (absolute path), or
                for a trial `centre`, `workspace` and `cache` (absolute paths); in simulation Flower fills it, and the job
                says whom the node plays and where.

        Raises:
            Refusal: a node that is neither: its configuration lacks something.
        """
        node = Node.own(config)
        if node is None and "partition-id" in config and "out" in job.place:  # Flower numbers a simulation's nodes only
            node = Node(job.centre, Path(job.place["out"]) / "centres" / job.centre, Path(job.place["cache"]))
        if node is None:
            raise Refusal("bad_node_config", key="centre")
        if node.deployed:
            make_private_folder(node.workspace)
        else:
            node.workspace.mkdir(parents=True, exist_ok=True)
        if node.file is not None and node.file.approve.studies == "listed" and _HASH.fullmatch(job.scenario):
            return replace(node, study=job.scenario)
        return node

    @property
    def kept(self) -> Path:
        """Folder of what the node keeps of this study: states and pools; see `clients.approval`."""
        return self.workspace / STUDIES / self.study if self.study else self.workspace

    @staticmethod
    def own(config: Mapping[str, Any]) -> Node | None:
        """The deployed node of a configuration; None where it names no centre.

        Raises:
            Refusal: the configuration lacks something, or the centre's own file is not right.
        """
        if "centre_file" in config:
            try:
                file = CentreFile.read(Path(str(config["centre_file"])))
            except CentreFileError as problem:
                log.error("%s", problem)  # to the node's own output: that file says where its workspace is
                raise Refusal("bad_centre_file") from None
            return Node(file.centre, file.workspace, file.cache_folder, deployed=True, file=file)
        if "centre" not in config:
            return None
        missing = [key for key in ("workspace", "cache") if not Path(str(config.get(key, ""))).is_absolute()]
        if missing:
            raise Refusal("bad_node_config", key=missing[0])
        return Node(str(config["centre"]), Path(config["workspace"]), Path(config["cache"]), deployed=True)

    def secret(self) -> bytes:
        """Key of this centre's digests; made once, never sent."""
        file = self.workspace / "secret"
        if not file.exists():
            temporary = file.with_suffix(f".{os.getpid()}.tmp")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
                out.write(secrets.token_bytes(32))
            # Of two lanes of this centre that start together the first makes it, and both read that one.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, file)
            temporary.unlink()
        return file.read_bytes()

    def log(self, text: str) -> None:
        """Append to the centre's own log, which is where the text of an error stays; see `clients.node_log`."""
        node_log.write(self.workspace, text)

    def progress(self, unit: str, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) that leaves the state of a job where the command line can see it."""
        folder = self.workspace / "progress"
        folder.mkdir(exist_ok=True)
        file = folder / f"{unit}.json"
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.time()
            if now - last < 0.5 and done < total:
                return
            last = now
            temporary = file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({"label": label, "done": done, "total": total, "t": now}))
            os.replace(temporary, file)

        return report

    def pool_folder(self, unit: str) -> Path:
        """Where the pool of foreign images made by a unit lies."""
        return self.kept / "pools" / plain_name(unit, "pool")

    def write_pool(self, unit: str, pixels: np.ndarray, labels: np.ndarray) -> None:
        """Keep foreign images (synthetic, or real ones of a pooled run) for the classifiers of this centre.

        Args:
            pixels: uint8 or uint16 (n, c, h, w).
            labels: int64 (n,).
        """
        folder = self.pool_folder(unit)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("labels", labels), ("pixels", pixels)):  # pixels last: their presence means complete
            temporary = folder / f"{name}.{os.getpid()}.tmp.npy"
            np.save(temporary, array)
            os.replace(temporary, folder / f"{name}.npy")

    def read_pool(self, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """(pixels memory-mapped, labels) of a pool.

        Raises:
            MissingInput: this centre does not hold it (any more).
        """
        folder = self.pool_folder(unit)
        if not (folder / "pixels.npy").exists():
            raise MissingInput(unit)
        return np.load(folder / "pixels.npy", mmap_mode="r"), np.load(folder / "labels.npy")


class Refusal(ValueError):
    """A job that this centre does not do."""

    def __init__(self, code: str, **numbers: object):
        super().__init__(code)
        self.code, self.numbers = code, numbers


class MissingInput(ValueError):
    """A job builds on something this centre does not hold."""

    code = "missing_input"

    def __init__(self, unit: str):
        super().__init__(f"pool {unit} is not in the workspace")
        self.numbers: dict[str, Any] = {"input": unit}


def device_for(setting: str) -> str:
    """ "cpu" or "cuda:0" (inside a Ray worker and on a node the centre's own GPU is always the first)."""
    if setting == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but this centre sees no GPU; set compute.device: cpu or auto")
    return "cuda:0" if setting != "cpu" and torch.cuda.is_available() else "cpu"


def platform_of(device: str) -> str:
    """What decides the last bit of a result on this machine: versions, device, instruction set."""
    kind = torch.cuda.get_device_name(0) if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    return f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, {kind}"
