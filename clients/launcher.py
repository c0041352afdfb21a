"""What a SuperNode starts for each message instead of Flower's client process: it checks the bundle first.

A SuperNode runs whatever app bundle the SuperLink delivers. This module compares the bundle's content with what the centre
has approved before a byte of it is unpacked or imported. It never runs a bundle of our own code: that code is already
installed here, and the installed code runs. A bundle that is not approved gets a reply in the project's own envelope, so that
the server reports a refusal as a refusal.

The rest is Flower's process (`flwr.supernode.runtime.run_clientapp`), in which three functions are replaced. This is
why the range of Flower's versions is narrow.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp as process

from basics.plugins import CENTRE_FILE_VARIABLE
from basics.private_files import UMASK
from clients import flower_errors
from clients.centre_file import CentreFile, CentreFileError
from clients.digests import record_digest
from clients.ledger import Ledger, LedgerError, recorded
from federation.flower.bundle import (
    BundleError,
    differences,
    digest_of,
    own_bundle,
    own_checkout,
    own_digest,
    read_bundle,
)
from federation.flower.launchers import run_guarded
from federation.wire.errors import EnvelopeError
from federation.wire.job import Job, Reply

log = logging.getLogger("flwr")

CHECKS = ("install_from_fab", "get_load_client_app_fn", "push_message")
FOREIGN = "foreign_bundle"


class Gate:
    """Checks the bundle of one message and decides what runs.

    Args:
        file: the centre's settings; None where they cannot be read: then it refuses everything.
        checkout: this installation's code.
    """

    def __init__(self, file: CentreFile | None, checkout: Path):
        self._file, self._checkout = file, checkout
        self._run: Callable[[], Any] | None = None

    def install_from_fab(self, content: bytes, **options: Any) -> Path | None:
        """Replaces Flower's `install_from_fab`: decide what runs; unpack only an approved foreign bundle."""
        try:
            return self._decided(content, options)
        except Exception as problem:  # Flower would send its text, with paths in it, to the server
            log.error("a bundle could not be checked: %r", problem)
            self._refuse("bundle_not_approved", bundle="unchecked", own="unknown")
            return None

    def _decided(self, content: bytes, options: dict[str, Any]) -> Path | None:
        if self._file is None:
            self._refuse("bad_centre_file")
            return None
        own = own_digest(self._checkout, self._file.workspace / "own_bundle.json")
        try:
            files = read_bundle(content)
        except BundleError as problem:
            log.warning("a bundle was refused: %s", problem)
            self._refuse("bundle_not_approved", bundle="unreadable", own=own)
            return None
        digest = digest_of(files)
        if digest == own:
            self._run = _own_app
            return None
        if self._file.approve.bundles != "own" and digest in self._file.approve.bundles:
            self._run = None  # Flower's own way
            return Path(_flower_install(content, **options))
        difference = differences(files, own_bundle(self._checkout))
        log.warning("bundle %s refused: it differs from this installation's in %s", digest, difference)
        self._refuse("bundle_not_approved", bundle=digest, own=own)
        return None

    def get_load_client_app_fn(self, **options: Any) -> Callable[[str, str, str], Any]:
        """Replaces Flower's function of this name: returns the app that `install_from_fab` chose."""
        if self._run is None:
            return _flower_load(**options)
        chosen = self._run
        return lambda fab_id, fab_version, fab_hash: chosen()

    def push_message(self, client: Any, message: Message, context: Context) -> None:
        """Replaces Flower's function of this name: no text of an error leaves, and no answer of a foreign bundle unrecorded."""
        if message.has_error():
            message = flower_errors.without_text(message, None if self._file is None else self._file.workspace)
        elif self._run is None:
            message = self._recorded_foreign(message)
        _flower_push(client, message, context)

    def _recorded_foreign(self, message: Message) -> Message:
        assert self._file is not None  # else nothing of a bundle would have been run
        size = sum(len(array.data) for part in message.content.array_records.values() for array in part.values())
        try:
            Ledger.of(self._file).record_other(
                FOREIGN, "ok", self._file.centre, received=flower_errors.received_by_flower(message),
                sha256=record_digest(message.content), bytes_up=size,
            )  # fmt: skip
            return message
        except (LedgerError, OSError) as problem:
            log.error("an answer of a listed bundle stays here, as it cannot be recorded: %s", problem)
        withheld = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the answer stays at the node, which cannot record it")
        return make_message(message.metadata, error=withheld)

    def _refuse(self, code: str, **numbers: str) -> None:
        def app(message: Message, context: Context) -> Message:
            return refusal(message, self._file, code, **numbers)

        self._run = lambda: app


def refusal(message: Message, file: CentreFile | None, code: str, **numbers: str) -> Message:
    """The reply to any message when nothing may run."""
    job: Job | None = None
    try:
        largest = {} if file is None else {"at_most": file.release.largest_message}
        job = Job.from_record(message.content, **largest)
        reply = Reply.error(job, code, **(numbers if file is None else numbers | {"at": file.centre}))
    except EnvelopeError as problem:
        reply = Reply("", "", "", "", code=problem.code, numbers=problem.numbers)
    if file is not None:
        reply = recorded(
            Ledger.of(file), file.centre, job, reply, record_digest(message.content) if job is None else None
        )
    return Message(reply.to_record(), reply_to=message)


def _own_app() -> Any:
    from clients.app import app  # imports torch, which a refusal does without

    return app


_flower_install: Callable[..., Any] = getattr(process, "install_from_fab", None)  # type: ignore[assignment]
_flower_load: Callable[..., Any] = getattr(process, "get_load_client_app_fn", None)  # type: ignore[assignment]
_flower_push: Callable[..., None] = getattr(process, "push_message", None)  # type: ignore[assignment]


def limit_memory(memory_gib: float | None) -> None:
    """Let this process allocate at most this much; an allocation beyond it fails with a MemoryError."""
    if memory_gib is not None:
        # Not the address space: torch and CUDA reserve more of it than they use.
        limit = int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Entry point of `bin/flwr-clientapp` in a centre's workspace; takes the arguments of Flower's own program."""
    os.umask(UMASK)
    path = os.environ.get(CENTRE_FILE_VARIABLE)
    if not path:
        raise SystemExit(f"{CENTRE_FILE_VARIABLE} is not set; start a node with `polycentre centre run`")
    file = None
    try:
        file = CentreFile.read(Path(path))
        limit_memory(file.resources.memory_gib)
    except CentreFileError as problem:
        log.error("%s", problem)
    run_guarded(flwr_clientapp, process, Gate(file, own_checkout()), CHECKS)


if __name__ == "__main__":
    main()
