"""The receiver's half of every strategy: learn a classifier from the receiver's own patches and foreign ones.

`use` says how foreign images enter: `mix` (beside the real ones in every batch), `pretrain` (first on foreign
images alone, then fine-tuned on real ones), `pretrain_mix` (first alone, then mixed; the steadiest recipe in our
trials) or `only`. Batches are class-balanced, and within a class a draw comes from the foreign sources with
probability `synthetic_share`, so that the amount of synthetic data does not change the class ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from torch import nn

from models import ClassifierFit, ClassifierTraining, PatchArrays, Precision, Stage, fit_classifier
from strategies.kind import Body

REAL = "real"
# The receiver's own patches of the classes that no foreign image shows, for a first stage on foreign images.
HOME = "home"
# Second stages run at half the rate: they tune what the first stage found.
SECOND_STAGE_RATE = 0.5


class Recipe(Body):
    """How the receiver learns.

    Attributes:
        steps: by stage name (real, pretrain, mix, fine_tune): optimizer steps, or "100 epochs" until `resolved`.
        synthetic_share: share of a class's draws from foreign sources when mixed, or "by_count".
    """

    use: Literal["none", "mix", "pretrain", "pretrain_mix", "only"]
    steps: dict[str, int | str]
    synthetic_share: float | Literal["by_count"]

    @property
    def fewest_steps(self) -> int:
        """Steps of all stages that are run, where an epoch has at least one."""
        stages = {"none": ("real",), "mix": ("mix",), "pretrain": ("pretrain", "fine_tune"), "pretrain_mix": ("pretrain", "mix"),
                  "only": ("pretrain",)}[self.use]  # fmt: skip
        return sum(int(str(self.steps[stage]).split()[0]) for stage in stages)

    def resolved(self, items: int, batch_size: int) -> Recipe:
        """The same in steps; an epoch goes through so many items."""
        per_epoch = max(1, -(-items // batch_size))
        steps = {k: v if isinstance(v, int) else int(v.split()[0]) * per_epoch for k, v in self.steps.items()}
        return self.model_copy(update={"steps": steps})


def stages(recipe: Recipe, sources: Mapping[str, PatchArrays], learning_rate: float) -> list[Stage]:
    """The training stages of a recipe.

    Args:
        sources: "real" and any number of foreign ones by name; their sizes matter for "by_count".
        learning_rate: of a first stage.
    """
    steps = {name: int(value) for name, value in recipe.steps.items()}
    foreign = {name: len(patches.rows) for name, patches in sources.items() if name not in (REAL, HOME)}
    if not foreign or recipe.use == "none":
        return [Stage("real", steps["real"], learning_rate, {REAL: 1.0})]
    total = sum(foreign.values())
    alone = {name: count / total for name, count in foreign.items()}
    if recipe.synthetic_share == "by_count":
        everything = total + len(sources[REAL].rows)
        mixed = {REAL: len(sources[REAL].rows) / everything} | {
            name: count / everything for name, count in foreign.items()
        }
    else:
        mixed = {REAL: 1.0 - recipe.synthetic_share} | {n: recipe.synthetic_share * share for n, share in alone.items()}
    second = learning_rate * SECOND_STAGE_RATE
    # Shares compete within a class only, and these are the stage's only images of theirs.
    home = {HOME: 1.0} if HOME in sources else {}
    pretrain = Stage("pretrain", steps["pretrain"], learning_rate, alone | home)
    return {
        "mix": [Stage("mix", steps["mix"], learning_rate, mixed)],
        "pretrain": [pretrain, Stage("fine_tune", steps["fine_tune"], second, {REAL: 1.0})],
        "pretrain_mix": [pretrain, Stage("mix", steps["mix"], second, mixed)],
        "only": [pretrain],
    }[recipe.use]


def learn(
    network: nn.Module,
    real: PatchArrays,
    foreign: Mapping[str, PatchArrays],
    validation: PatchArrays,
    recipe: Recipe,
    training: ClassifierTraining,
    *,
    seed: int,
    device: str,
    precision: Precision,
    on_progress: Callable[[int, int], None] | None = None,
) -> ClassifierFit:
    """Train one classifier; the best step is chosen on the receiver's validation patches by AUPRC.

    When only lesions are shared, a first stage on foreign images alone would see one class; it is given the receiver's
    own patches of the others, as paper 000 does when it balances the classes.
    """
    sources = {REAL: real, **foreign}
    if foreign and recipe.use in ("pretrain", "pretrain_mix"):
        lacking = sorted(set(labels_in([real])) - set(labels_in(foreign.values())))
        if lacking:
            sources[HOME] = of_labels(real, lacking)
    return fit_classifier(
        network, sources, stages(recipe, sources, training.learning_rate), validation, training,
        seed=seed, device=device, precision=precision, on_progress=on_progress,
    )  # fmt: skip


def labels_of(patches: PatchArrays) -> np.ndarray:
    """int64 (k,): the labels of patches that have some."""
    if patches.labels is None:
        raise ValueError("these patches have no labels; a classifier learns from labelled ones")
    return patches.labels


def labels_in(patches: Iterable[PatchArrays]) -> list[int]:
    """Labels that some of the patches have, ascending."""
    return sorted({label for own in patches for label in np.unique(labels_of(own)).tolist()})


def of_label(patches: PatchArrays, label: int) -> PatchArrays:
    """The patches of one class."""
    return of_labels(patches, [label])


def of_labels(patches: PatchArrays, wanted: Sequence[int]) -> PatchArrays:
    """The patches of some classes."""
    labels = labels_of(patches)
    chosen = np.isin(labels, wanted)
    return PatchArrays(patches.pixels, patches.rows[chosen], labels[chosen])


def oversampled(real: PatchArrays, count: int, rng: np.random.Generator) -> PatchArrays:
    """Control: `count` of the receiver's own positives drawn again, to stand where synthetic lesions would."""
    labels = labels_of(real)
    drawn = rng.choice(np.flatnonzero(labels == 1), size=count, replace=True)
    return PatchArrays(real.pixels, real.rows[drawn], labels[drawn])


def draw_per_class(labels: np.ndarray, counts: Mapping[int, int]) -> np.ndarray:
    """Rows of the first `counts[label]` images of each label: a prefix of a random pool is a random draw."""
    chosen = [np.flatnonzero(labels == label)[:count] for label, count in sorted(counts.items())]
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)


def by_class(patches: PatchArrays) -> dict[int, np.ndarray]:
    """Images of each label that is there, as they are stored (n, c, h, w)."""
    labels = labels_in([patches])
    return {label: np.asarray(patches.pixels[of_label(patches, label).rows]) for label in labels}
