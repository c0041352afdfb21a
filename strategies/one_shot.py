"""One-shot generator sharing (paper 000, Szafranowska et al., IWBI 2022).

Each provider trains a generative model on its own patches, alone; the trained generator goes to the receivers
once, and its images take the place of the provider's patients. Differences from the paper: besides its recipe
(an unconditional GAN of lesions), all classes can be shared by a label-conditional model, because adding
only foreign lesions to home healthy patches lets a classifier recognise the centre instead of the lesion.

Longer than most files, because both halves of the strategy and its keys stand together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from basics.seeds import derive_seed
from basics.words import listed
from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange
from federation.wire.job import Job, Reply
from federation.wire.units import Units
from models import GeneratorSpec, PatchArrays, Precision, fit_generative
from strategies import terms
from strategies.ask import Ask
from strategies.bodies import Compute, OfTask
from strategies.cells import MEMORY
from strategies.centre_side import CentreSide, as_arrays, labels_in, trained_on
from strategies.choice import Choice
from strategies.delivery import drawn
from strategies.generative import made_labels
from strategies.keys import BaseArm
from strategies.kind import Answer, Answered, Arrays, Count, Curves, Kind, Sent, Uses, Words
from strategies.kind import Field as AnswerField
from strategies.layouts import PREVIEW, generator_layout, prefixed, preview_layout
from strategies.members import Summary
from strategies.planned import (
    FederationRecord,
    Generated,
    Planned,
    ServerHalf,
    Shared,
    Training,
    problems_of,
    seen_classes,
)
from strategies.strategy import Strategy
from strategies.survey import CARD
from strategies.view import Facts, View, generator_key

WEIGHTS = "weights."
# How often a job that is lost is sent.
_ATTEMPTS = 10


# -- local half --------------------------------------------------------------------------------------------------------


class TrainGenerator(OfTask):
    """Arguments of `train_here`; `name` is the generator's."""

    generator: GeneratorSpec
    name: str
    seed: int
    compute: Compute


def train_here(here: CentreSide, body: TrainGenerator, arrays: Arrays) -> Answer:
    """Train a generative model on this centre's own patches of the classes that it makes, as far as they are here."""
    spec, compute = body.generator, body.compute
    patches = here.patches(body).select(split="train")
    used = patches.select(labels=spec.labels)
    weights, history = trained(
        spec,
        as_arrays(used),
        seed=body.seed,
        **compute.options,
        on_progress=here.progress(),
    )
    preview, labels = drawn(
        spec, weights, dict.fromkeys(labels_in(used), PREVIEW), seed=derive_seed(body.seed, "preview", here.centre), **compute.options,
    )  # fmt: skip
    here.check_copies(used, lambda images, seed: drawn(
        spec, weights, dict.fromkeys(labels_in(used), images), seed=derive_seed(body.seed, seed, here.centre), **compute.options,
    ), preview, labels)  # fmt: skip
    answer = {"history": curves(history), "data_card": patches.data_card(), "trained_on": trained_on(used)}
    sent = {WEIGHTS + name: array for name, array in weights.items()}
    return answer, sent | {"preview.pixels": preview, "preview.labels": labels}


def trained(
    spec: GeneratorSpec, patches: PatchArrays, *, seed: int, device: str, precision: Precision,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, np.ndarray], Any]:  # fmt: skip
    """The sharable weights (the generator alone, its moving average where there is one), and the history.

    Args:
        patches: of the classes that it makes.
    """
    model = spec.build(seed)
    fit = fit_generative(
        model, patches, spec.training, seed=seed, device=device, precision=precision, on_progress=on_progress
    )
    return model.shared_arrays(fit), fit.history


