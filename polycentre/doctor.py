"""`polycentre doctor`: is this machine fit to run, and what is missing."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import psutil
from rich.console import Console

from basics.plugins import GROUPS, PluginError, installed
from federation.flower.operator import DeploymentFile
from federation.flower.superlink_health import ask, clock_problem, clock_words
from federation.wire.code_digest import ALL, code_digest, package_folder
from polycentre.deploy import flower
from scenarios.plugins import faults
from server.app import default_cache
from server.environment import cpu_name, usable_cpus, versions

# Flower's own default ports: another project's SuperLink there is harmless to `polycentre run`, not to `flwr run .`.
_FLOWER_PORTS = (8000, 39091, 39093)


def diagnose(console: Console, deployment: str | None = None) -> int:
    """Print what was found; status 1 when something needed is missing.

    Args:
        deployment: also look at its SuperLink and nodes.
    """
    problems: list[str] = []
    console.print(f"python {sys.version.split()[0]}  {sys.executable}", highlight=False)
    for package, found in versions().items():
        console.print(f"  {package:<14} {found}", highlight=False)
        if found == "not installed" and package == "ray":
            console.print("    a node needs none; simulations do: install requirements.lock", highlight=False)
        elif found == "not installed":
            problems.append(f"{package} is not installed; run make install")
    folder = package_folder("server").parent
    console.print(f"code {folder} (digest {code_digest()})", highlight=False)
    for package in ALL:
        if package_folder(package).parent != folder:
            problems.append(
                f"package {package!r} is imported from {package_folder(package)}, not from this checkout; uninstall what put it there"
            )
    for distribution in {d for p in (*ALL, "polycentre") for d in packages_distributions().get(p, [])} - {"polycentre"}:
        problems.append(
            f"distribution {distribution!r} installs a package of a name that this project uses; uninstall it"
        )
    for plugin in installed():
        offers = ", ".join(f"{GROUPS[group]} {name}" for group, name, _ in plugin.offers)
        try:
            console.print(f"plug-in {plugin.identity}: {offers}", highlight=False, markup=False, soft_wrap=True)
        except PluginError as fault:
            problems.append(str(fault))
    problems += faults()
    memory = psutil.virtual_memory()
    console.print(
        f"processors {usable_cpus()} ({cpu_name()}), memory {memory.total / 2**30:.1f} GiB ({memory.available / 2**30:.1f} free)",
        highlight=False,
    )
    console.print(f"GPU {_gpu()}", highlight=False)
    cache = Path(default_cache())
    existing = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 2**30
    console.print(f"cache {cache} ({free:.1f} GiB free)", highlight=False)
    if free < 2:
        problems.append(f"only {free:.1f} GiB are free at {cache}; set POLYCENTRE_CACHE to a larger disk")
    for port in _FLOWER_PORTS:
        state = "taken" if _taken(port) else "free"
        console.print(f"port {port} {state}", highlight=False)
    console.print(
        f"clock {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())} (Flower refuses nodes that are 5 minutes off)",
        highlight=False,
    )
    if deployment is not None:
        problems += _deployed(console, deployment)
    for problem in problems:
        console.print(f"PROBLEM {problem}", style="red", highlight=False, soft_wrap=True)
    if not problems:
        console.print("nothing is missing", style="green")
    return 1 if problems else 0


def _deployed(console: Console, name: str) -> list[str]:
    """Problems of a deployment, as seen from the operator's machine."""
    place = DeploymentFile.find(name)
    found = ask(place.address, place.root_certificate)
    if found.problem:
        return [found.problem]
    off = "unknown" if found.clock_offset_s is None else clock_words(found.clock_offset_s)
    console.print(f"SuperLink {place.address} answers over TLS; this machine's clock is {off}", highlight=False)
    problems = [problem] if (problem := clock_problem(found.clock_offset_s)) else []
    with flower(name) as flwr:
        for node in flwr.nodes():
            console.print(f"node {node['node-id']} {node['status']}", highlight=False)
            if node["status"] != "online":
                problems.append(
                    f"node {node['node-id']} is {node['status']}; its administrator runs `polycentre centre check`, which names a "
                    "stopped node, a closed port, an expired certificate and a wrong clock"
                )
    return problems


def _gpu() -> str:
    import torch

    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"


def _taken(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0
