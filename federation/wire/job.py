"""Envelope of all work that crosses the wire: `Job` (server to centre) and `Reply` (centre to server).

Both sides check the envelope before anything becomes a tensor: protocol version, addressee, declared
size, array names, dtypes and finiteness. A reply carries either a result or an error *code* with
numbers that are safe to share; the text of an exception never crosses the wire, because Flower would
send paths and patient identifiers with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

PROTOCOL = 2
MAX_BYTES = 2 * 1024**3
MAX_ENVELOPE = 256 * 1024**2  # characters of JSON
# The Message type under which every job travels; the kind of work is in the envelope.
MESSAGE_TYPE = "query"
# The kind of the one job that is for whoever gets it: which centre are you? See `federation.wire.roll_call`.
IDENTIFY = "identify"

ALLOWED_DTYPES = {"float16", "float32", "float64", "int8", "uint8", "uint16", "int16", "int32", "int64", "bool"}
# Study, unit, centre and kind become names of files and folders on both sides.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


class EnvelopeError(ValueError):
    """A job or a reply that cannot be accepted; `code` and `numbers` are what the other side is told."""

    def __init__(self, code: str, text: str, **numbers: int | float | str):
        super().__init__(text)
        self.code, self.numbers = code, numbers


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN. Used for bodies and for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain_name(value: Any, what: str) -> str:
    """A name that came over the wire and becomes one of a file or folder.

    Raises:
        EnvelopeError: it is none: it could be a path.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise EnvelopeError("bad_name", f"{what} {value!r} is not a plain name")
    return value


def check_arrays(arrays: Mapping[str, np.ndarray]) -> int:
    """Refuse what must not become a tensor; returns the number of bytes.

    Raises:
        EnvelopeError: a name that is not a plain identifier, a dtype outside `ALLOWED_DTYPES`,
            NaN or infinity, or more than `MAX_BYTES`.
    """
    total = 0
    for name, array in arrays.items():
        if not _ARRAY_NAME.fullmatch(name) or ".." in name:
            raise EnvelopeError("bad_array_name", f"array name {name!r} is not a plain identifier")
        if str(array.dtype) not in ALLOWED_DTYPES:
            raise EnvelopeError(
                "bad_dtype", f"array {name!r} has dtype {array.dtype}; allowed: {sorted(ALLOWED_DTYPES)}"
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise EnvelopeError("not_finite", f"array {name!r} holds NaN or infinity")
        total += array.nbytes
    if total > MAX_BYTES:
        raise EnvelopeError("too_large", f"{total} bytes of arrays exceed the limit of {MAX_BYTES}")
    return total


@dataclass(frozen=True)
class Job:
    """One unit of work for one centre.

    Attributes:
        study: identity of the study, the same over resumed runs (Flower's run id is not).
        unit: id of the unit of work; a hash of everything its result depends on.
        centre: addressee; a centre refuses a job for another.
        kind: which duty (`clients` holds the table).
        body: JSON-serialisable arguments.
        arrays: named arrays.
        label: what a person sees in progress lines and errors.
        code: digest of the server's code; a client that runs other code refuses the job.
        place: in simulation, where the run folder and the cache are; a deployed node has its own and ignores it.
        expects_state: version of the centre's local state that this job builds on; None for stateless work.
        timeout_s: after this the server stops waiting; None waits until the message's TTL.
        scenario: SHA-256 of the resolved scenario (`federation.wire.units.scenario_digest`), by which a centre knows the study
            that it has approved; empty in simulation.
        strategy: of the arm that the job belongs to; empty for what is done for all arms together.
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

    @property
    def nbytes(self) -> int:
        """Size of the payload: arrays plus body."""
        return _size(self.body, self.arrays)

    def to_record(self) -> RecordDict:
        envelope = {
            "protocol": PROTOCOL,
            **{key: getattr(self, key) for key in _JOB_KEYS},
            "array_bytes": check_arrays(self.arrays),
        }
        return _to_record(envelope, self.arrays)

    @staticmethod
    def from_record(record: RecordDict, at_most: int = MAX_BYTES) -> Job:
        """Read and check a job.

        Args:
            at_most: bytes that the reader takes; a larger message is refused before it becomes arrays.

        Raises:
            EnvelopeError: it is malformed, oversized, not finite, or has a name that could be a path.
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
        numbers: counts and setting names that may be shown to the server; never identifiers or paths.
        started, finished: seconds since the epoch, by the centre's clock.
        worker: process that did the work.
        bytes_down, bytes_up: payload sizes, filled in by the server's side.
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
        envelope = {
            "protocol": PROTOCOL,
            **{key: getattr(self, key) for key in _REPLY_KEYS},
            "array_bytes": check_arrays(self.arrays),
        }
        return _to_record(envelope, self.arrays)

    @staticmethod
    def from_record(record: RecordDict, job: Job) -> Reply:
        """Read and check a reply to `job`.

        Raises:
            EnvelopeError: the reply is malformed, oversized, not finite, or answers another job.
        """
        envelope, arrays = _from_record(record, _REPLY_KEYS)
        if not envelope["unit"] and envelope["code"] != "ok":
            numbers = {k: v for k, v in envelope["numbers"].items() if isinstance(v, int | float | str)}
            return Reply.error(job, envelope["code"], **numbers)  # the centre could not even read the job
        for key in ("study", "unit", "centre", "kind"):
            if envelope[key] != getattr(job, key):
                raise EnvelopeError(
                    "foreign_reply", f"reply has {key} {envelope[key]!r}, the job has {getattr(job, key)!r}"
                )
        return Reply(
            arrays=arrays,
            bytes_down=job.nbytes,
            bytes_up=_size(envelope["body"], arrays),
            **{key: envelope[key] for key in _REPLY_KEYS},
        )

    @staticmethod
    def error(job: Job, code: str, **numbers: Any) -> Reply:
        return Reply(job.study, job.unit, job.centre, job.kind, code=code, numbers=numbers)


_JOB_KEYS = (
    "study", "unit", "centre", "kind", "body", "label", "code", "place", "expects_state", "timeout_s", "scenario", "strategy",
)  # fmt: skip
_REPLY_KEYS = ("study", "unit", "centre", "kind", "code", "numbers", "body", "started", "finished", "worker")
# Of what is no text.
_TYPES: dict[str, Any] = {
    "body": dict, "place": dict, "numbers": dict, "expects_state": int | None, "timeout_s": int | float | None,
    "started": int | float, "finished": int | float,
}  # fmt: skip


def _to_record(envelope: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> RecordDict:
    # Empty arrays have no bytes for Flower to carry but keep their name and shape.
    record = ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in arrays.items()})
    return RecordDict({"envelope": ConfigRecord({"json": canonical_json(envelope)}), "arrays": record})


