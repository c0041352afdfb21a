"""Identity of a unit of work: a hash of everything its result depends on.

A resumed run skips the units whose results it has, and a changed setting redoes exactly what depends on
it. The data enters as a digest that the centre keys with a secret of its own: a plain hash of images
would let anyone test whether an image is among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from federation.wire.job import Job, canonical_json


def digest(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def scenario_digest(resolved: str) -> str:
    """Identity of a study's settings: SHA-256 of its resolved scenario, which centres approve; 64 hex digits."""
    return hashlib.sha256(resolved.encode()).hexdigest()


@dataclass(frozen=True)
class Units:
    """Makes jobs with their ids.

    Attributes:
        study: identity of the study.
        code: digest of the computing code.
        data: keyed digest of a centre's data for a task, by (centre, task).
        platform: what a centre computes with (versions, device, CPU), by centre.
        plugins: those that the study uses, each with name, version and digest; an edited one makes other units.
        place, timeout_s, scenario: passed on in every job, but not part of an id.
        strategy: likewise; that of the arms to which these jobs belong, see `of_strategy`.
    """

    study: str
    code: str
    data: Mapping[tuple[str, str], str]
    platform: Mapping[str, str]
    place: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    scenario: str = ""
    strategy: str = ""
    plugins: Sequence[Mapping[str, str]] = ()

    def of_strategy(self, strategy: str) -> Units:
        """The same, for the jobs of one strategy."""
        return replace(self, strategy=strategy)

    def of_centre(self, centre: str, task: str | None) -> tuple[str, str]:
        """What a long exchange with a centre depends on besides its settings: its data for a task, and its platform."""
        return self.data.get((centre, task), "") if task is not None else "", self.platform.get(centre, "")

    def job(
        self,
        kind: str,
        centre: str,
        task: str | None,
        body: dict[str, Any],
        *,
        inputs: Sequence[str] = (),
        arrays: Mapping[str, np.ndarray] | None = None,
        label: str = "",
    ) -> Job:
        """A job whose id covers kind, body, the centre's data for `task` (None: it uses no data), inputs, code and platform."""
        depends = {
            "kind": kind,
            "centre": centre,
            "body": body,
            "data": self.data.get((centre, task), "unknown") if task is not None else "",
            "inputs": list(inputs),
            "code": self.code,
            "platform": self.platform.get(centre, ""),
        }
        if self.plugins:
            depends["plugins"] = {one["name"]: one["digest"] for one in self.plugins}
        unit = digest(depends)
        return Job(
            self.study,
            unit,
            centre,
            kind,
            body,
            dict(arrays or {}),
            label=label,
            code=self.code,
            place=dict(self.place),
            timeout_s=self.timeout_s,
            scenario=self.scenario,
            strategy=self.strategy,
            plugins=[dict(one) for one in self.plugins],
        )
