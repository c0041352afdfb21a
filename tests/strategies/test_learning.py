"""How foreign images enter: stages, shares, home negatives, controls. Closed forms; one tiny training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ClassifierSpec, ClassifierTraining, PatchArrays
from models.stages import BalancedDraws
from strategies.learning import HOME, Recipe, draw_per_class, learn, oversampled, stages
from strategies.planned import split_evenly

STEPS = {"real": 3, "mix": 4, "pretrain": 5, "fine_tune": 2}


def patches(labels, value=0):
    labels = np.asarray(labels)
    return PatchArrays(np.full((len(labels), 1, 16, 16), value, np.uint8), np.arange(len(labels)), labels)


def recipe(use, share=0.4):
    return Recipe(use=use, steps=STEPS, synthetic_share=share)


BOTH = {"real": patches([0, 1] * 10), "g": patches([0, 1] * 15), "h": patches([0, 1] * 5)}


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("mix", [("mix", 4, 1.0)]),
        ("pretrain", [("pretrain", 5, 1.0), ("fine_tune", 2, 0.5)]),
        ("pretrain_mix", [("pretrain", 5, 1.0), ("mix", 4, 0.5)]),
        ("only", [("pretrain", 5, 1.0)]),
        ("none", [("real", 3, 1.0)]),
    ],
)
def test_stages_of_a_recipe(use, expected):
    assert [(s.name, s.steps, s.learning_rate) for s in stages(recipe(use), BOTH, 1.0)] == expected


@given(share=st.floats(0.05, 0.95), real=st.integers(2, 50), first=st.integers(2, 50), second=st.integers(2, 50))
def test_foreign_sources_have_their_share_in_proportion_to_their_size(share, real, first, second):
    sources = {"real": patches([0, 1] * real), "g": patches([0, 1] * first), "h": patches([0, 1] * second)}
    (stage,) = stages(recipe("mix", share), sources, 1.0)
    assert sum(stage.shares.values()) == pytest.approx(1.0)
    assert stage.shares["real"] == pytest.approx(1 - share)
    assert stage.shares["g"] / stage.shares["h"] == pytest.approx(first / second)
    (stage,) = stages(recipe("mix", "by_count"), sources, 1.0)
    assert stage.shares["real"] == pytest.approx(real / (real + first + second))


def test_lesions_only_leave_the_negatives_real_and_the_classes_balanced():
    """The paper's recipe: foreign positives, home negatives, balance by the receiver's own healthy patches."""
    sources = {"real": patches([0] * 30 + [1] * 10, value=1), "g": patches([1] * 40, value=2)}
    (stage,) = stages(recipe("mix", 0.4), sources, 1.0)
    images, labels = BalancedDraws(sources, stage).batch(4000, np.random.default_rng(0))
    origin = images[:, 0, 0, 0].numpy()
    assert (labels == 1).sum() == 2000
    assert set(origin[labels.numpy() == 0]) == {1}
    assert (origin[labels.numpy() == 1] == 2).mean() == pytest.approx(0.4, abs=0.04)


def test_a_first_stage_on_lesions_alone_is_given_home_negatives():
    real, lesions = patches([0] * 20 + [1] * 12), patches([1] * 16)
    spec = ClassifierSpec(model="cnn_small", image_size=16, channels=1, num_classes=2)
    fit = learn(
        spec.build(0), real, {"g": lesions}, patches([0, 1] * 4), recipe("pretrain_mix"),
        ClassifierTraining(batch_size=4, validate_every=2), seed=0, device="cpu", precision="fp32",
    )  # fmt: skip
    assert set(fit.history["stage"]) == {"pretrain", "mix"}
    sources = {"real": real, "g": lesions, HOME: patches([0] * 20)}
    pretrain, mix = stages(recipe("pretrain_mix"), sources, 1.0)
    assert set(pretrain.shares) == {"g", HOME}
    assert HOME not in mix.shares


def test_oversampling_draws_own_positives_only():
    real = patches([0] * 6 + [1] * 3)
    again = oversampled(real, 50, np.random.default_rng(0))
    assert len(again) == 50 and set(again.labels) == {1} and set(again.rows) <= {6, 7, 8}


@given(counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_pool_is_used_by_prefix_per_class(counts):
    labels = np.array([0] * 9 + [1] * 9)
    rows = draw_per_class(labels, dict(enumerate(counts)))
    assert np.bincount(labels[rows], minlength=2).tolist() == list(counts)
    assert rows.tolist() == [*range(counts[0]), *range(9, 9 + counts[1])]


@given(total=st.integers(1, 2000), parts=st.integers(1, 12))
def test_several_generators_share_the_number_evenly(total, parts):
    found = split_evenly(total, parts)
    assert len(found) == parts and sum(found) == total and max(found) - min(found) <= 1
