"""Programs that replace Flower's own task processes: they come first on the PATH of a SuperNode or a SuperExec.

Flower starts a process by name for every task (`flwr-clientapp`, `flwr-serverapp`, ...), and the other side chooses the kind
of task: a node that guarded `flwr-clientapp` alone could be sent an agent's bundle instead. So this project takes every one
of these names: with a launcher that checks the bundle, or with a script that refuses.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

from federation.wire.errors import StudyError

# Given this flag, Flower installs whatever the bundle asks for.
INSTALLING = "--allow-runtime-dependency-installation"


def write_launchers(folder: Path, launchers: Mapping[str, str]) -> None:
    """Write one script for each of Flower's task processes.

    Args:
        folder: goes first on PATH.
        launchers: by the name of Flower's process, the script that replaces it (`launcher_script`); every other kind of
            task is refused.

    Raises:
        ValueError: Flower has no process of that name, so nothing would be checked.
    """
    names = set(TASK_TYPE_TO_COMMAND.values())
    unknown = sorted(set(launchers) - names)
    if unknown:
        raise ValueError(f"Flower starts no {', '.join(unknown)}; install a version of flwr that pyproject.toml allows")
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(names):
        script = folder / name
        temporary = folder / f".{name}.tmp"
        temporary.write_text(launchers.get(name) or _refusing(name), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(script)


def launcher_script(module: str) -> str:
    """A script that runs a module of this installation in this Python."""
    # -P: Python searches no module in the working directory.
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m {module} "$@"\n'


def run_guarded(program: Callable[[], None], process: Any, gate: object, checks: Sequence[str]) -> None:
    """Run one of Flower's task programs, with its arguments in `sys.argv`, behind a gate; it installs no dependencies.

    Args:
        program: the entry point of Flower's program.
        process, gate, checks: see `guard`.

    Raises:
        StudyError: see `guard`.
    """
    sys.argv = [argument for argument in sys.argv if argument != INSTALLING]
    guard(process, gate, checks)
    program()


def guard(process: Any, gate: object, checks: Sequence[str]) -> None:
    """Replace functions of one of Flower's modules with the methods of a gate that have the same names.

    Args:
        process: the module that runs Flower's task process.
        checks: names of these functions.

    Raises:
        StudyError: this version of Flower lacks one of them, so nothing would be checked.
    """
    missing = [name for name in checks if not callable(getattr(process, name, None))]
    if missing:
        raise StudyError(
            f"{process.__name__} no longer has {' and '.join(missing)}, so bundles cannot be checked; install a version of "
            "flwr that pyproject.toml allows"
        )
    for name in checks:
        setattr(process, name, getattr(gate, name))


def _refusing(name: str) -> str:
    return f"#!/bin/sh\necho 'polycentre: {name} is refused: this installation does no task of this kind' >&2\nexit 1\n"
