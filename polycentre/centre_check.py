"""`polycentre centre check`: whether a hospital's node is ready, and what is wrong with it."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from pydantic import TypeAdapter

from basics.plugins import PluginError, only
from basics.private_files import make_private_folder
from clients.anchor import send
from clients.approval import Approvals
from clients.centre_file import NO_DATA, CentreFile
from clients.ledger import Ledger, LedgerError
from clients.plugins import unlisted, verdicts
from data_partitions import SOURCES, DataError
from federation.flower.superlink_health import ask, clock_problem, clock_refused, clock_words
from federation.wire.errors import explain

_FREE_GIB = 2.0
_EXPIRES_SOON_DAYS = 30


@dataclass(frozen=True)
class Finding:
    """One line of a check. `problem`: the node cannot work; `note`: it can, but a person should know."""

    kind: Literal["ok", "note", "problem"]
    text: str


def ok(text: str) -> Finding:
    return Finding("ok", text)


def note(text: str) -> Finding:
    return Finding("note", text)


def problem(text: str) -> Finding:
    return Finding("problem", text)


def own_findings(file: CentreFile) -> Iterator[Finding]:
    """What can be checked without the network and the data: key, certificate, workspace, approvals."""
    yield ok(f"centre {file.centre}, SuperLink {file.superlink}")
    yield _key(file.key)
    yield from _certificates(file.root_certificate)
    yield from _folders(file)
    yield from _record(file)
    if file.approve.studies == "any":
        yield note(
            "approve.studies is any: this node does every study that it is asked for; use it in trials without patients only"
        )
    else:
        count = len(Approvals(file.workspace).digests())
        yield ok(f"{count} approved studies") if count else note("no study is approved yet: every job will be refused")
    if file.approve.bundles != "own":
        yield note(
            f"approve.bundles: {len(file.approve.bundles)} bundles other than this installation's may be unpacked and run"
        )
    if file.lacks_data:
        yield problem(NO_DATA)
    elif file.data is None:
        yield note("data: not set, so a study's scenario says where this centre's data is")


def plugin_findings(file: CentreFile) -> Iterator[Finding]:
    """Whether the plug-ins that the file lists are those installed here, and which others are."""
    for one, refusal in verdicts(file, file.allowed):
        if refusal is None:
            yield ok(f"plug-in {one}: allowed")
        else:
            yield problem(explain(file.centre, refusal.code, "", refusal.numbers))
    for plugin in unlisted(file):
        try:
            yield note(f"plug-in {plugin.identity}: installed and not listed, so its code does not run here")
        except PluginError as fault:
            yield note(f"{fault}; it is not listed, so its code does not run here")


def network_findings(file: CentreFile) -> Iterator[Finding]:
    """Whether the SuperLink answers over TLS, and whether its clock and this one agree."""
    health = ask(file.superlink, file.root_certificate)
    if health.problem:
        yield problem(
            f"SuperLink: {health.problem}; check the address, the root certificate, and the way through the firewall"
        )
        return
    yield ok(f"SuperLink {file.superlink} answers over TLS")
    if health.clock_offset_s is None:
        yield note("SuperLink: its answer has no date, so the clocks cannot be compared")
        return
    wrong = clock_problem(health.clock_offset_s)
    if not wrong:
        yield ok(f"clock: {clock_words(health.clock_offset_s)}")
    else:
        yield (problem if clock_refused(health.clock_offset_s) else note)(wrong)


def data_findings(file: CentreFile) -> Iterator[Finding]:
    """Whether the data section of the file can be read, and how much there is."""
    if file.data is None:
        return
    with only(file.allowed):
        source: Any = TypeAdapter(SOURCES[file.data["source"]]).validate_python(file.data)
    file.cache_folder.mkdir(parents=True, exist_ok=True)
    try:
        exams = source.load(file.centre, 0, cache=file.cache_folder).exams
    except DataError as error:
        for found in error.problems:
            yield problem(f"data: {found.text}")
        return
    patients = len({exam.patient for exam in exams})
    kinds = Counter(lesion.kind for exam in exams for lesion in exam.lesions)
    words = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    yield ok(f"data: {len(exams)} images of {patients} patients; lesions: {words}")


def _key(path: Path) -> Finding:
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its type differs")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        return problem(
            f"key: {path} cannot be read as an OpenSSH ECDSA key without a passphrase ({error}); make one: "
            f"ssh-keygen -t ecdsa -b 384 -N '' -f {path}"
        )
    return ok(f"key: {key.curve.name}, mode 0600")


def _certificates(path: Path) -> Iterator[Finding]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        yield problem(
            f"root_certificate: {path} holds no certificate ({error}); ask the operator of the SuperLink for it"
        )
        return
    now = datetime.now(UTC)
    for certificate in found:
        until = certificate.not_valid_after_utc
        name = certificate.subject.rfc4514_string() or "without a name"
        if now < certificate.not_valid_before_utc:
            yield problem(
                f"root_certificate: {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}; check the clock"
            )
        elif now > until:
            yield problem(f"root_certificate: {name} has expired on {until:%Y-%m-%d}; ask the operator for a new one")
        elif (until - now).days < _EXPIRES_SOON_DAYS:
            yield note(f"root_certificate: {name} expires on {until:%Y-%m-%d}; ask the operator for a new one")
        else:
            yield ok(f"root_certificate: {name}, until {until:%Y-%m-%d}")


def _folders(file: CentreFile) -> Iterator[Finding]:
    assert file.log.anchor is not None  # reading the file names it
    folders = {"workspace": file.workspace, "cache": file.cache_folder, "log.anchor": file.log.anchor.parent}
    for key, folder in folders.items():
        try:
            make_private_folder(folder)
        except OSError as error:
            yield problem(f"{key}: {folder} cannot be made ({error.strerror}); make it, or name another")
            continue
        if not os.access(folder, os.W_OK | os.X_OK):
            yield problem(f"{key}: {folder} cannot be written to; correct its permissions")
            continue
        free = shutil.disk_usage(folder).free / 2**30
        words = f"{key}: {folder}, {free:.1f} GiB free"
        yield ok(words) if free >= _FREE_GIB else note(f"{words}; patches and models may need more")
    yield ok(f"clock: {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}")


def _record(file: CentreFile) -> Iterator[Finding]:
    ledger = Ledger.of(file)
    try:
        ledger.check()
        yield ok(f"record: {ledger.path} goes on from its anchor {ledger.anchor.path}")
    except (LedgerError, OSError) as error:
        yield problem(f"record: {error}")
    address = file.log.syslog_address
    if address and (failed := send(address, f"polycentre {file.centre}: this node was checked")):
        yield problem(f"log.syslog: {address} cannot be reached ({failed}); name another, or leave it out")
