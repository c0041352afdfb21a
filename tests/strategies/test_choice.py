"""Choosing among generators: closed forms of shares, counts and distances, and what a cell makes of them at the receiver."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from clients.node import Node
from clients.side import NodeSide
from data_partitions import DataError
from federation.wire.job import Job
from metrics.feature_spaces import FEATURE_SPACES, FeatureSpace
from models import ClassifierSpec, ClassifierTraining
from strategies import choice, learning
from strategies.cells import LEARN
from strategies.choice import Choice, counts, distances, gains, shares

names = st.text("abcdefg", min_size=1, max_size=3)
scores = st.dictionaries(names, st.floats(-1, 1), min_size=1, max_size=6)
positive = st.dictionaries(names, st.floats(1e-6, 1e6), min_size=1, max_size=6)


# -- shares --------------------------------------------------------------------------------------------------


def test_the_nearest_are_selected_in_equal_parts_and_equal_distances_go_by_name():
    apart = {"far": 9.0, "b": 1.0, "a": 1.0}
    assert shares(Choice(by="distance"), apart) == {"a": 1.0}
    assert shares(Choice(by="distance", keep=2), apart) == {"a": 0.5, "b": 0.5}
    assert shares(Choice(by="distance", keep=9), apart) == pytest.approx(dict.fromkeys(apart, 1 / 3))


def test_weights_are_inverse_to_distance_and_proportional_to_gain():
    assert shares(Choice(by="distance", how="weight"), {"a": 1.0, "b": 3.0}) == pytest.approx({"a": 0.75, "b": 0.25})
    gained = {"a": 0.01, "b": 0.03, "worse": -0.2, "same": 0.0}
    assert shares(Choice(by="validation", how="weight"), gained) == pytest.approx({"b": 0.75, "a": 0.25})
    assert shares(Choice(by="validation", keep=3), gained) == {"b": 0.5, "a": 0.5}, "who does not gain is not kept"


def test_a_distance_of_zero_takes_everything_and_divides_by_nothing():
    found = shares(Choice(by="distance", how="weight"), {"same": 0.0, "other": 2.0})
    assert found["same"] == pytest.approx(1) and math.isfinite(found["other"])


@given(scores=scores, how=st.sampled_from(["select", "weight"]), keep=st.integers(1, 4))
def test_on_validation_none_is_chosen_where_no_one_gains(scores, how, keep):
    losses = {source: -abs(score) for source, score in scores.items()}
    assert shares(Choice(by="validation", how=how, keep=keep), losses) == {}
    found = shares(Choice(by="validation", how=how, keep=keep), scores)
    assert set(found) <= {source for source, gain in scores.items() if gain > 0}
    assert bool(found) == any(gain > 0 for gain in scores.values())


@given(scores=positive, by=st.sampled_from(["distance", "validation"]), how=st.sampled_from(["select", "weight"]),
       keep=st.integers(1, 4))  # fmt: skip
def test_shares_sum_to_one_and_the_better_never_gets_less(scores, by, how, keep):
    found = shares(Choice(by=by, how=how, keep=keep), scores)
    assert sum(found.values()) == pytest.approx(1)
    assert len(found) == (min(keep, len(scores)) if how == "select" else len(scores))
    kept = [scores[source] for source in found]
    left = [scores[source] for source in scores if source not in found]
    assert all(k <= other if by == "distance" else k >= other for k in kept for other in left)
    for a, b in itertools.combinations(found, 2):
        assert (found[a] - found[b]) * (scores[a] - scores[b]) * (-1 if by == "distance" else 1) >= 0


# -- counts --------------------------------------------------------------------------------------------------


def test_images_that_are_left_over_go_to_the_largest_remainders_then_by_name():
    assert counts(10, {"a": 0.55, "b": 0.27, "c": 0.18}) == {"a": 5, "b": 3, "c": 2}  # 5.5, 2.7, 1.8
    assert counts(8, {"c": 1 / 3, "b": 1 / 3, "a": 1 / 3}) == {"a": 3, "b": 3, "c": 2}
    assert counts(7, {"only": 1.0}) == {"only": 7}
    assert counts(7, {}) == {}


@given(total=st.integers(0, 3000), worth=positive)
def test_counts_sum_to_the_total_and_differ_from_their_share_by_less_than_one(total, worth):
    share_of = {source: value / sum(worth.values()) for source, value in worth.items()}
    found = counts(total, share_of)
    assert found.keys() == share_of.keys() and sum(found.values()) == total
    exact = {source: total * share for source, share in share_of.items()}
    assert all(abs(found[source] - exact[source]) < 1 for source in found)
    # Largest remainder: who was rounded up had no smaller remainder than who was rounded down.
    up = [exact[s] - math.floor(exact[s]) for s in found if found[s] > math.floor(exact[s])]
    down = [exact[s] - math.floor(exact[s]) for s in found if found[s] == math.floor(exact[s])]
    assert not up or not down or min(up) >= max(down)


# -- distances and gains -------------------------------------------------------------------------------------


@pytest.fixture
def grey(monkeypatch):
    """A feature space of two known numbers: the pixels in two corners of an image."""
    space = FeatureSpace("corners", "two corners", 2, lambda images: images[:, 0, [0, -1], [0, -1]].astype(np.float64))
    monkeypatch.setitem(FEATURE_SPACES, "corners", space)


def images_with(first, second):
    """uint8 (n, 1, 16, 16) whose features are these."""
    images = np.zeros((len(first), 1, 16, 16), np.uint8)
    images[:, 0, 0, 0], images[:, 0, -1, -1] = first, second
    return images


def test_distance_in_a_space_of_two_numbers_is_the_closed_form(grey):
    """Shifted copies are |shift|^2 apart."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(40, 60, (2, 50))
    own = {0: images_with(a, b), 1: images_with(b, a)}
    apart = distances(
        own,
        {
            "same": own,
            "shifted": {1: images_with(b + 3, a + 4)},
            "wider": {1: images_with(3 * (b - 40), np.full(50, int(a[0])))},
        },
        "corners",
    )
    assert apart["same"] == pytest.approx(0, abs=1e-9)
    assert apart["shifted"] == pytest.approx(25)
    both = {0: images_with(a + 2, b), 1: images_with(b + 3, a + 4)}
    assert distances(own, {"mean of classes": both}, "corners")["mean of classes"] == pytest.approx((4 + 25) / 2)
    # Beside a pool of one class, only that class can be compared; and one image of a class tells nothing of its spread.
    beside = distances(own | {2: images_with([9], [9])}, {"both": both, "one": {1: both[1], 2: both[0]}}, "corners")
    assert beside["both"] == beside["one"] == pytest.approx(25)
    # One coordinate thrice as wide, the other without spread: by the formula, with a root of the matrices.
    real, other = np.stack([b, a], 1).astype(float), np.stack([3 * (b - 40), np.full(50, int(a[0]))], 1).astype(float)
    c, d = np.cov(real.T), np.cov(other.T)
    root = sqrtm(c)
    shift = real.mean(0) - other.mean(0)
    expected = shift @ shift + np.trace(c + d - 2 * np.real(sqrtm(root @ d @ root)))
    assert apart["wider"] == pytest.approx(expected, rel=1e-6)