def curves(history: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    """A history as it can travel: JSON knows no NaN, which stands where a lazy phase was not run, or nothing was measured."""
    return {name: [None if math.isnan(value) else value for value in column] for name, column in history.items()}


class Introduced(Answered):
    """What a centre says of itself beside a model, as far as the server computes with it.

    Attributes:
        trained_on: names of the classes, beside counts as they may be shown.
    """

    trained_on: dict[Words, Count | Words | list[Words]]
    data_card: dict[Words, Any]


class TrainedAnswer(Introduced):
    """What is answered of a generator."""

    history: Curves


def card_fields(when: str = "") -> tuple[AnswerField, ...]:
    """What a centre says of itself beside a model."""
    return (
        AnswerField("data_card", "counts", CARD, "counts", when),
        AnswerField("trained_on.boxes", "count", "how many training boxes, rounded to 5", "counts", when),
        AnswerField("trained_on.patients", "count", "how many training patients, rounded to 5", "counts", when),
        AnswerField("trained_on.classes", "names", "classes of which there is a training image", "counts", when),
    )


TRAIN = Kind(
    name="train_generator",
    title="train a generator",
    phase="share",
    body=TrainGenerator,
    work=train_here,
    answer=(*card_fields(), AnswerField("history.*", "lists of numbers", "losses during training", "aggregate")),
    answer_model=TrainedAnswer,
    sends=(
        Sent("weights.*", "weights", f"a generator of synthetic images; {MEMORY}", "model",
             layout=lambda body: prefixed(generator_layout(body.generator), WEIGHTS)),
        Sent("preview.*", "images", "synthetic images for the report, drawn from that generator", "model",
             layout=lambda body: preview_layout(body.generator)),
    ),
    reveals="Whoever has a generator draws from it as often as they like. Some of its images can be near copies of training images; "
    "this node looks for them before it leaves, and finds plain copies only.",
    uses=(Uses("training", terms.generator_training),),
    trains=lambda body: terms.of_generator(body.generator, body.generator.training.steps),
)  # fmt: skip


# -- server half -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneGenerator(ServerHalf[Shared]):
    """Has one generator trained at its provider. Several are several exchanges, which run side by side.

    Attributes:
        step_s: seconds of one training step at speed 1, for a simulated clock.
    """

    units: Units
    clock: Clock
    ask: Ask
    label: str
    step_s: float = 1.0

    def share(self, centres: Centres) -> Exchange[Shared]:
        body, label, centre = self.ask.outline, self.label, self.ask.centre
        job = self.ask.job(self.units, label=label)
        reply, summary = yield from self._answered(job, body.generator.training.steps)
        # An exchange of one job is recorded only where something happened to it.
        records = [] if summary.jobs == 1 and summary.used else [
            FederationRecord(body.name, body.task.name, OneShot.name, "federation", summary.used, summary, self.clock.rows)
        ]  # fmt: skip
        if reply is None:
            return Shared(problems=[f"centre {centre!r} was lost while it trained {label}"], federations=records)
        if not reply.ok:
            return Shared(problems=problems_of([reply]), federations=records)
        card = {key: reply.body[key] for key in ("data_card", "trained_on", "history")}
        made = Generated(reply.unit, body.generator, weights_of(reply), (centre,), card, preview_of(reply),
                         seen_classes(card["trained_on"]))  # fmt: skip
        if not made.labels:
            return Shared(
                problems=[f"centre {centre!r} does not say of which classes {label} learned"], federations=records
            )
        return Shared(generators={(body.name, body.task.name): made}, federations=records)

    def _answered(self, job: Job, steps: int) -> Exchange[tuple[Reply | None, Summary]]:
        """The provider's reply; a job that is lost on the way is sent again."""
        summary, clock = Summary(), self.clock
        while summary.jobs < _ATTEMPTS:
            summary.jobs += 1
            clock.send(job, work_s=steps * self.step_s)
            arrival = yield from clock.next()
            assert arrival is not None, "a job without a time limit ends"
            reply = arrival.reply
            if reply is not None:
                summary.used = int(reply.ok)
                clock.note(arrival, 0, job.kind, "used" if reply.ok else "refused")
                return reply, summary
            summary.lost += 1
            clock.note(arrival, 0, job.kind, arrival.fate.lost or "lost")
            if clock.gone(job.centre):
                summary.gone[job.centre] = clock.now
            if clock.unreachable(job.centre):  # a deployed node has been waited for
                break
        return None, summary


def weights_of(reply: Reply) -> dict[str, np.ndarray]:
    """The generator's weights in a provider's reply (which also holds a preview of synthetic images)."""
    return {name.removeprefix(WEIGHTS): array for name, array in reply.arrays.items() if name.startswith(WEIGHTS)}


def preview_of(reply: Reply) -> tuple[np.ndarray, np.ndarray] | None:
    """The synthetic images of a reply, if it holds some."""
    pixels = reply.arrays.get("preview.pixels")
    return None if pixels is None else (pixels, reply.arrays["preview.labels"])


# -- strategy ----------------------------------------------------------------------------------------------------------


class OneShotArm(BaseArm):
    """Keys of an arm."""

    strategy: Literal["one_shot"]
    generators: tuple[str, ...] = Field(min_length=1)
    choose: Choice | None = Field(None, description="use the best of them; all in equal parts when left out")


class OneShot(Strategy):
    """Each provider's generator goes to the receivers once."""

    name, title, keys, kinds = "one_shot", "generators shared once", OneShotArm, (TRAIN,)

    def problems(self, facts: Facts, name: str, arm: OneShotArm) -> Iterator[str]:
        yield from super().problems(facts, name, arm)
        use = arm.settings(facts.study)
        unknown = [one for one in arm.generators if one not in facts.generators]
        for generator in unknown:
            yield f"arms.{name}.generators: no generator {generator!r}; generators: {listed(facts.generators)}"
        if not unknown:
            yield from self._classes_without_generator(facts, name, arm)
        if arm.choose is not None and len(arm.generators) < 2:
            yield f"arms.{name}.choose: there is one generator and nothing to choose; name two, or remove choose"
        if use.images(len(arm.generators)) < len(arm.generators):
            yield (
                f"arms.{name}.synthetic: {use.synthetic} images from {len(arm.generators)} generators; "
                f"set it or study.synthetic to {len(arm.generators)} or more"
            )

    def _classes_without_generator(self, facts: Facts, name: str, arm: OneShotArm) -> Iterator[str]:
        """Shared classes that none of an arm's generators makes; what a package makes is known when it is read."""
        generators = {one: facts.generators[one] for one in arm.generators}
        if any(generator.package is not None for generator in generators.values()):
            return
        for task in facts.all_tasks:
            serving = {one: g for one, g in generators.items() if g.tasks is None or task.name in g.tasks}
            try:
                shared = arm.settings(facts.study).labels(task.classes)
                made = {one: made_labels(generator, task.classes) for one, generator in serving.items()}
            except ValueError:  # said elsewhere
                continue
            for label in shared if serving else ():
                if not any(label in labels for labels in made.values()):
                    makes = "; ".join(
                        f"{one} makes {', '.join(task.classes[i] for i in own)}" for one, own in made.items()
                    )
                    yield (
                        f"arms.{name}.classes: no generator makes {task.classes[label]!r} ({makes}); set conditional: true there, name it "
                        "in makes, or share other classes"
                    )

    def generators(self, name: str, arm: OneShotArm) -> tuple[str, ...]:
        return arm.generators

    def foreign_generators(self, view: View, name: str, arm: OneShotArm, receiver: str, task: str) -> tuple[str, ...]:
        return tuple(g for g in arm.generators if view.trained_at(g) != receiver and task in view.tasks_of(g))

    def learns_from(self, view: View, arm: OneShotArm) -> tuple[str, ...]:
        return arm.generators

    def chooses(self, arm: OneShotArm) -> Choice | None:
        return arm.choose

    def exchanges(self, view: View, arms: Mapping[str, OneShotArm]) -> list[Planned[Shared]]:
        """Every generator that some arm uses and a centre trains, once for each task that it serves."""
        used = {generator for arm in arms.values() for generator in arm.generators}
        places = [(name, task) for name in view.generators if name in used for task in view.tasks_of(name)]
        return [self._planned(view, name, task, centre) for name, task in places if (centre := view.trained_at(name))]

    def _planned(self, view: View, name: str, task: str, centre: str) -> Planned[Shared]:
        spec = view.generator_spec(name, task)
        assert spec is not None, "a generator that a centre trains has a specification"
        fixed = view.data(centre, task) | {
            "generator": spec, "name": name, "seed": derive_seed(view.seed, f"generator/{name}/{task}", centre),
            "compute": view.compute(centre, generator_key(name, task)),
        }  # fmt: skip
        ask = Ask(TRAIN, self.name, centre, task, fixed, steps=spec.training.steps)
        label = f"{name} ({task})" if len(view.tasks) > 1 else name
        return Planned(
            self.name, (ask,), lambda units, clock: OneGenerator(units, clock, ask, label, view.step_s),
            purpose=f"{name}/{task}", members=(centre,), describes=Training(name, task, spec, (centre,)),
        )  # fmt: skip
