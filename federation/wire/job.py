"""Envelope of all work that crosses the wire: `Job` (server to centre) and `Reply` (centre to server).

Both sides check the envelope before anything becomes a tensor: protocol version, addressee, declared
size, array names, dtypes and finiteness. A reply carries either a result or an error *code* with
numbers that are safe to share. The text of an exception never crosses the wire: it may hold paths and
patient identifiers.

Longer than most files, because jobs and replies are one envelope, with one set of checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from basics.bounded_text import Limits, TooMuch, load_json
from basics.words import one_line
from federation.wire.arrays import MAX_BYTES, check_arrays, check_names, read_array, write_array
from federation.wire.errors import EnvelopeError, shareable
from federation.wire.names import is_plain_name

PROTOCOL = 3
# The JSON of a message. The longest honest ones: predictions for 100,000 test images (3 MB and 300,000 values of two classes, 14 MB
# and 1.3 million of ten), and the survey of a receiver of 10,000 generators (5.7 MB and 720,000 values). Texts are names, versions,
# sentences and paths.
ENVELOPE = Limits(size=16 * 2**20, values=1_500_000, depth=32, word=8192)
_LATEST = 2.0**40  # seconds since the epoch; a clock may be wrong, but not by an age of the earth
# The Message type under which every job travels; the kind of work is in the envelope.
MESSAGE_TYPE = "query"
# The kind of the one job that every node answers, whichever centre it is: which centre are you? See `federation.wire.roll_call`.
IDENTIFY = "identify"


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN. Used for bodies and for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain_name(value: Any, what: str) -> str:
    """A name that came over the wire and will name a file or a folder.

    Raises:
        EnvelopeError: it could be a path.
    """
    if not is_plain_name(value):
        raise EnvelopeError("bad_name", f"{what} {str(value)[:64]!r} is not a plain name")
    return value


@dataclass(frozen=True)
class Job:
    """One unit of work for one centre.

    Attributes:
        study: identity of the study, the same over resumed runs (Flower's run id is not).
        unit: id of the unit of work; a hash of everything its result depends on.
        centre: addressee; a centre refuses a job for another.
        kind: what is to be done (`strategies.KINDS` is the table).
        body: JSON-serialisable arguments.
        arrays: named arrays.
        label: what progress lines and errors call the job.
        code: digest of the server's code; a client that runs other code refuses the job.
        place: in simulation, the run folder and the cache; a deployed node has its own and ignores it.
        expects_state: version of the centre's local state on which this job builds; None for stateless work.
        timeout_s: after this the server stops waiting; None: it waits until the message expires.
        scenario: SHA-256 of the resolved scenario (`federation.wire.units.scenario_digest`), by which a centre recognises the
            study that it has approved; empty in simulation.
        strategy: of the arm to which the job belongs; empty for work that serves all arms.
        plugins: those that the study uses, each with name, version and digest (`basics.plugins.Identity`); a centre that does
            not have exactly these refuses.
    """

    study: str
    unit: str
    centre: str
    kind: str
    body: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    label: str = ""
    code: str = ""
    place: dict[str, str] = field(default_factory=dict)
    expects_state: int | None = None
    timeout_s: float | None = None
    scenario: str = ""
    strategy: str = ""
    plugins: list[dict[str, str]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Size of the payload: arrays plus body."""
        return _size(self.body, self.arrays)

    def to_record(self) -> RecordDict:
        """The job as Flower sends it.

        Raises:
            EnvelopeError: see `federation.wire.arrays.check_arrays`.
        """
        return _to_record(self, _JOB_KEYS)

    @staticmethod
    def from_record(record: RecordDict, at_most: int = MAX_BYTES) -> Job:
        """Read and check a job.

        Args:
            at_most: bytes that the reader accepts; it refuses a larger message before this becomes arrays.

        Raises:
            EnvelopeError: the job is malformed, too large, not finite, or has a name that could be a path.
        """
        envelope, arrays = _from_record(record, _JOB_KEYS, at_most)
        for key in ("study", "unit", "centre", "kind"):
            plain_name(envelope[key], key)
        return Job(arrays=arrays, **{key: envelope[key] for key in _JOB_KEYS})


@dataclass(frozen=True)
class Reply:
    """Answer to one job.

    Attributes:
        code: "ok", or an error code (`federation.wire.errors.TEXTS` explains each).
        numbers: counts and names of settings that the server may see; never identifiers or paths.
        started, finished: seconds since the epoch, by the centre's clock.
        worker: process that did the work.
        bytes_down, bytes_up: payload sizes, which the server's side fills in.
    """

    study: str
    unit: str
    centre: str
    kind: str
    code: str = "ok"
    numbers: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0
    worker: str = ""
    bytes_down: int = 0
    bytes_up: int = 0

    @property
    def ok(self) -> bool:
        return self.code == "ok"

    @property
    def nbytes(self) -> int:
        """Size of the payload: arrays plus body."""
        return _size(self.body, self.arrays)

    def to_record(self) -> RecordDict:
        """The reply as Flower sends it.

        Raises:
            EnvelopeError: see `federation.wire.arrays.check_arrays`.
        """
        return _to_record(self, _REPLY_KEYS)

    @staticmethod
    def from_record(record: RecordDict, job: Job) -> Reply:
        """Read and check a reply to `job`.

        Raises:
            EnvelopeError: the reply is malformed, too large, not finite, or answers another job.
        """
        envelope, arrays = _from_record(record, _REPLY_KEYS)
        plain_name(envelope["code"], "code")
        for key in ("started", "finished"):
            if not 0 <= envelope[key] <= _LATEST:
                raise EnvelopeError("malformed", f"{key} is {envelope[key]!r}, which is no time")
        if not envelope["unit"] and envelope["code"] != "ok":
            return Reply.error(job, envelope["code"], **envelope["numbers"])  # the centre could not even read the job
        for key in ("study", "unit", "centre", "kind"):
            if envelope[key] != getattr(job, key):
                raise EnvelopeError(
                    "foreign_reply", f"reply has {key} {envelope[key][:64]!r}, the job has {getattr(job, key)!r}"
                )
        said = {
            "numbers": shareable(envelope["numbers"]), "worker": one_line(envelope["worker"][:256], 128),
            "finished": max(envelope["started"], envelope["finished"]),  # its clock may have been set back meanwhile
        }  # fmt: skip
        return Reply(
            arrays=arrays,
            bytes_down=job.nbytes,
            bytes_up=_size(envelope["body"], arrays),
            **{key: envelope[key] for key in _REPLY_KEYS} | said,
        )

    @staticmethod
    def error(job: Job, code: str, /, **numbers: Any) -> Reply:
        """The reply to a job that was not done, and why.

        Args:
            numbers: may have any names, also those of an argument here; see `federation.wire.errors.shareable`.
        """
        return Reply(job.study, job.unit, job.centre, job.kind, code=code, numbers=shareable(numbers))


_JOB_KEYS = (
    "study", "unit", "centre", "kind", "body", "label", "code", "place", "expects_state", "timeout_s", "scenario", "strategy",
    "plugins",
)  # fmt: skip
_REPLY_KEYS = ("study", "unit", "centre", "kind", "code", "numbers", "body", "started", "finished", "worker")
_ABSENT = type(None)
# Of the fields that are not text.
_TYPES: dict[str, tuple[type, ...]] = {
    "body": (dict,), "plugins": (list,), "place": (dict,), "numbers": (dict,), "expects_state": (int, _ABSENT),
    "timeout_s": (int, float, _ABSENT), "started": (int, float), "finished": (int, float),
}  # fmt: skip


def _to_record(sent: Job | Reply, keys: Sequence[str]) -> RecordDict:
    envelope = {key: getattr(sent, key) for key in keys}
    envelope |= {"protocol": PROTOCOL, "array_bytes": check_arrays(sent.arrays)}
    # Empty arrays have no bytes for Flower to carry but keep their name and shape.
    record = ArrayRecord({name: write_array(array) for name, array in sent.arrays.items()})
    return RecordDict({"envelope": ConfigRecord({"json": canonical_json(envelope)}), "arrays": record})


def _size(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    return sum(a.nbytes for a in arrays.values()) + len(canonical_json(body))


def _from_record(
    record: RecordDict, keys: Sequence[str], at_most: int = MAX_BYTES
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(envelope, arrays) of a message of this protocol, of which nothing is used before it is checked.

    Raises:
        EnvelopeError: whatever it is instead.
    """
    try:
        return _read(record, keys, at_most)
    except EnvelopeError:
        raise
    except Exception as problem:  # what others wrote may be anything, and one message must not end a run or a node
        text = f"not a polycentre message: {type(problem).__name__}: {one_line(str(problem)[:400], 200)}"
        raise EnvelopeError("malformed", text) from problem


def _read(record: RecordDict, keys: Sequence[str], at_most: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    text, arrays = _parts(record)
    # All sizes before anything is decoded.
    carried = len(text) + sum(len(array.data) for array in arrays.values())
    if len(text) > ENVELOPE.size or carried > MAX_BYTES:
        raise EnvelopeError(
            "too_large", f"{len(text)} characters of JSON, {carried} bytes in all; at most {ENVELOPE.size}, {MAX_BYTES}"
        )
    _refuse_larger(carried, at_most)
    check_names(arrays)
    envelope = _parsed(text)
    protocol = envelope["protocol"]
    if protocol != PROTOCOL:
        theirs = one_line(str(protocol)[:16])
        text = f"message speaks protocol {theirs!r}, this side {PROTOCOL}"
        raise EnvelopeError("protocol_mismatch", text, theirs=theirs, ours=PROTOCOL)
    for key in keys:
        # Exactly: to Python a truth value is a number.
        if key not in envelope or type(envelope[key]) not in _TYPES.get(key, (str,)):
            raise EnvelopeError("malformed", f"the envelope's {key} is {type(envelope.get(key)).__name__}")
    declared = envelope.get("array_bytes")
    if type(declared) is not int or declared > MAX_BYTES:
        raise EnvelopeError("too_large", f"message declares {str(declared)[:64]} bytes; the limit is {MAX_BYTES}")
    _refuse_larger(declared, at_most)
    read = {name: read_array(name, array) for name, array in arrays.items()}
    if check_arrays(read) != declared:
        raise EnvelopeError("size_mismatch", f"message declares {declared} bytes of arrays but carries another number")
    return envelope, read


def _parts(record: RecordDict) -> tuple[str, ArrayRecord]:
    """The two parts of a message; it has no others.

    Raises:
        EnvelopeError: it has.
    """
    envelope, arrays = record.get("envelope"), record.get("arrays")
    text = envelope.get("json") if isinstance(envelope, ConfigRecord) else None
    if len(record) != 2 or not isinstance(arrays, ArrayRecord) or not isinstance(text, str) or len(envelope or ()) != 1:
        raise EnvelopeError("malformed", "not a polycentre message: it has other parts than an envelope and arrays")
    return text, arrays


def _refuse_larger(size: int, at_most: int) -> None:
    if size > at_most:
        mib, limit = size / 2**20, at_most / 2**20
        raise EnvelopeError(
            "message_too_large", f"{mib:.1f} MiB; at most {limit:g}", mib=round(mib, 1), limit=round(limit, 3)
        )


def _parsed(text: str) -> Any:
    """The value of a JSON text, if it can be written as JSON again.

    Python reads more than JSON allows. The value goes into hashes, records and tables; one that cannot be written there
    would end the whole run instead of one answer.

    Raises:
        EnvelopeError: it exceeds the limits of an envelope.
        ValueError: NaN, infinity, half a surrogate pair, or a whole number beyond 64 bits.
    """
    try:
        value = load_json(text, ENVELOPE, parse_int=_whole)
    except TooMuch as problem:
        raise EnvelopeError("too_large", f"an envelope of {problem}") from None
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return value


def _whole(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a whole number beyond 64 bits")
    return value