def test_a_pool_without_a_class_that_the_receiver_has_is_refused_by_name(grey):
    images = images_with([1, 2, 3], [4, 5, 7])
    with pytest.raises(ValueError, match="pools 'x' and the receiver have no class with two images in common"):
        distances({0: images, 1: images[:0]}, {"x": {0: images[:0], 1: images}}, "corners")


def test_a_gain_is_the_difference_to_the_own_patches_alone_which_are_trained_once():
    asked = []

    def auprc_with(source):
        asked.append(source)
        return {None: 0.5, "a": 0.75, "b": 0.25}[source]

    assert gains({"a": 1, "b": 2}, auprc_with) == {"a": 0.25, "b": -0.25}
    assert asked == [None, "a", "b"]


# -- a cell at the receiver ----------------------------------------------------------------------------------


class Cell:
    """A job `learn_classifier` at centre A with pools in its workspace; counts what is trained on and which splits are looked at."""

    def __init__(self, patches, folder, monkeypatch, own_data, compute):
        self.own = own_data | {"compute": compute}
        self.node, self.trained, self.splits, self.compared = Node("A", folder, folder), [], [], []
        self.patches = patches
        monkeypatch.setattr("clients.side.load_patches", lambda node, body, task: patches)
        self.rng = np.random.default_rng(0)
        learn, select, compare = learning.learn, type(patches).select, choice.distances

        def learned(network, real, foreign, validation, *arguments, **options):
            labels = {s: np.bincount(p.labels, minlength=2).tolist() for s, p in foreign.items() if len(p)}
            self.trained.append(labels)
            self.seen = (real, validation)
            return learn(network, real, foreign, validation, *arguments, **options)

        def selected(whole, split=None, **options):
            self.splits.append((split, len(self.trained)))
            return select(whole, split=split, **options)

        def compared(own, pools, space):
            self.compared.append((own, pools))
            return compare(own, pools, space)

        monkeypatch.setattr("strategies.cells.learning.learn", learned)
        monkeypatch.setattr(type(patches), "select", selected)
        monkeypatch.setattr("strategies.cells.choice.distances", compared)

    def pool(self, unit, negatives, positives, mean):
        pixels = np.clip(self.rng.normal(mean, 30, (negatives + positives, 1, 32, 32)), 0, 255).astype(np.uint8)
        self.node.write_pool(unit, pixels, np.repeat([0, 1], [negatives, positives]))
        counts = {label: count for label, count in (("0", negatives), ("1", positives)) if count}
        return {"unit": unit, "source": f"gan_{unit}", "counts": counts}

    def learn(self, pools, choose):
        name = {"arm": "x", "strategy": "one_shot", "task": "task", "classifier": "c", "real_fraction": 1.0}
        body = LEARN.parse(self.own | {
            "pools": pools, "size": {"fraction": None, "images": None}, "subset_seed": 1, "oversample": None, "seed": 3,
            "classifier": ClassifierSpec.model_validate({"model": "cnn_small", "image_size": 32, "channels": 1, "num_classes": 2}),
            "training": ClassifierTraining(batch_size=8, validate_every=2),
            "metrics": (), "recipe": {"use": "mix", "steps": {"real": 2, "mix": 2, "pretrain": 2, "fine_tune": 2}, "synthetic_share": 0.5},
            "choose": choose, "cell": name | {"real_images": None, "repeat": 0, "receiver": "A"}, "send_classifier": False,
        })  # fmt: skip
        return LEARN.work(NodeSide(self.node, Job("s", "u", "A", LEARN.name, {})), body, {})[0]


