"""A Ray cluster that already exists: what it has, whether it can do our work, and how much of it each worker takes.

Flower starts as many Ray actors as fit on the nodes of the cluster, each with the same share of CPUs and GPUs, and hands
its messages to any of them. So the share decides how many workers there are. An actor that finds no room, because another
job occupies it, would get messages all the same, and answer them only when that job has ended.

A node uses the code and the Python of its own machine, and reads and writes the run folder and the cache under the same
paths as this machine. Both are tested on every node before anything starts.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basics.words import one_line
from federation.wire.code_digest import ALL, code_digest
from federation.wire.errors import StudyError

_ADDRESS = re.compile(r"(auto|\[[0-9A-Fa-f:]+\]:\d{1,5}|[^\s:/\[\]]+:\d{1,5})")
_PROBE = Path(__file__).with_name("ray_probe.py")
# Ray counts GPUs in ten thousandths.
_GPU_PARTS = 10_000
# The cluster must be the one that was named, and the project the one that is installed.
_NOT_INHERITED = ("RAY_ADDRESS", "PYTHONPATH")
_ANSWER_S = 12.0
_EXAMINE_S = 60.0


@dataclass(frozen=True)
class RayNode:
    """A machine of a cluster. `cpus` and `gpus` are how many Ray may hand out there."""

    name: str
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class RayCluster:
    """A cluster that can do the work. `address` is that of its control service, HOST:PORT."""

    address: str
    nodes: tuple[RayNode, ...]

    @property
    def cpus(self) -> int:
        """CPUs of all nodes."""
        return sum(int(node.cpus) for node in self.nodes)

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(int(node.gpus) for node in self.nodes)


@dataclass(frozen=True)
class WorkerShare:
    """What Ray reserves for each worker: whole CPUs, and a part of a GPU between 0 and 1."""

    cpus: int
    gpus: float = 0.0


def workers_that_fit(nodes: Sequence[RayNode], share: WorkerShare) -> int:
    """How many actors with this share Flower starts on these nodes."""
    total = 0
    for node in nodes:
        fitting = int(node.cpus // share.cpus)
        if share.gpus:
            fitting = min(fitting, int(node.gpus / share.gpus))
        total += fitting
    return total


def worker_share(
    nodes: Sequence[RayNode], workers: int, threads: int, gpu: float | None, where: str = "the Ray cluster"
) -> WorkerShare:
    """The largest share with which at least `workers` workers fit.

    With the largest share, Flower starts as few unneeded workers as possible and spreads them over nodes and GPUs: Ray
    fills one GPU with small shares before it uses the next.

    Args:
        threads: CPUs that a worker needs at least.
        gpu: the part of a GPU that a worker takes, 0 to 1; 0: an equal part of all GPUs; None: workers use no GPU.
        where: to what the nodes belong, for the error's text.

    Raises:
        StudyError: with status 2; fewer workers fit.
    """
    fitting = workers_that_fit(nodes, WorkerShare(threads))
    if fitting < workers:
        raise StudyError(
            f"compute.workers is {workers} with {threads} thread{'s' if threads > 1 else ''} each, but {where} has room for "
            f"{fitting} ({_words(nodes)}); set compute.workers={max(1, fitting)} (--set works too), or add nodes", 2,
        )  # fmt: skip
    if gpu is None:
        parts = [0.0]
    elif gpu > 0:
        parts = [gpu]
    else:
        parts = [math.floor(_GPU_PARTS / each) / _GPU_PARTS for each in range(1, workers + 1)]
    for part in parts:
        if workers_that_fit(nodes, WorkerShare(threads, part)) >= workers:
            cpus = threads
            while workers_that_fit(nodes, WorkerShare(cpus + 1, part)) >= workers:
                cpus += 1
            return WorkerShare(cpus, part)
    fitting = workers_that_fit(nodes, WorkerShare(threads, parts[-1]))
    raise StudyError(
        f"compute.workers is {workers}, but {where} has room for {fitting} that share its GPUs ({_words(nodes)}"
        f"{f'; each takes {gpu:g} of a GPU' if gpu else ''}); set compute.workers={max(1, fitting)}, lower the centres' gpu, "
        "or set compute.device=cpu", 2,
    )  # fmt: skip


def find_ray_cluster(address: str, folders: Sequence[Path], *, answer_s: float = _ANSWER_S) -> RayCluster:
    """Look at a cluster, without starting or leaving anything there.

    Args:
        address: `auto` (the cluster to which this machine belongs), or HOST:PORT of its head node.
        folders: each must be the same folder for this machine and for every node. If one does not exist yet, its nearest
            existing parent is tested.
        answer_s: how long the cluster may take to answer.

    Raises:
        StudyError: with status 2: no such cluster, different versions of Ray or Python, CPUs in use, or a node with
            different code or without one of the folders.
    """
    if not _ADDRESS.fullmatch(address):
        raise StudyError(f"--ray {address}: give auto, or HOST:PORT of the head node of a running cluster", 2)
    if address != "auto":
        _knock(address)
    with ExitStack() as stack:
        tokens = {}
        for folder in dict.fromkeys(next(p for p in (f, *f.parents) if p.is_dir()) for f in folders):
            try:
                place = stack.enter_context(tempfile.TemporaryDirectory(prefix=".polycentre-", dir=folder))
            except OSError as problem:
                raise StudyError(f"cannot write to {folder}: {problem.strerror}; name another folder", 2) from None
            tokens[place] = secrets.token_hex(8)
            (Path(place) / "token").write_text(tokens[place])
        found = _probe(address, tokens, answer_s)
        # This machine must see what a node wrote: under the same path on another disk, a node would find its own file, too.
        seen = {place: {p.name: p.read_text() for p in Path(place).iterdir()} for place in tokens}
    return _judged(address, found, lambda place, node: seen[place].get(node) == tokens[place][::-1])


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as problem:
        raise StudyError(
            f"--ray {address}: nothing answers there ({problem}); start a cluster with `ray start --head`, or correct the address",
            2,
        ) from None


def _probe(address: str, tokens: dict[str, str], answer_s: float) -> dict[str, Any]:
    """What `federation.flower.ray_probe` found, in a process of its own: Ray ends or blocks a process that it cannot serve."""
    asked = json.dumps({"address": address, "tokens": tokens, "answer_s": answer_s, "examine_s": _EXAMINE_S})
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_PROBE), asked], env=environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, cwd="/", timeout=answer_s + _EXAMINE_S + 30.0,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StudyError(
            f"--ray {address}: the cluster stopped answering; see `ray status --address {address}`", 2
        ) from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    said = one_line(done.stderr or done.stdout)[-200:]
    return {"error": f"no Ray cluster answers there{f' ({said})' if said else ''}"}


def _judged(address: str, found: dict[str, Any], reached: Callable[[str, str], bool]) -> RayCluster:
    """The cluster that a probe found.

    Args:
        reached: whether this machine sees in a folder what a node wrote there: (folder, id of the node).

    Raises:
        StudyError: with the first obstacle.
    """
    if "error" in found:
        raise StudyError(f"--ray {address}: {found['error']}", 2)
    nodes = [RayNode(node["name"], node["cpus"], node["gpus"]) for node in found["nodes"]]
    if not nodes:
        raise StudyError(f"--ray {address}: no node of the cluster offers a CPU; start one with --num-cpus", 2)
    free, cpus = found["free_cpus"], sum(node.cpus for node in nodes)
    if free < cpus:
        raise StudyError(
            f"--ray {address}: {free:g} of the cluster's {cpus:g} CPUs are free, but Flower takes all of them; wait until the "
            "other jobs have ended (`ray status` shows them), or start a cluster for this run", 2,
        )  # fmt: skip
    ours = code_digest(ALL)
    for node in found["nodes"]:
        name = f"--ray {address}: node {node['name']}"
        if "error" in node:
            raise StudyError(f"{name} {node['error']}", 2)
        if node["digest"] != ours:
            raise StudyError(
                f"{name} runs other code ({node['folder']}, digest {node['digest']}) than this machine ({ours}); update one of them", 2
            )  # fmt: skip
        lost = [place for place in node["places"] if not (node["places"][place] and reached(place, node["id"]))]
        if lost:
            raise StudyError(
                f"{name} does not share the folder {Path(lost[0]).parent} with this machine; name one on a file system that all nodes "
                "see, with --out for the run folder and --cache for the cache", 2,
            )  # fmt: skip
    return RayCluster(found["address"], tuple(nodes))


def _words(nodes: Sequence[RayNode]) -> str:
    """Such as "2 nodes with 8 CPUs and 1 GPU"; equal nodes are counted together."""
    kinds: dict[tuple[int, int], int] = {}
    for node in nodes:
        kinds[int(node.cpus), int(node.gpus)] = kinds.get((int(node.cpus), int(node.gpus)), 0) + 1
    parts = []
    for (cpus, gpus), count in kinds.items():
        text = f"{count} node{'s' if count > 1 else ''} with {cpus} CPU{'s' if cpus != 1 else ''}"
        parts.append(text + (f" and {gpus} GPU{'s' if gpus > 1 else ''}" if gpus else ""))
    return ", ".join(parts)
