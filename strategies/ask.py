"""What a plan asks of a centre: jobs of some kind, as far as the scenario fixes them.

An exchange fills an ask in and sends it, the predicted messages count it, a hospital's page lists it, and a node compares what
arrives with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from federation.wire.job import Job, canonical_json
from federation.wire.units import Units, digest
from strategies.kind import BadBody, Kind, layout_bytes

Check = Callable[[Any], bool]


def anything(body: Any) -> bool:
    """The check of a key that is found out on the way: any value of its type."""
    return True


@dataclass(frozen=True)
class Ask:
    """A job that a study asks of a centre, once or many times, as far as the scenario fixes it.

    The strategy's exchange fills in the rest and sends it; the predicted messages count it; a hospital's page lists it; and a
    node compares what arrives with it.

    Attributes:
        strategy: of the arm; empty for what is done for all arms together.
        task: whose data the job depends on; None: it uses none.
        fixed: values of the body that the scenario fixes.
        free: the other keys of the body, each with a check of its value in the whole body.
        times: how many such jobs a run without faults sends.
        at_most: how many different ones a centre answers; as many as `times` when left out.
        reach: how far the weights that it brings move from one number to the next, as the largest change of one weight; None:
            nobody can tell.
        same: jobs of one kind at one centre with an equal `same` are one job, however many arms ask for it. None: jobs that
            build on nothing are one where they are equal, and any other is its own.
        steps: training steps of generative models that each job asks for.
        example: values of free keys on which the size of the arrays depends.
        extra_down, extra_up: bytes of arrays that only some of the jobs have, of all jobs together.
    """

    kind: Kind
    strategy: str
    centre: str
    task: str | None
    fixed: Mapping[str, Any]
    free: Mapping[str, Check] = field(default_factory=dict)
    times: int = 1
    at_most: int | None = None
    reach: float | None = None
    same: str | None = None
    steps: int = 0
    example: Mapping[str, Any] = field(default_factory=dict)
    extra_down: int = 0
    extra_up: int = 0

    def __post_init__(self) -> None:
        wanted, given = set(self.kind.body.model_fields), {*self.fixed, *self.free}
        assert wanted == given and not set(self.fixed) & set(self.free), (
            f"{self.kind.name}: {sorted(wanted ^ given)} differ from the declared body"
        )
        assert set(self.example) <= set(self.free), f"{self.kind.name}: an example is of a free key"

    @property
    def identity(self) -> str | None:
        """Equal for asks of one kind at one centre that are the same job; None: it is its own."""
        if self.same is None and self.times == 1 and not self.free and not self.kind.receives:
            return canonical_json(self.json)
        return self.same

    @property
    def series(self) -> str:
        """Id of what is asked here; the jobs of one ask are one series."""
        return digest([self.kind.name, self.strategy, self.centre, self.json])

    @property
    def limit(self) -> int:
        """How many different jobs of this ask a centre answers."""
        return self.times if self.at_most is None else self.at_most

    @property
    def outline(self) -> Any:
        """The body as far as it is known; what is free and has no example is not an attribute of it."""
        return self.kind.body.model_construct(**self.fixed, **self.example)

    @property
    def json(self) -> dict[str, Any]:
        """The fixed part as it travels."""
        return self.kind.body.model_construct(**self.fixed).model_dump(
            mode="json", include=set(self.fixed), warnings=False
        )

    def filled(self, **found: Any) -> dict[str, Any]:
        """The body of one job, as it travels."""
        return self.kind.parse({**self.fixed, **found}).model_dump(mode="json")

    def job(self, units: Units, *, inputs: Sequence[str] = (), arrays: Mapping[str, np.ndarray] | None = None, label: str = "",
            **found: Any) -> Job:  # fmt: skip
        """One job of this ask.

        Args:
            found: values of the free keys.
        """
        body = self.filled(**found)
        return units.job(self.kind.name, self.centre, self.task, body, inputs=inputs, arrays=arrays, label=label)

    @property
    def bytes_down(self) -> int | None:
        """Bytes of arrays of each job; None where they cannot be known before the survey."""
        return layout_bytes(self.kind.layout_in(self.outline))

    @property
    def bytes_up(self) -> int | None:
        """Bytes of arrays of each answer; likewise."""
        return layout_bytes(self.kind.layout_out(self.outline))

    def difference(self, strategy: str, body: Mapping[str, Any]) -> list[str]:
        """Keys in which a job differs from this ask, in the body's order; empty for a job that is this one.

        The device is the centre's own affair and the precision was measured; of `compute` only the threads are compared.
        """
        differing = [] if strategy == self.strategy else ["strategy"]
        for key, wanted in self.json.items():
            if key == "compute":
                differing += _compute_differs(wanted, body.get(key))
            elif key not in body or not _same(body[key], wanted):
                differing.append(key)
        differing += sorted(set(body) - set(self.fixed) - set(self.free))
        differing += [key for key in self.free if key not in body]
        if differing:
            return differing
        try:
            parsed = self.kind.parse(body)
        except BadBody as problem:
            return [problem.key.partition(".")[0]]
        read = parsed.model_dump(mode="json", include=set(self.free))  # 3, where "3" was written
        return [key for key, holds in self.free.items() if not _same(body[key], read[key]) or not holds(parsed)]


def _same(value: Any, wanted: Any) -> bool:
    try:
        return canonical_json(value) == canonical_json(wanted)
    except (TypeError, ValueError):
        return False


def _compute_differs(wanted: Mapping[str, Any], given: Any) -> list[str]:
    if not isinstance(given, Mapping) or set(given) != set(wanted):
        return ["compute"]
    return [] if given["threads"] == wanted["threads"] else ["compute.threads"]


def distinct(asks: Iterable[Ask]) -> list[Ask]:
    """The asks, each job once."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for ask in asks:
        identity = ask.identity
        key = (ask.kind.name, ask.centre, identity or "")
        if identity is not None and key in seen:
            continue
        seen.add(key)
        kept.append(ask)
    return kept