@pytest.fixture
def cell(split_patches, tmp_path, monkeypatch, own_data, compute):
    return Cell(split_patches(24, 0), tmp_path, monkeypatch, own_data, compute)


def rule(**changes):
    return Choice(by="distance", fewest_patients=2).model_dump() | changes


@pytest.mark.parametrize(
    ("keep", "used"),
    [
        (1, {"from gan_near": [6, 9]}),
        # Of the odd image of 9 the remainders are equal: it goes to the name that comes first.
        (2, {"from gan_near": [3, 4], "from gan_far": [3, 5]}),
    ],
)
def test_by_distance_the_nearest_give_all_images_of_each_class(keep, used, cell):
    """Every candidate has drawn as many images as all that are chosen are to have together."""
    pools = [cell.pool("far", 6, 9, 200), cell.pool("near", 6, 9, 95)]
    result = cell.learn(pools, rule(keep=keep))
    assert cell.trained == [used]
    assert result["n_synthetic"] == 15 and result["n_real"] == 20, "8 of each class, each shown as 10"
    assert result["selected"] == ({"gan_near": 1.0} if keep == 1 else {"gan_near": 0.5, "gan_far": 0.5})
    scores = result["selection_scores"]
    assert scores.keys() == {"gan_near", "gan_far"} and 0 < scores["gan_near"] < scores["gan_far"]


