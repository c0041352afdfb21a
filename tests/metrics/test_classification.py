"""Measures of a classifier against scikit-learn, by hand, and on labels where they are not defined."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from metrics import METRICS, measure, measured_names, selection_score

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda pairs: len({label for label, _ in pairs}) == 2
)


def arrays(pairs):
    labels, scores = np.array(pairs).T
    return labels, scores / 8


def test_a_small_example_by_hand():
    labels, probability = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.6, 0.2, 0.5, 0.1])
    # At .5: 2 true positives, 1 false negative, 1 false positive (.5 counts as positive), 1 true negative.
    assert METRICS["accuracy"](labels, probability) == pytest.approx(3 / 5)
    assert METRICS["balanced_accuracy"](labels, probability) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert METRICS["f1"](labels, probability) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert METRICS["auroc"](labels, probability) == pytest.approx(5 / 6)
    assert METRICS["auprc"](labels, probability) == pytest.approx((1 + 1 + 3 / 4) / 3)


SCORES = {"auroc": sk.roc_auc_score, "auprc": sk.average_precision_score}
DECISIONS = {"accuracy": sk.accuracy_score, "balanced_accuracy": sk.balanced_accuracy_score, "f1": sk.f1_score}


@given(PAIRS)
def test_every_measure_is_scikit_learns(pairs):
    labels, probability = arrays(pairs)
    for name, theirs in SCORES.items():
        assert METRICS[name](labels, probability) == pytest.approx(theirs(labels, probability), abs=1e-14)
    for name, theirs in DECISIONS.items():
        assert METRICS[name](labels, probability) == pytest.approx(theirs(labels, probability >= 0.5), abs=1e-14)
    assert {*SCORES, *DECISIONS} == set(METRICS)


@given(PAIRS)
def test_auroc_is_the_share_of_pairs_ranked_rightly(pairs):
    labels, probability = arrays(pairs)
    difference = probability[labels == 1][:, None] - probability[labels == 0][None, :]
    assert METRICS["auroc"](labels, probability) == pytest.approx(((difference > 0) + (difference == 0) / 2).mean())


@given(PAIRS)
def test_exchanging_the_classes(pairs):
    labels, probability = arrays(pairs)
    assert METRICS["auroc"](1 - labels, 1 - probability) == pytest.approx(METRICS["auroc"](labels, probability))


@given(PAIRS)
def test_perfect_and_constant_predictions(pairs):
    labels, _ = arrays(pairs)
    assert all(metric(labels, labels.astype(float)) == 1 for metric in METRICS.values())
    constant = np.full(len(labels), 0.7)
    assert METRICS["auroc"](labels, constant) == 0.5
    assert METRICS["balanced_accuracy"](labels, constant) == 0.5
    assert METRICS["auprc"](labels, constant) == pytest.approx(labels.mean())


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("error")
def test_one_class_only(label):
    labels, probability = np.full(3, label), np.array([0.2, 0.4, 0.9])
    for name, metric in METRICS.items():
        value = metric(labels, probability)
        if name == "accuracy":
            assert not math.isnan(value) and metric.undefined(labels) is None
        else:
            assert math.isnan(value) and metric.undefined(labels) == f"the test set holds class {label} only"


def test_an_empty_test_set():
    for metric in METRICS.values():
        assert math.isnan(metric(np.array([], dtype=int), np.array([]))) and "empty" in metric.undefined(np.array([]))


@pytest.mark.parametrize(
    ("labels", "probability", "message"),
    [
        ([0, 1], [0.5], "must be"),
        ([0, 2], [0.5, 0.5], "found 2"),
        ([0, 1], [0.5, float("nan")], r"lie in \[0, 1\]"),
        ([0, 1], [0.5, 1.5], r"lie in \[0, 1\]"),
    ],
)
def test_bad_arguments(labels, probability, message):
    with pytest.raises(ValueError, match=message):
        METRICS["auroc"](np.array(labels), np.array(probability))


def test_the_table_names_title_direction_and_unit():
    assert {name: metric.title for name, metric in METRICS.items()} == {
        "accuracy": "Accuracy", "balanced_accuracy": "Balanced acc.", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC",
    }  # fmt: skip
    assert all(m.higher_is_better and m.unit == "share" and m.name == name for name, m in METRICS.items())


# -- more than two classes ---------------------------------------------------------------------------------------------

MANY = (
    st.integers(3, 6)
    .flatmap(
        lambda k: st.tuples(
            st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, 2**32 - 1)), min_size=2, max_size=40)
        )
    )
    .filter(lambda drawn: len({label for label, _ in drawn[1]}) >= 2)
)


def of_many(drawn):
    classes, pairs = drawn
    labels = np.array([label for label, _ in pairs])
    # Few distinct values, so that there are ties.
    weights = np.stack([np.random.default_rng(seed).integers(1, 5, classes) for _, seed in pairs]).astype(float)
    return labels, weights / weights.sum(axis=1, keepdims=True)


@given(MANY)
@pytest.mark.filterwarnings("ignore")
def test_measures_of_many_classes_are_scikit_learns(drawn):
    labels, probability = of_many(drawn)
    names = [f"c{i}" for i in range(drawn[0])]
    found, decided, there = measure(labels, probability, names), probability.argmax(axis=1), np.unique(labels)
    assert list(found) == measured_names(names)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, decided))
    assert found["f1"] == pytest.approx(sk.f1_score(labels, decided, average="macro"))
    for name, theirs in SCORES.items():
        each = {i: theirs(labels == i, probability[:, i]) for i in there}
        for i, class_name in enumerate(names):
            value = found[f"{name}.{class_name}"]
            assert value == pytest.approx(each[i], abs=1e-14) if i in each else math.isnan(value)
        assert found[name] == pytest.approx(np.mean(list(each.values())), abs=1e-14)
    if len(there) == drawn[0]:
        assert found["auroc"] == pytest.approx(
            sk.roc_auc_score(labels, probability, multi_class="ovr", average="macro"), abs=1e-14
        )
    assert selection_score(labels, probability) == found["auprc"]


@given(PAIRS)
def test_two_classes_in_a_table_of_probabilities_give_the_same_bits(pairs):
    labels, probability = arrays(pairs)
    table = np.stack([1 - probability, probability], axis=1)
    found = measure(labels, table, ("healthy", "lesion"))
    assert found == {name: metric(labels, probability) for name, metric in METRICS.items()}
    assert measured_names(("healthy", "lesion")) == list(METRICS)
    assert selection_score(labels, table) == METRICS["auprc"](labels, probability)


@pytest.mark.filterwarnings("error")
def test_a_test_set_of_one_class_defines_the_accuracy_only():
    found = measure(np.full(3, 2), np.full((3, 4), 0.25), "abcd")
    assert {name for name, value in found.items() if not math.isnan(value)} == {"accuracy"}


@pytest.mark.parametrize(
    ("labels", "shape", "message"),
    [([0, 3], (2, 3), "0 to 2, found 3"), ([0, 1], (3, 3), "must be"), ([-1, 1], (2, 3), "found -1")],
)
def test_bad_arguments_of_many_classes(labels, shape, message):
    with pytest.raises(ValueError, match=message):
        measure(np.array(labels), np.full(shape, 1 / 3), "abc")
