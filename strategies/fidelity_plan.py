"""How a federation has its generator measured: the reference of all members, and measurements on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from basics.seeds import derive_seed
from federation.secure_sum.fixed_point import added
from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange, gather
from federation.wire.job import Reply
from federation.wire.units import Units, digest
from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums, frechet_distance
from models import GeneratorSpec
from strategies.ask import Ask, Check, anything
from strategies.fidelity import _REFERENCE, _WEIGHTS, FEATURE_SUMS, HALVES, MEASURE, SUMMED_FEATURES, from_ring, sum_up
from strategies.keys import FidelityChoice, GenerativeArm
from strategies.members import FederationFailed, RoundSettings, Summary
from strategies.sum_rounds import SumRounds
from strategies.sums import SUMMED_FREE, Sums
from strategies.view import View, generator_key

_LABEL = "features of real patches"
_SESSIONS = 6  # of a sum of features that a centre takes part in


@dataclass(frozen=True)
class Reference:
    """Real images of all members, as sums.

    Attributes:
        arrays: sums by feature space.
        floors: distance between the halves, by metric.
        images: training boxes of each member, rounded: its weight.
        labels_of: labels that its patches have.
        units: ids of what it was made from.
        notes: what is otherwise than one might think.
    """

    arrays: dict[str, np.ndarray]
    floors: dict[str, float]
    images: dict[str, int]
    labels_of: dict[str, tuple[int, ...]]
    units: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def classes(self, spec: GeneratorSpec) -> tuple[str, ...] | None:
        """Names of the classes that some member's patches have; None where nobody was asked."""
        return tuple(spec.classes[label] for label in self.labels) if self.labels_of else None

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels that some member's patches have."""
        return tuple(sorted({label for labels in self.labels_of.values() for label in labels}))


@dataclass(frozen=True)
class Fidelity:
    """What is measured of a federation, and where.

    Attributes:
        task: of the patches.
        choice: how often, with how many images, in which feature spaces.
        sums: what is asked of each member; nothing where no feature space is named and nobody needs their numbers or classes.
        measurements: what is asked of the centre that draws and measures: (on the way, at the end).
        together: how the members' answers are summed; None: the server sees each.
    """

    task: str
    choice: FidelityChoice
    sums: tuple[Ask, ...]
    measurements: tuple[Ask, Ask]
    together: Sums | None = None

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All that measuring asks for."""
        return (*self.of_members, *self.measuring)

    @property
    def of_members(self) -> tuple[Ask, ...]:
        """What the reference asks of the members."""
        return self.sums if self.together is None else (*self.sums, *self.together.every_ask)

    @property
    def measuring(self) -> tuple[Ask, ...]:
        """What is asked of the centre that draws and measures."""
        return tuple(ask for ask in self.measurements if ask.times)

    @property
    def identity(self) -> list[Any]:
        """What a result depends on."""
        return [self.choice.model_dump(mode="json"), self.measurements[0].json]

    def due(self, number: int, last: int) -> bool:
        """See `is_due`."""
        return is_due(self.choice, number, last)

    def reference(self, units: Units, centres: Centres, clock: Clock) -> Exchange[Reference]:
        """Ask all members for their sums.

        Raises:
            FederationFailed: a member does not answer; the run can be resumed.
        """
        if self.together is None:
            replies = yield from gather([ask.job(units, label=_LABEL) for ask in self.sums])
            _refuse_missing(replies)
            parts = [reply.arrays for reply in replies]
        elif not self.together.masked:
            free: dict[str, Any] = {"session": "", "shares": {}, "attempt": 0}
            replies = yield from gather([ask.job(units, label=_LABEL, **free) for ask in self.sums])
            _refuse_missing(replies)
            parts = [from_ring(added(reply.arrays for reply in replies))]
        else:
            replies, total = yield from self._masked(units, centres, clock, self.together)
            parts = [from_ring(total)]
        try:
            return self._reference(replies, parts, units)
        except (ArithmeticError, KeyError, TypeError, ValueError) as problem:
            raise FederationFailed(f"sums of features cannot be used: {problem}") from None

    def _masked(
        self, units: Units, centres: Centres, clock: Clock, sums: Sums
    ) -> Exchange[tuple[list[Reply], dict[str, np.ndarray]]]:
        """All members' answers, and their sum; of fewer it would be another reference."""
        settings, summary = RoundSettings(rounds=1, local_steps=1, attempts=1), Summary()
        masks = SumRounds(
            units, centres, clock, key=digest([sums.of, [ask.json for ask in self.sums]]), label=_LABEL, sums=sums, settings=settings,
        )  # fmt: skip
        replies: list[Reply] = []
        for _ in range(settings.attempts + 1):
            group = yield from masks.prepared(0, sums.members, summary)
            if set(group) == set(sums.members):
                jobs = [
                    ask.job(units, label=_LABEL, attempt=masks.attempt, **masks.found(ask.centre)) for ask in self.sums
                ]
                replies = yield from gather(jobs)
                if masks.decided or all(reply.ok for reply in replies):
                    _refuse_missing(replies)
                    total = yield from masks.opened({reply.centre: reply for reply in replies}, summary)
                    return replies, total
            masks.again()
        _refuse_missing(replies)
        refused = f" ({', '.join(summary.refused)})" if summary.refused else ""
        raise FederationFailed(
            f"sums of features need all of {', '.join(sums.members)}{refused}; bring them back and resume"
        )

    def _reference(
        self, replies: Sequence[Reply], parts: Sequence[Mapping[str, np.ndarray]], units: Units
    ) -> Reference:
        """
        Args:
            parts: sums of halves, which are added up.
        """
        arrays: dict[str, np.ndarray] = {}
        floors: dict[str, float] = {}
        for space in self.choice.spaces:
            halves = [sum_up([FeatureSums.from_arrays(part, f"{space}.{half}") for part in parts]) for half in HALVES]
            arrays |= (halves[0] + halves[1]).to_arrays(space)
            floors[FEATURE_SPACES[space].distance] = frechet_distance(*halves)
        images = {reply.centre: int(reply.body["images"]) for reply in replies}
        asked = self.sums[0].fixed["labels"] if self.sums else ()
        labels = {reply.centre: tuple(label for label in asked if label in reply.body["labels"]) for reply in replies}
        without = [centre for centre, own in labels.items() if not own]
        if without:
            raise ValueError(f"centre {without[0]!r} says that it has images of no class")
        made_from = tuple(reply.unit for reply in replies)
        if self.together is not None:  # ids of masked answers belong to a session, whatever was summed
            made_from = tuple(digest([ask.json, *units.of_centre(ask.centre, ask.task)]) for ask in self.sums)
        notes = tuple(
            f"centre {reply.centre!r} compares generators with the patients of an earlier study: fewer than 20 have come since"
            for reply in replies
            if reply.body.get("earlier_cohort")
        )
        return Reference(arrays, floors, images, labels, made_from, notes)

    def measurement(self, units: Units, reference: Reference, identity: str, weights: Mapping[str, np.ndarray],
                    *, preview: bool, label: str) -> Exchange[Reply]:  # fmt: skip
        """Have a generator measured; with `preview` the reply holds some of its images.

        Raises:
            FederationFailed: it was not.
        """
        arrays = {_WEIGHTS + name: array for name, array in weights.items()}
        arrays |= {_REFERENCE + name: array for name, array in reference.arrays.items()}
        ask = self.measurements[preview]
        classes = {"labels": reference.labels} if "labels" in ask.free else {}
        job = ask.job(units, inputs=[identity, *reference.units], arrays=arrays, label=label, **classes)
        (reply,) = yield from gather([job])
        found = reply.body.get("distances")
        wanted = {FEATURE_SPACES[space].distance for space in self.choice.spaces}
        if not reply.ok:
            raise FederationFailed(f"{label}: centre {reply.centre!r} could not measure it ({reply.code})")
        if not isinstance(found, dict) or set(found) != wanted or not all(isinstance(v, float) for v in found.values()):
            raise FederationFailed(f"{label}: centre {reply.centre!r} sent no distances")
        return reply


