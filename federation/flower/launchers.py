"""Programs that stand in the place of Flower's own task processes, first on the PATH of a SuperNode or a SuperLink.

Flower starts a process of a name for every task (`flwr-clientapp`, `flwr-serverapp`, ...), and which kind of task a run is
comes from the other side: a node that guards `flwr-clientapp` alone could be sent an agent's bundle instead. So every one of
these names is taken: by a launcher of this project that checks the bundle, or by a refusal.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

from federation.wire.errors import StudyError

# With the flag of this name Flower would install whatever the bundle asks for.
INSTALLING = "--allow-runtime-dependency-installation"


def write_launchers(folder: Path, launchers: Mapping[str, str]) -> None:
    """Write one script for each of Flower's task processes.

    Args:
        folder: to be put first on PATH.
        launchers: by name of Flower's process, the script that is run in its place (`launcher_script`); every other kind
            of task is refused.

    Raises:
        ValueError: Flower has no process of such a name, so nothing would be checked.
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
    # -P: no module is looked for in the working directory.
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m {module} "$@"\n'


def put_before(process: Any, gate: object, names: Sequence[str], side: str) -> None:
    """Replace functions of a module of Flower's by a gate's methods of the same names.

    Args:
        process: the module that runs Flower's task process.
        side: "client" or "server", for the message.

    Raises:
        StudyError: this version of Flower is built otherwise, and nothing would be checked.
    """
    missing = [name for name in names if not callable(getattr(process, name, None))]
    if missing:
        raise StudyError(
            f"Flower's {side} process has no {' and no '.join(missing)} any more, so its bundles cannot be checked; "
            "install a version of flwr that pyproject.toml allows"
        )
    for name in names:
        setattr(process, name, getattr(gate, name))


def without_installing(arguments: Sequence[str]) -> list[str]:
    """A task process's arguments without `INSTALLING`."""
    return [argument for argument in arguments if argument != INSTALLING]


def _refusing(name: str) -> str:
    return f"#!/bin/sh\necho 'polycentre: {name} is refused: no task of this kind is done here' >&2\nexit 1\n"
