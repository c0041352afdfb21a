"""The receiver's half of every strategy: learn a classifier from the receiver's own patches and foreign ones.

`use` says how foreign images enter: `mix` (beside the real ones in every batch), `pretrain` (first on foreign
images alone, then fine-tuned on real ones), `pretrain_mix` (first alone, then mixed; the steadiest recipe in our
trials) or `only`. Batches are class-balanced, and within a class a draw comes from the foreign sources with
probability `synthetic_share`, so that the amount of synthetic data does not change the class ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from models import ClassifierFit, ClassifierTraining, PatchArrays, Precision, Stage, fit_classifier
from strategies.kind import Body

REAL = "real"
# The receiver's own healthy patches, for a first stage on foreign images of which all are lesions.
HOME_NEGATIVES = "home_negatives"
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
    foreign = {name: len(patches.rows) for name, patches in sources.items() if name not in (REAL, HOME_NEGATIVES)}
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
    # Shares compete within a class only, and these are the stage's only negatives.
    home = {HOME_NEGATIVES: 1.0} if HOME_NEGATIVES in sources else {}
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
    own healthy patches as negatives, as paper 000 does when it balances the classes.
    """
    sources = {REAL: real, **foreign}
    if (
        foreign
        and recipe.use in ("pretrain", "pretrain_mix")
        and not any((labels_of(patches) == 0).any() for patches in foreign.values())
    ):
        sources[HOME_NEGATIVES] = of_label(real, 0)
    return fit_classifier(
        network, sources, stages(recipe, sources, training.learning_rate), validation, training,
        seed=seed, device=device, precision=precision, on_progress=on_progress,
    )  # fmt: skip


def labels_of(patches: PatchArrays) -> np.ndarray:
    """int64 (k,): the labels of patches that have some."""
    if patches.labels is None:
        raise ValueError("these patches have no labels; a classifier learns from labelled ones")
    return patches.labels


def of_label(patches: PatchArrays, label: int) -> PatchArrays:
    """The patches of one class."""
    labels = labels_of(patches)
    return PatchArrays(patches.pixels, patches.rows[labels == label], labels[labels == label])


def oversampled(real: PatchArrays, count: int, rng: np.random.Generator) -> PatchArrays:
    """Control: `count` of the receiver's own positives drawn again, to stand where synthetic lesions would."""
    labels = labels_of(real)
    drawn = rng.choice(np.flatnonzero(labels == 1), size=count, replace=True)
    return PatchArrays(real.pixels, real.rows[drawn], labels[drawn])


def draw_per_class(labels: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Rows of the first `counts[label]` images of each label: a prefix of a random pool is a random draw."""
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)])


def measurements(labels: np.ndarray, probability: np.ndarray, metrics: Mapping[str, Any]) -> dict[str, float]:
    """All metrics of a test set."""
    return {name: float(metric(labels, probability)) for name, metric in metrics.items()}
