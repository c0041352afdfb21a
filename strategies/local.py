"""Nothing is shared: the receiver's own patches. The baseline of every comparison, and its controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from strategies.keys import BaseArm
from strategies.strategy import Strategy
from strategies.view import Facts, View


class LocalArm(BaseArm):
    """Keys of an arm."""

    strategy: Literal["local"]
    oversample: int | None = Field(
        None,
        ge=1,
        description="control: this many of the receiver's own positives drawn again in place of synthetic ones",
    )


class Local(Strategy):
    """Asks for nothing but the receivers' cells."""

    name, title, keys = "local", "own data only", LocalArm

    @property
    def shares(self) -> bool:
        return False

    def problems(self, facts: Facts, name: str, arm: LocalArm) -> Iterator[str]:
        yield from super().problems(facts, name, arm)
        for task in facts.all_tasks if arm.oversample else ():
            if len(task.classes) > 2:
                yield (
                    f"arms.{name}.oversample: draws own positives again, and task {task.name!r} has {len(task.classes)} classes; remove "
                    "it, or give it a study of two classes"
                )

    def runs_at(self, view: View, name: str, arm: LocalArm, receiver: str, task: str) -> bool:
        return True

    def oversample(self, arm: LocalArm) -> int | None:
        return arm.oversample

    def needs_pools(self) -> bool:
        return False

    def learns_from(self, view: View, arm: Any) -> list[str]:
        return []