def test_by_weight_all_candidates_give_in_inverse_proportion_to_their_distance(cell):
    pools = [cell.pool("far", 40, 40, 130), cell.pool("near", 40, 40, 100)]
    result = cell.learn(pools, rule(how="weight"))
    ((own, foreign),) = cell.compared
    exact = {name.removeprefix("from "): value for name, value in choice.distances(own, foreign, "texture").items()}
    near, far = exact["gan_near"], exact["gan_far"]
    assert result["selection_scores"] == {name: float(f"{value:.2g}") for name, value in exact.items()}
    expected = {"gan_near": far / (near + far), "gan_far": near / (near + far)}
    assert result["selected"] == {name: round(value, 2) for name, value in expected.items()}
    (used,) = cell.trained
    for label in (0, 1):
        assert sum(labels[label] for labels in used.values()) == 40
    for source, labels in used.items():
        assert abs(labels[0] - 40 * expected[source.removeprefix("from ")]) < 1


def test_a_distance_is_taken_to_one_patch_of_each_of_enough_patients(cell):
    pools = [cell.pool("far", 6, 9, 200), cell.pool("near", 6, 9, 95)]
    cell.learn(pools, rule(fewest_patients=8))
    ((own, _),) = cell.compared
    assert {label: len(images) for label, images in own.items()} == {0: 8, 1: 8}
    with pytest.raises(DataError) as error:
        cell.learn(pools, rule(fewest_patients=9))
    assert (error.value.code, error.value.numbers) == ("too_few_to_measure", {"have": 10, "need": 9})


def test_by_validation_each_candidate_is_tried_alone_and_the_chosen_is_trained_last(cell, monkeypatch):
    pools = [cell.pool("one", 0, 6, 90), cell.pool("two", 0, 6, 90)]
    auprc = {(): 0.5, ("from gan_one",): 0.4, ("from gan_two",): 0.7}
    learn = learning.learn

    def scored(network, real, foreign, *arguments, **options):
        fit = learn(network, real, foreign, *arguments, **options)
        fit.best_auprc = auprc[tuple(foreign)]
        return fit

    monkeypatch.setattr("strategies.cells.learning.learn", scored)
    result = cell.learn(pools, rule(by="validation"))
    assert cell.trained == [{}, {"from gan_one": [0, 6]}, {"from gan_two": [0, 6]}, {"from gan_two": [0, 6]}]
    assert result["selected"] == {"gan_two": 1.0} and result["n_synthetic"] == 6
    assert result["selection_scores"] == pytest.approx({"gan_one": -0.1, "gan_two": 0.2})


def test_where_nobody_gains_the_cell_learns_from_its_own_patches(cell, monkeypatch):
    learn = learning.learn

    def scored(*arguments, **options):
        fit = learn(*arguments, **options)
        fit.best_auprc = 0.5
        return fit

    monkeypatch.setattr("strategies.cells.learning.learn", scored)
    pools = [cell.pool("one", 0, 6, 90), cell.pool("two", 0, 6, 90)]
    result = cell.learn(pools, rule(by="validation"))
    assert cell.trained[-1] == {} and result["n_synthetic"] == 0
    assert result["selected"] == {} and result["selection_scores"] == {"gan_one": 0.0, "gan_two": 0.0}
    assert set(result["history"]["stage"]) == {"real"}


@pytest.mark.parametrize("by", ["distance", "validation"])
def test_a_choice_never_looks_at_test_patches(by, cell):
    """They are opened when the last training is over; and what was compared and trained on is of the other splits."""
    cell.learn([cell.pool("one", 4, 4, 90), cell.pool("two", 4, 4, 90)], rule(by=by))
    assert [trainings for split, trainings in cell.splits if split == "test"] == [len(cell.trained)]
    table = cell.patches.full_table
    real, validation = cell.seen
    assert set(table["split"].iloc[real.rows]) == {"train"} and set(table["split"].iloc[validation.rows]) == {"val"}
    for own, _ in cell.compared:
        train = {image.tobytes() for image in cell.patches.pixels[real.rows]}
        assert {image.tobytes() for images in own.values() for image in images} == train
    assert len(cell.compared) == (by == "distance")


def test_without_a_rule_all_pools_are_used_and_nothing_is_told(cell):
    result = cell.learn([cell.pool("one", 4, 4, 90), cell.pool("two", 2, 2, 90)], None)
    assert cell.trained == [{"from gan_one": [4, 4], "from gan_two": [2, 2]}]
    assert "selected" not in result and "selection_scores" not in result
