"""Kinds of jobs, strategies and metrics, in words and colours, as the record describes them.

The record of an older run describes none: they are then shown by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from metrics import METRICS

# The first kind of a phase in a figure has the phase's colour.
_PHASE_COLOURS = {"survey": "#A7B0BC", "share": "#0072B2", "learn": "#D55E00", "test": "#CC79A7"}
_OTHERS = (
    "#8C6D1F", "#E69F00", "#009E73", "#56B4E9", "#7A5195", "#3C8D7D", "#B5651D", "#5B6670", "#1F2933",
)  # fmt: skip


@dataclass(frozen=True)
class MetricWords:
    """How a metric is shown; see `metrics.Metric`."""

    title: str
    unit: str = "number"
    higher_is_better: bool = True


@dataclass(frozen=True)
class Kinds:
    """What `RunRecord.kinds` returned, by name, in the order of the study.

    Attributes:
        metrics: of every study, and those of plug-ins that this one measured.
    """

    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strategies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, MetricWords] = field(default_factory=lambda: _metrics([]))

    @classmethod
    def of(cls, recorded: Mapping[str, Sequence[Mapping[str, Any]]]) -> Kinds:
        return cls(
            {entry["kind"]: entry for entry in recorded["kinds"]},
            {entry["strategy"]: entry for entry in recorded["strategies"]},
            _metrics(recorded.get("metrics", [])),
        )

    def title(self, kind: str) -> str:
        """A kind in words."""
        return str(self.kinds[kind]["title"]) if kind in self.kinds else kind.replace("_", " ")

    def strategy_title(self, strategy: str) -> str:
        """A strategy in words; one that is not described is shown as the scenario writes it."""
        return str(self.strategies[strategy]["title"]) if strategy in self.strategies else strategy

    def is_rounds(self, kind: str) -> bool:
        """Whether replies of this kind are averaged and then forgotten, so that a resumed session does not meet them again."""
        return bool(self.kinds.get(kind, {}).get("rounds"))

    def colours(self, kinds: Iterable[str]) -> dict[str, str]:
        """A colour for each of the kinds that occur in one figure, in the order of the study, others by name after them."""
        occur = set(kinds)
        order = [kind for kind in self.kinds if kind in occur] + sorted(occur - set(self.kinds))
        of_phases, others = dict(_PHASE_COLOURS), cycle(_OTHERS)
        phases = {kind: str(self.kinds[kind].get("phase")) if kind in self.kinds else "" for kind in order}
        return {kind: of_phases.pop(phase, "") or next(others) for kind, phase in phases.items()}


def _metrics(recorded: Iterable[Mapping[str, Any]]) -> dict[str, MetricWords]:
    own = {m.name: MetricWords(m.title, m.unit, m.higher_is_better) for m in METRICS.builtin.values()}
    return own | {m["metric"]: MetricWords(m["title"], m["unit"], m["higher_is_better"]) for m in recorded}
