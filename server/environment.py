"""What a run was computed with: versions, processor, memory, and which code."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from basics.plugins import Identity
from federation.wire.code_digest import code_digest, package_folder

_PACKAGES = (
    "polycentre",
    "flwr",
    "ray",
    "torch",
    "torchvision",
    "timm",
    "opacus",
    "numpy",
    "pandas",
    "scikit-learn",
    "pydantic",
)


def cpu_name() -> str:
    """The processor's own name if the system knows it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe(plugins: Mapping[Identity, Sequence[str]] = MappingProxyType({})) -> dict[str, Any]:
    """The content of environment.json.

    Args:
        plugins: those that the study uses, and what it uses of each.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions(),
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "code": {"digest": code_digest(), "folder": str(package_folder("server").parent)},
        "plugins": [{**asdict(plugin), "uses": list(names)} for plugin, names in plugins.items()],
    }
