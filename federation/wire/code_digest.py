"""Which code runs here: a digest of the project's own sources, and where they lie.

With an editable install and Flower's unpacked bundle there are two copies of the code. Server and clients
compare digests, and refuse to run different code.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

# What can change a number; the command line, the reports and the wire cannot.
COMPUTING = ("clients", "strategies", "models", "data_partitions", "metrics", "basics")
ALL = (*COMPUTING, "server", "federation", "scenarios", "reports")


def package_folder(package: str) -> Path:
    """Folder from which `package` is imported in this process."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"package {package!r} is not importable; install the project with `pip install -e .`")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def code_digest(packages: tuple[str, ...] = COMPUTING, root: Path | None = None) -> str:
    """SHA-256 over names and contents of all Python files of the packages, 16 hex digits.

    Args:
        root: folder that holds the packages; by default the one from which they are imported.
    """
    digest = hashlib.sha256()
    for package in packages:
        folder = package_folder(package) if root is None else root / package
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
