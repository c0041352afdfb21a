"""What a node has answered of each approved study: a question is answered once, and asked again it gets the same answer.

Without this memory a server could repeat a round with weights of its choice, or a test with classifiers of its own, until single
images can be read from the answers.

A question is a job of an approved study as far as its result depends on it (`Question`). In a federation places are answered in
ascending order. The memory is one file for each study, which appears with its approval and outlives it; without it a study is not
answered until its administrator approves it again. Answers of jobs that build on a state are kept with that state
(`clients.local_state`), the latest others here.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from basics.atomic_files import write_bytes, write_text
from basics.private_files import make_private_folder
from clients.node import Refusal
from federation.wire.arrays import arrays_digest
from federation.wire.job import Job, canonical_json
from federation.wire.units import digest
from strategies.ask import Ask
from strategies.kind import Answer, Kind

# What a server may change when it asks again: how often it asked, and whether the centre is to say who it is.
_NOT_COMPARED = ("attempt", "introduce")
# Answers that build on no state are kept for a server that lost the last ones; older ones it has recorded.
KEPT = 16
# Places of a federation whose answers its two states hold.
_PLACES = 2


@dataclass(frozen=True)
class Question:
    """A job as one of the questions of an approved study.

    Attributes:
        series: which of the study's asks it is (`Ask.series`).
        federation: the one that it belongs to, by the server's name; empty for a kind that is not stateful.
        place: where that federation stands.
        inputs: hash of everything on which the answer depends.
        federations: how many federations of the study ask this.
        at_most: how many different answers one of them gets.
        reach: see `Ask`.
    """

    kind: Kind
    series: str
    federation: str
    place: tuple[int, ...]
    inputs: str
    federations: int
    at_most: int
    reach: float | None

    @staticmethod
    def of(job: Job, ask: Ask, asked: int) -> Question:
        """The question that a job asks, which was found to be a job of `ask`.

        Args:
            asked: how many exchanges of the study ask this.
        """
        kind, body = ask.kind, job.body
        compared = {key: value for key, value in body.items() if key not in _NOT_COMPARED}
        inputs = digest([kind.name, job.strategy, compared, job.expects_state, arrays_digest(job.arrays)])
        return Question(
            kind, ask.series, str(body["federation"]) if kind.stateful else "", tuple(int(body[key]) for key in kind.place),
            inputs, asked if kind.stateful else 1, ask.limit if kind.stateful else asked * ask.limit, ask.reach,
        )  # fmt: skip


class Answers:
    """The memory of one study.

    Args:
        folder: of the study, in the centre's workspace.
    """

    def __init__(self, folder: Path):
        self._folder, self._file = folder, folder / "answers.json"

    def begin(self, *, again: bool = False) -> int:
        """Make the memory where it is missing; returns how many answers it holds.

        Args:
            again: forget all that was answered.
        """
        make_private_folder(self._folder.parent)
        make_private_folder(self._folder)
        if again or not self._file.exists():
            write_text(self._file, canonical_json({"series": {}, "kept": []}))
        return self.count()

    def count(self) -> int:
        """How many different questions were answered."""
        return sum(one["count"] for series in self._read()["series"].values() for one in series.values())

    def answered(self, question: Question) -> bool:
        """Whether a question was answered before.

        Raises:
            Refusal: it is not to be answered.
        """
        return self._check(self._read(), question)

    def answer(self, question: Question) -> Answer:
        """The answer that a question has had.

        Raises:
            Refusal: it is no longer kept.
        """
        try:
            with safe_open(self._answer_file(question), "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return json.loads((file.metadata() or {})["body"]), arrays
        except (OSError, SafetensorError, KeyError, ValueError):
            raise Refusal("answered_before", kind=question.kind.name) from None

    def keep(self, question: Question, body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Remember an answer, before it leaves.

        Raises:
            Refusal: another process of this node has answered otherwise meanwhile, or the data are no longer those of the first
                answer.
        """
        steady = digest(question.kind.steady(body)) if question.kind.steady is not None else ""
        with self._locked():
            memory = self._read()
            known = self._check(memory, question)
            one = (
                memory["series"]
                .setdefault(question.series, {})
                .setdefault(question.federation, {"count": 0, "steady": steady, "given": []})
            )
            if one["steady"] != steady:
                raise Refusal("data_changed")
            if known:
                return
            one["count"] += 1
            one["given"].append([list(question.place), question.inputs])
            if question.place:
                one["given"] = one["given"][-_PLACES:]
            if question.kind.kept and not question.kind.stateful:
                write_bytes(self._answer_file(question), save(dict(arrays), {"body": canonical_json(body)}))
                memory["kept"].append(question.inputs)
                for old in memory["kept"][:-KEPT]:
                    (self._folder / f"{old}.safetensors").unlink(missing_ok=True)
                memory["kept"] = memory["kept"][-KEPT:]
            write_text(self._file, canonical_json(memory))

    def _check(self, memory: Mapping[str, Any], question: Question) -> bool:
        """Whether a question was answered before.

        Raises:
            Refusal: it must not be answered.
        """
        federations = memory["series"].get(question.series, {})
        one = federations.get(question.federation)
        if one is None:
            if len(federations) >= question.federations:
                raise Refusal("answered_before", kind=question.kind.name)
            return False
        if [list(question.place), question.inputs] in one["given"]:
            return True
        behind = question.place and one["given"] and list(question.place) <= one["given"][-1][0]
        if behind or one["count"] >= question.at_most:
            raise Refusal("answered_before", kind=question.kind.name)
        return False

    def _answer_file(self, question: Question) -> Path:
        return self._folder / f"{question.inputs}.safetensors"

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise Refusal("counts_lost") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two lanes of a node may answer at once."""
        descriptor = os.open(self._folder / ".answers.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
