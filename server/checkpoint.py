"""Centres that remember: a job whose reply an earlier session recorded is answered from the run folder.

Wraps any `Centres`, so that strategies and the study resume without knowing of it: they send the same jobs, and
what is done is not done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from federation.wire.centres import Centres
from federation.wire.errors import explain
from federation.wire.job import Job, Reply, canonical_json
from federation.wire.names import is_plain_name
from reports.run_record import RunRecord
from strategies import KINDS


class Checkpointed(Centres):
    """`Centres` that record every finished unit, and skip the units that are recorded."""

    def __init__(self, inner: Centres, record: RunRecord):
        self.names = inner.names
        self._inner = inner
        self._record = record
        self._jobs: dict[str, Job] = {}
        self._ready: deque[Reply] = deque()
        self._numbers: dict[str, int] = {}  # of the last progress recorded, by key

    def known(self, job: Job) -> Reply | None:
        stored = self._record.read_unit(job.unit) if KINDS[job.kind].kept else None
        if stored is None:
            return None
        info, arrays = stored
        return Reply(
            job.study, job.unit, job.centre, job.kind, body=info["result"], arrays=arrays or {},
            started=info["started"], finished=info["finished"], worker=info["worker"],
            bytes_down=info["bytes_down"], bytes_up=info["bytes_up"],
        )  # fmt: skip

    def send(self, job: Job) -> None:
        reply = self.known(job)
        if reply is None:
            self._jobs[job.unit] = job
            self._inner.send(job)
            return
        self._ready.append(reply)
        self._finished(job, reply, cached=True)

    def receive(self, timeout_s: float | None = None) -> Reply | None:
        if self._ready:
            return self._ready.popleft()
        reply = self._inner.receive(timeout_s)
        if reply is None:
            return None
        job = self._jobs.pop(reply.unit)
        reply = checked(job, reply)
        if reply.ok:
            self._keep(job, reply)
            self._finished(job, reply, cached=False)
        else:
            lost = str(reply.numbers.get("input"))
            # A resumed run sends it once more. Of this job only: no centre takes back what another did.
            if reply.code == "missing_input" and is_plain_name(lost) and f'"{lost}"' in canonical_json(job.body):
                self._record.forget_unit(lost)
            text = explain(reply.centre, reply.code, job.label or job.kind, reply.numbers)
            self._record.event(
                "unit_failed", unit=job.unit, kind=job.kind, centre=job.centre, label=job.label, code=reply.code,
                text=text, reference=str(reply.numbers.get("reference", job.unit)),
            )  # fmt: skip
        return reply

    def cancel(self, units: Iterable[str]) -> None:
        units = list(units)
        for unit in units:
            self._jobs.pop(unit, None)
        self._ready = deque(reply for reply in self._ready if reply.unit not in units)
        self._inner.cancel(units)

    def save_progress(self, key: str, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        if key not in self._numbers:
            self.load_progress(key)
        # Two places in turn: writing one in place would leave neither if the process died in the middle.
        number = self._numbers[key] = self._numbers.get(key, -1) + 1
        self._record.write_unit(
            f"{key}-{number % 2}",
            {"kind": "progress", "number": number, "info": dict(info)},
            arrays,
            durable=True,  # the replies that it stands for are discarded
        )

    def load_progress(self, key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        read = [self._record.read_unit(f"{key}-{place}") for place in (0, 1)]
        found = max((r for r in read if r is not None), key=lambda r: r[0]["number"], default=None)
        if found is None:
            return None
        info, arrays = found
        self._numbers[key] = info["number"]
        return info["info"], arrays or {}

    def discard(self, units: Iterable[str]) -> None:
        for unit in units:
            self._record.forget_unit(unit)

    def _keep(self, job: Job, reply: Reply) -> None:
        if KINDS[job.kind].pixels and not KINDS[job.kind].kept:
            return  # images of patients pass through the server without being written anywhere
        info = {
            "kind": job.kind, "centre": job.centre, "label": job.label, "result": reply.body,
            "started": reply.started, "finished": reply.finished, "worker": reply.worker,
            "bytes_down": reply.bytes_down, "bytes_up": reply.bytes_up,
        }  # fmt: skip
        self._record.write_unit(job.unit, info, reply.arrays or None)

    def _finished(self, job: Job, reply: Reply, cached: bool) -> None:
        self._record.event(
            "unit_finished", unit=job.unit, kind=job.kind, centre=job.centre, label=job.label,
            started=reply.started, finished=reply.finished, seconds=reply.finished - reply.started,
            bytes_down=reply.bytes_down, bytes_up=reply.bytes_up, cached=cached, worker=reply.worker,
        )  # fmt: skip


def checked(job: Job, reply: Reply) -> Reply:
    """The reply, or an error in its place where it is not what its kind declares: a centre may be wrong, or hostile."""
    if not reply.ok:
        return reply
    kind = KINDS[job.kind]
    asked = kind.parse(job.body)
    wrong = kind.misfit_out(asked, reply.arrays)
    if wrong:
        return _instead(reply, "wrong_arrays", name=wrong[:64])
    field = kind.undeclared(reply.body, {}) or kind.missing(reply.body, asked)
    return _instead(reply, "bad_answer", field=field[:64]) if field else reply


def _instead(reply: Reply, code: str, **numbers: Any) -> Reply:
    return replace(reply, code=code, numbers={"kind": reply.kind, **numbers}, body={}, arrays={})
