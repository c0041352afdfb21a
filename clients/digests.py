"""SHA-256 of what comes to a centre and of what leaves it, for its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from flwr.app import Array, RecordDict

from federation.wire.arrays import arrays_digest
from federation.wire.job import MAX_BYTES, Job, Reply, canonical_json


def content_digest(reply: Reply) -> str:
    """Of what leaves with a reply: its result (or its code and numbers), and its arrays by name."""
    return _of({"code": reply.code, "numbers": reply.numbers, "body": reply.body}, reply.arrays)


def job_digest(job: Job) -> str:
    """Of what came with a job: every field of its envelope, and its arrays by name."""
    return _of({one.name: getattr(job, one.name) for one in fields(job) if one.name != "arrays"}, job.arrays)


def record_digest(record: RecordDict, at_most: int = MAX_BYTES) -> str:
    """Of a message as Flower carries it, whatever it holds; beyond `at_most` bytes of values only their sizes count."""
    digest = hashlib.sha256()
    for name, part in sorted(record.items()):
        digest.update(_head(type(part).__name__, name))
        for key, value in part.items():
            if isinstance(value, Array):
                said, data = [value.dtype, value.stype, *map(str, value.shape)], value.data
            else:
                said = [type(value).__name__]
                data = value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
            digest.update(_head(key, *said, str(len(data))))
            digest.update(memoryview(data)[:at_most])
            at_most = max(0, at_most - len(data))
    return digest.hexdigest()


def _head(*words: str) -> bytes:
    # As JSON, so that no choice of words looks like another.
    return canonical_json(words).encode() + b"\0"


def _of(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    return hashlib.sha256(f"{canonical_json(facts)}\0{arrays_digest(arrays)}".encode()).hexdigest()