def _size(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    return sum(a.nbytes for a in arrays.values()) + len(canonical_json(body))


def _from_record(
    record: RecordDict, keys: Sequence[str], at_most: int = MAX_BYTES
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(envelope, arrays) of a message of this protocol. Nothing in it is believed before it is checked."""
    try:
        text = str(record.config_records["envelope"]["json"])
        array_record = record.array_records["arrays"]
        if len(text) > MAX_ENVELOPE:
            raise EnvelopeError("too_large", f"an envelope of {len(text)} characters; the limit is {MAX_ENVELOPE}")
        envelope = _parsed(text)
        protocol = envelope["protocol"]
    except EnvelopeError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise EnvelopeError("malformed", f"not a polycentre message: {problem!r}") from problem
    if protocol != PROTOCOL:
        text = f"message speaks protocol {protocol!r}, this side {PROTOCOL}"
        raise EnvelopeError("protocol_mismatch", text, theirs=str(protocol)[:16], ours=PROTOCOL)
    for key in keys:
        if key not in envelope or not isinstance(envelope[key], _TYPES.get(key, str)):
            raise EnvelopeError("malformed", f"the envelope's {key} is {type(envelope.get(key)).__name__}")
    declared = envelope.get("array_bytes")
    if not isinstance(declared, int) or declared > MAX_BYTES:
        raise EnvelopeError("too_large", f"message declares {declared!r} bytes; the limit is {MAX_BYTES}")
    carried = len(text) + sum(len(array.data) for array in array_record.values())
    if max(carried, declared) > at_most:
        mib, limit = max(carried, declared) / 2**20, at_most / 2**20
        raise EnvelopeError(
            "message_too_large", f"{mib:.1f} MiB; at most {limit:g}", mib=round(mib, 1), limit=round(limit, 3)
        )
    arrays = {name: _array(name, array) for name, array in array_record.items()}
    if check_arrays(arrays) != declared:
        raise EnvelopeError("size_mismatch", f"message declares {declared} bytes of arrays but carries another number")
    return envelope, arrays


def _parsed(text: str) -> Any:
    """The value of a JSON text, if it is one that can be written again.

    Python reads more than JSON holds. What was read here goes into hashes, records and tables, and what cannot be written
    there would end the whole run instead of one answer.

    Raises:
        ValueError: NaN, infinity, half a character, or a whole number that 64 bits do not hold.
    """
    value = json.loads(text, parse_int=_whole)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return value


def _whole(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a whole number of more than 64 bits")
    return value


def _array(name: str, array: Array) -> np.ndarray:
    """One array, after its own header was compared with its bytes: numpy allocates what a header says.

    Raises:
        EnvelopeError: another dtype than those of `ALLOWED_DTYPES`, or a header that is not that of its bytes.
    """
    if array.dtype not in ALLOWED_DTYPES:
        raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {array.dtype!r}")
    try:
        stream = BytesIO(array.data)
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, _, dtype = read_header(stream)
        if str(dtype) not in ALLOWED_DTYPES:
            raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {dtype}")
        if math.prod(shape) * dtype.itemsize != len(array.data) - stream.tell() or min(shape, default=0) < 0:
            raise EnvelopeError(
                "size_mismatch", f"array {name!r} says that its shape is {shape}, which its bytes are not"
            )
        return array.numpy()
    except (KeyError, TypeError, ValueError, SyntaxError) as problem:
        if isinstance(problem, EnvelopeError):
            raise
        raise EnvelopeError("malformed", f"array {name!r} cannot be read: {problem!r}") from problem