def planned_fidelity(
    view: View, strategy: str, name: str, arm: GenerativeArm, task: str, spec: GeneratorSpec, last: int,
    *, counts: bool = False, together: Sums | None = None,
) -> Fidelity:  # fmt: skip
    """How an arm's generator is measured: against all members' training patches, at the first receiver.

    Args:
        last: rounds, or updates.
        counts: whether the members' numbers of patches are needed before the first round.
        together: how the members' sums of features are summed; None: the server sees each.
    """
    choice, at = arm.fidelity, (arm.receivers or view.receivers)[0]
    sums = []
    together = together if choice.spaces else None
    kind, free_sum = (FEATURE_SUMS, {}) if together is None else (SUMMED_FEATURES, SUMMED_FREE | {"attempt": anything})
    # Of more than two classes the members also say which of them they have.
    for centre in view.members(arm) if choice.spaces or counts or len(spec.classes) > 2 else ():
        fixed = view.data(centre, task) | {
            "labels": spec.labels, "spaces": choice.spaces, "fewest_patients": choice.fewest_patients,
        }  # fmt: skip
        if together is not None:
            fixed |= {**together.fixed, "round": 0}
        # Of a session that came to nothing the answer is masked anew.
        sums.append(Ask(kind, strategy, centre, task, fixed, free_sum, at_most=None if together is None else _SESSIONS))
    fixed = {
        "generator": spec, "seed": derive_seed(view.seed, f"fidelity/{task}", at),
        "compute": view.compute(at, generator_key(name, task)), "images": choice.images, "spaces": choice.spaces,
    }  # fmt: skip
    free: dict[str, Check] = {}
    if len(spec.classes) > 2:  # a class that no member has is not drawn
        free["labels"] = lambda body: bool(body.labels) and set(body.labels) <= set(spec.labels)
    else:
        fixed["labels"] = spec.labels
    asks = [
        Ask(MEASURE, strategy, at, None, fixed | {"preview": preview}, free, times=times)
        for preview, times in ((False, sum(is_due(choice, number, last) for number in range(1, last))), (True, 1))
    ]
    return Fidelity(task, choice, tuple(sums), (asks[0], asks[1]), together)


def _refuse_missing(replies: Sequence[Reply]) -> None:
    bad = [reply for reply in replies if not reply.ok]
    if bad:
        raise FederationFailed(f"centre {bad[0].centre!r} did not send sums of features ({bad[0].code})")


def is_due(choice: FidelityChoice, number: int, last: int) -> bool:
    """Whether the generator is measured after round `number` of `last`; after the last it always is."""
    return number == last or (bool(choice.spaces) and number % choice.every == 0)
