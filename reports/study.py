"""What the report needs to know of a study, read from the resolved scenario as plain YAML.

The report is made from the run folder alone, also years later, so it reads the few keys it shows and does not go
through the schema of today.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from basics.bounded_text import SCENARIO, load_yaml
from data_partitions.classes import CLASSES_OF
from reports.kinds import Kinds, MetricWords

Role = Literal["baseline", "candidate", "control", "upper bound"]


@dataclass(frozen=True)
class Arm:
    """One way of sharing, as a row of the table."""

    name: str
    title: str
    strategy: str
    role: Role
    sources: tuple[str, ...]  # generators, or centres whose real patches moved
    pixels: bool = False  # whether real images move
    shares: bool = True  # False where nothing at all is shared
    trains_generator: bool = False  # of its own, so that what the receiver gets is synthetic
    step: str = "training"  # what it counts: "update" of a generator on the server, "round", or one training


@dataclass(frozen=True)
class Study:
    """name, seed and so on as in the scenario; arms in its order; `settings` is the whole resolved scenario."""

    name: str
    description: str
    seed: int
    repeats: int
    centres: dict[str, dict[str, Any]]
    arms: dict[str, Arm]
    generators: dict[str, dict[str, Any]]
    classes: dict[str, tuple[str, ...]]  # task -> names of its classes, in the order of their labels
    settings: dict[str, Any]
    metrics: Mapping[str, MetricWords] = field(default_factory=lambda: Kinds().metrics)

    def made(self, generator: str, task: str) -> tuple[str, ...]:
        """Names of the classes that a generator makes, as the scenario says; empty where it does not, as of a package."""
        found, classes = self.generators.get(generator, {}), self.classes.get(task, ())
        if found.get("makes"):
            return tuple(found["makes"])
        return classes if found.get("conditional") else classes[-1:] if found.get("model") else ()

    @property
    def baseline(self) -> Arm | None:
        """The arm that all others are compared with: the first in which nothing is shared."""
        return next((arm for arm in self.arms.values() if arm.role == "baseline"), None)

    def arm(self, name: str, strategy: str = "") -> Arm:
        """The arm of that name; one that the scenario does not have (an edited file) is shown as a candidate."""
        return self.arms.get(name) or Arm(name, "", strategy, "candidate", ())


def read_study(scenario_yaml: str, kinds: Kinds | None = None) -> Study:
    """Read the resolved scenario.

    kinds: what the record says of strategies. Of those it does not describe, the keys of their arms show whether they share
    anything, and whether real images move to the receiver.
    """
    settings = load_yaml(scenario_yaml, SCENARIO) or {}
    arms: dict[str, Arm] = {}
    for name, entry in (settings.get("arms") or {}).items():
        has_baseline = any(arm.role == "baseline" for arm in arms.values())
        arms[name] = _arm(name, entry, kinds or Kinds(), has_baseline)
    tasks = settings.get("tasks") or [settings["task"]] if settings.get("tasks") or settings.get("task") else []
    return Study(
        name=str(settings.get("name", "")),
        description=str(settings.get("description") or ""),
        seed=settings.get("seed", 0),
        repeats=settings.get("repeats", 0),
        centres=settings.get("centres") or {},
        arms=arms,
        generators=(settings.get("generators") or {}) | _trained_together(settings),
        classes={
            str(t.get("name") or t.get("label")): tuple(t.get("classes") or CLASSES_OF.get(t.get("label", ""), ()))
            for t in tasks
        },
        settings=settings,
        metrics=(kinds or Kinds()).metrics,
    )


def _trained_together(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Generators that an arm trains at several centres; they have the arm's name."""
    providers = [
        name for name, centre in (settings.get("centres") or {}).items() if "provider" in centre.get("roles", ())
    ]
    return {
        name: {key: arm.get(key) for key in ("model", "conditional", "makes")} | {"together": arm.get("centres") or providers}
        for name, arm in (settings.get("arms") or {}).items() if arm.get("model")
    }  # fmt: skip


def _arm(name: str, entry: dict[str, Any], kinds: Kinds, has_baseline: bool) -> Arm:
    strategy = entry.get("strategy", "")
    described = kinds.strategies.get(strategy, {})
    shares = described.get("shares", any(entry.get(key) for key in ("generators", "centres", "model", "rounds")))
    pixels = described.get("pixels", bool(entry.get("centres")) and not (entry.get("model") or entry.get("rounds")))
    role: Role = "candidate"
    # A receiver's own positives drawn again share nothing, yet they are there for "more images", not for "no sharing".
    if entry.get("control") or entry.get("oversample"):
        role = "control"
    elif not shares:
        role = "candidate" if has_baseline else "baseline"
    elif pixels:  # also where the receiver gets synthetic images, if the generator's real images had to move first
        role = "upper bound"
    sources = tuple(entry.get("generators") or entry.get("centres") or ())
    step = "update" if entry.get("updates") else "round" if entry.get("rounds") else "training"
    title = entry.get("title") or str(described.get("title", ""))
    return Arm(name, title, strategy, role, sources, pixels, shares, bool(entry.get("model")), step)
