"""State that a centre keeps between the jobs of a federation: discriminators, optimizers, budgets. It never leaves the centre.

A centre keeps two snapshots per federation: the server may have lost the reply to the job that made the newer one, and then
builds on the older. A snapshot holds that reply, so a job that is sent twice is done once and answered from the snapshot.
Each snapshot is one file that appears by a rename: a process killed at any moment leaves only whole snapshots.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clients.node import Node, Refusal
from federation.wire.job import Job, plain_name
from strategies.bodies import OnState
from strategies.kind import Answer

State = dict[str, np.ndarray]


class StateLost(ValueError):
    """A job builds on a state that this centre does not have, or no longer has."""

    code = "state_lost"

    def __init__(self, wanted: int, have: list[int]):
        super().__init__(f"the job builds on state {wanted}; this centre has {have or 'none'}")
        self.numbers: dict[str, Any] = {"wanted": wanted, "have": max(have, default=0)}


class LocalState:
    """The snapshots of one federation at one centre.

    Args:
        folder: of this federation, in the centre's workspace.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def answer(self, unit: str, question: str = "") -> Answer | None:
        """The reply to a job that is already done.

        Args:
            question: see `commit`. A job of another id that asks the same gets the same reply, and its id is that of the state from
                then on.
        """
        for version in reversed(self._versions()):
            try:
                with safe_open(self._path(version), "numpy") as file:
                    metadata = file.metadata() or {}
                    known = metadata.get("unit") == unit
                    if not known and not (question and metadata.get("question") == question):
                        continue
                    content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError):
                continue
            if not known:
                self._write(version, content, metadata | {"unit": unit})
            reply = {n.removeprefix("reply."): a for n, a in content.items() if n.startswith("reply.")}
            return json.loads(metadata["body"]), reply
        return None

    def load(self, version: int, unit: str = "") -> dict[str, np.ndarray]:
        """The state of a version; version 0 is the empty one, before the first job.

        Args:
            unit: the job that made it, if known: after a loss, versions are counted from the beginning, and a server that
                resumes from before the loss would otherwise build on a different state of the same number.

        Raises:
            StateLost: it does not exist, cannot be read, or was made by another job.
        """
        if version == 0:
            return {}
        try:
            with safe_open(self._path(version), "numpy") as file:
                if unit and (file.metadata() or {}).get("unit") != unit:
                    raise StateLost(version, [v for v in self._versions() if v != version])
                names = [name for name in file.keys() if name.startswith("state.")]  # noqa: SIM118
                return {name.removeprefix("state."): file.get_tensor(name) for name in names}
        except (OSError, SafetensorError):
            raise StateLost(version, [v for v in self._versions() if v != version]) from None

    def commit(self, version: int, unit: str, state: dict[str, np.ndarray], answer: Answer, question: str = "") -> None:
        """Write the state that a job made, with its reply, as `version`; keep the version before, and delete all others.

        Args:
            question: what the job asked (`clients.answers.Question.inputs`), where that is compared.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        body, arrays = answer
        content = {f"state.{k}": v for k, v in state.items()} | {f"reply.{k}": v for k, v in arrays.items()}
        self._write(version, content, {"unit": unit, "question": question, "body": json.dumps(body)})
        for other in self._versions():
            if other not in (version - 1, version):
                self._path(other).unlink(missing_ok=True)
        # Left by a process that was killed; one of this version may still be in use.
        for left in self._folder.glob(".*.tmp"):
            if not left.name.startswith(f".{version}."):
                left.unlink(missing_ok=True)

    def _write(self, version: int, content: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
        temporary = self._folder / f".{version}.{os.getpid()}.tmp"
        save_file({name: np.asarray(array, order="C") for name, array in content.items()}, temporary, metadata)
        os.replace(temporary, self._path(version))

    def _versions(self) -> list[int]:
        files = self._folder.glob("[0-9]*.safetensors") if self._folder.is_dir() else []
        return sorted(int(file.stem) for file in files if file.stem.isdigit())

    def _path(self, version: int) -> Path:
        return self._folder / f"{version}.safetensors"


def remembered(
    node: Node, job: Job, body: OnState, work: Callable[[State], tuple[Answer, State]], *, question: str = "", answered: bool = False
) -> Answer:  # fmt: skip
    """Do a job that builds on this centre's state, once: a repeated job is answered from what was kept.

    Args:
        question: see `LocalState.commit`.
        answered: whether this question has been answered: then the answer is sent again, or none.

    Raises:
        StateLost: the state that the job expects is not here.
        Refusal: the answer that was given is no longer here.
    """
    state = LocalState(node.kept / "states" / plain_name(body.federation, "federation"))
    known = state.answer(job.unit, question)
    if known is not None:
        return known
    if answered:
        raise Refusal("answered_before", kind=job.kind)
    before = job.expects_state or 0
    answer, after = work(state.load(before, body.state_unit))
    state.commit(before + 1, job.unit, after, answer, question)
    return answer
