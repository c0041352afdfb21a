"""What a SuperNode starts for each message in the place of Flower's client process: the check of the bundle in front of it.

A SuperNode runs whatever app bundle the SuperLink delivers. Here its content is compared with what the centre has approved
before a byte of it is unpacked or imported. The own bundle is not run at all: its code is that of this installation, which
is run in its place. A bundle that is not approved gets a reply in the project's own envelope, so that the server reports a
refusal as a refusal.

It reuses the rest of Flower's process (`flwr.supernode.runtime.run_clientapp`) by replacing two of the names that it
imports, which is why the range of Flower's versions is a narrow one.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp as process

from clients.centre_file import CentreFile
from clients.ledger import Ledger
from clients.supernode import CENTRE_FILE
from federation.bundle import BundleError, differences, digest_of, own_bundle, own_checkout, own_digest, read_bundle
from federation.errors import StudyError
from federation.job import EnvelopeError, Job, Reply

log = logging.getLogger("flwr")

# With the flag of this name Flower would install whatever the bundle asks for.
_INSTALLING = "--allow-runtime-dependency-installation"
_REPLACED = ("install_from_fab", "get_load_client_app_fn")


class Gate:
    """The check of one message's bundle, and what is run in its place.

    Args:
        file: the centre's settings.
        checkout: this installation's code.
    """

    def __init__(self, file: CentreFile, checkout: Path):
        self._file, self._checkout = file, checkout
        self._run: Callable[[], Any] | None = None

    def install_from_fab(self, content: bytes, **options: Any) -> Path | None:
        """In the place of Flower's `install_from_fab`: decide what is run; only an approved foreign bundle is unpacked."""
        own = own_digest(self._checkout, self._file.workspace / "own_bundle.json")
        try:
            files = read_bundle(content)
            digest = digest_of(files)
        except BundleError as problem:
            self._refuse("unreadable", own, f"it cannot be one of this project's: {problem}")
            return None
        if digest == own:
            self._run = _own_app
            return None
        if self._file.approve.bundles != "own" and digest in self._file.approve.bundles:
            self._run = None  # Flower's own way
            return Path(_flower_install(content, **options))
        self._refuse(
            digest, own, f"it differs from this installation's in {differences(files, own_bundle(self._checkout))}"
        )
        return None

    def get_load_client_app_fn(self, **options: Any) -> Callable[[str, str, str], Any]:
        """In the place of Flower's function of this name: the app that `install_from_fab` decided for."""
        if self._run is None:
            return _flower_load(**options)
        chosen = self._run
        return lambda fab_id, fab_version, fab_hash: chosen()

    def _refuse(self, digest: str, own: str, why: str) -> None:
        log.warning("bundle %s refused: %s", digest, why)
        self._run = lambda: lambda message, context: refusal(message, self._file, digest, own)


def refusal(message: Message, file: CentreFile, digest: str, own: str) -> Message:
    """The reply to whatever was asked with a bundle that may not run here."""
    try:
        job = Job.from_record(message.content)
        reply = Reply.error(job, "bundle_not_approved", bundle=digest, own=own, at=file.centre)
        Ledger(file.workspace).record(job, reply, file.centre)
    except EnvelopeError as problem:
        reply = Reply("", "", "", "", code=problem.code, numbers=problem.numbers)
        Ledger(file.workspace).record_unreadable(reply, file.centre)
    return Message(reply.to_record(), reply_to=message)


def _own_app() -> Any:
    from clients.app import app  # with it torch: a refusal does without

    return app


_flower_install: Callable[..., Any] = getattr(process, "install_from_fab", None)  # type: ignore[assignment]
_flower_load: Callable[..., Any] = getattr(process, "get_load_client_app_fn", None)  # type: ignore[assignment]


def guard(gate: Gate) -> None:
    """Put a gate in front of Flower's client process.

    Raises:
        StudyError: this version of Flower is built otherwise, and nothing would be checked.
    """
    missing = [name for name in _REPLACED if not callable(getattr(process, name, None))]
    if missing:
        raise StudyError(
            f"Flower's client process has no {' and no '.join(missing)} any more, so its bundles cannot be checked; "
            "install a version of flwr that pyproject.toml allows"
        )
    for name in _REPLACED:
        setattr(process, name, getattr(gate, name))


def limit_memory(memory_gib: float | None) -> None:
    """Let this process allocate at most so much; beyond, an allocation fails with a MemoryError."""
    if memory_gib is not None:
        # Not the address space: torch and CUDA reserve more of that than they use.
        limit = int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Entry point of `bin/flwr-clientapp` in a centre's workspace; the arguments are those of Flower's own program."""
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if argument != _INSTALLING)]
    path = os.environ.get(CENTRE_FILE)
    if not path:
        raise SystemExit(f"{CENTRE_FILE} is not set; nodes are started with `polycentre centre run`")
    file = CentreFile.read(Path(path))
    limit_memory(file.resources.memory_gib)
    guard(Gate(file, own_checkout()))
    flwr_clientapp()


if __name__ == "__main__":
    main()
