"""The main table against numbers worked out by hand, and the rule of what may be called a gain."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from reports.findings import caution, findings, judge
from reports.kinds import Kinds
from reports.patient_bootstrap import auroc_draws, interval, weighted_auroc
from reports.record_files import PREDICTIONS, RESULTS
from reports.sections.centres import survey_tables
from reports.study import read_study
from reports.table_md import markdown
from reports.tables import Difference, Setting, Spread, blocks, evaluation_sets, points, spread_text

STUDY = read_study("""
name: t
seed: 1
centres: {A: {roles: [receiver]}, B: {roles: [provider]}}
task: {name: mal, label: malignancy}
arms:
  extra: {strategy: local, control: true}
  none: {strategy: local}
  other: {strategy: local, augmentation: none}
  oversampled: {strategy: local, oversample: 100}
  gan: {strategy: one_shot, generators: [g]}
  real: {strategy: pooled, centres: [B]}
""")


def results(values: dict[str, list[float]], **changes) -> pd.DataFrame:
    """One AUROC for each repeat of each arm."""
    rows = [
        {
            "arm": arm, "strategy": STUDY.arms[arm].strategy, "task": "mal", "classifier": "cnn", "real_fraction": 1.0,
            "repeat": r, "tested_on": "A", "metric": "auroc", "value": v, "receiver": "A", "n_real": 100,
            "n_synthetic": 0,
        } | changes
        for arm, own in values.items()
        for r, v in enumerate(own)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(RESULTS.columns))


NO_PREDICTIONS = pd.DataFrame(columns=list(PREDICTIONS.columns))


def test_roles():
    assert {name: arm.role for name, arm in STUDY.arms.items()} == {
        "extra": "control", "none": "baseline", "other": "candidate", "oversampled": "control", "gan": "candidate",
        "real": "upper bound",
    }  # fmt: skip
    assert STUDY.baseline is not None and STUDY.baseline.name == "none"
    assert STUDY.classes == {"mal": ("benign", "malignant")}


def test_mean_sd_and_paired_difference():
    block = blocks(results({"none": [0.70, 0.72, 0.74], "gan": [0.73, 0.76, 0.74]}), STUDY)[0]
    none, gan = block.rows
    assert spread_text(none.spread("A", "auroc")) == "72.0 (2.0)"
    difference = block.difference(gan, "A")
    assert difference is not None
    assert difference.spread.mean == pytest.approx(0.07 / 3) and difference.spread.sd == pytest.approx(
        np.std([3, 4, 0], ddof=1) / 100
    )
    assert (difference.better, difference.worse, difference.spread.n) == (2, 0, 3)  # the tie is neither
    assert block.difference(none, "A") is None


def test_repeats_that_one_arm_lacks_are_not_paired():
    table = results({"none": [0.7, 0.8, math.nan], "gan": [0.9, 0.9, 0.9]})
    table = table[~((table.arm == "gan") & (table.repeat == 0))]
    block = blocks(table, STUDY)[0]
    difference = block.difference(block.rows[1], "A")
    assert difference is not None and difference.spread.n == 1 and difference.spread.mean == pytest.approx(0.1)
    assert block.rows[1].spread("A", "auroc").n == 2


def test_order_of_blocks_centres_and_arms():
    table = pd.concat([
        results({"real": [0.9], "gan": [0.8], "none": [0.7]}, real_fraction=0.5),
        results({"none": [0.7]}, tested_on="C"),
        results({"gan": [0.7], "none": [0.7]}),
        results({"none": [0.7]}, tested_on="B"),
    ])  # fmt: skip
    found = blocks(table, STUDY)
    assert [b.setting.real_fraction for b in found] == [1.0, 0.5]
    assert found[0].tested_on == ("A", "B", "C")
    assert [row.arm.name for row in found[1].rows] == ["none", "gan", "real"]


@pytest.mark.parametrize(
    ("fraction", "words"),
    [(1.0, "all real images"), (0.5, "50 % of real images"), (math.nan, "all real images"), (200.0, "200 real images")],
)
def test_sizes_in_words(fraction, words):
    assert Setting("A", "mal", "cnn", fraction).size == words


def test_no_baseline():
    block = blocks(results({"gan": [0.7], "real": [0.8]}), STUDY)[0]
    assert block.baseline is None and findings(block, "A", NO_PREDICTIONS, Kinds()) == []


def test_signs():
    assert [points(v) for v in (0.021, -0.004, 0.0001, -0.0001)] == ["+2.1", "−0.4", "0.0", "0.0"]


@pytest.mark.parametrize(
    ("differences", "over_patients", "verdict"),
    [
        ([0.02, 0.03, 0.025], None, "helped"),
        ([0.02, 0.03, 0.025], (0.001, 0.05), "helped"),
        ([0.02, 0.03, 0.025], (-0.001, 0.05), "unclear"),  # too few test patients
        ([-0.02, -0.03, -0.025], None, "hurt"),
        ([0.02, 0.03], None, "too few repeats"),
        ([0.02, 0.03, -0.001], None, "unclear"),  # one disagrees
        ([0.001, 0.09, 0.001], None, "unclear"),  # scatters by more than the change
        ([0.02] * 9 + [-0.001], None, "helped"),  # nine of ten
        ([0.0, 0.0, 0.0], None, "unclear"),
        ([], None, "not measured"),
    ],
)
def test_verdicts(differences, over_patients, verdict):
    difference = Difference.of(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    assert judge(difference, over_patients) == verdict


def test_sentences_say_no_more_than_the_numbers():
    block = blocks(
        results({"none": [0.70, 0.72, 0.74], "gan": [0.72, 0.74, 0.765], "real": [0.69, 0.73, 0.73]}, n_synthetic=50),
        STUDY,
    )[0]
    gan, real = findings(block, "A", NO_PREDICTIONS, Kinds())
    assert gan.sentence == "Adding gan helped: it changed AUROC by +2.2 points (sd 0.3, 3 of 3 repeats better)."
    assert (
        real.sentence == "Moving real images of B (real) changed AUROC by −0.3 points (sd 1.2, 1 of 3 repeats better). "
        "It did not help here."
    )
    said = caution([gan, real])
    assert (
        "With 3 repeats all spreads are rough" in said and "25 %" in said and "trained once" in said and "lacks" in said
    )
    five = blocks(results({"none": [0.7] * 5, "gan": [0.8] * 5}), STUDY)[0]
    assert "rough" not in caution(findings(five, "A", NO_PREDICTIONS, Kinds()))
    one = blocks(results({"none": [0.7], "gan": [0.8]}), STUDY)[0]
    assert findings(one, "A", NO_PREDICTIONS, Kinds())[0].verdict == "too few repeats"


def test_a_federated_classifier_adds_no_images():
    study = read_study(
        "arms: {none: {strategy: local}, averaged: {strategy: f, model: dcgan}, model: {strategy: g, rounds: 5}}"
    )
    table = results({"none": [0.7, 0.7, 0.7]})
    more = [
        table.assign(arm=arm, value=table["value"] + 0.1, n_synthetic=n) for arm, n in (("averaged", 50), ("model", 0))
    ]
    kinds = Kinds(strategies={"g": {"title": "a classifier averaged in rounds"}})
    averaged, model = findings(blocks(pd.concat([table, *more]), study)[0], "A", NO_PREDICTIONS, kinds)
    assert averaged.sentence.startswith("Adding averaged helped:")
    assert model.sentence.startswith("Arm model (a classifier averaged in rounds) helped:")


# -- bootstrap over patients ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_weighted_auroc_is_that_of_repeated_cases(seed):
    rng = np.random.default_rng(seed)
    labels = np.array([0, 1, *rng.integers(0, 2, 10)])
    scores = rng.integers(0, 5, 12) / 4  # many ties
    weights = rng.integers(0, 4, (3, 12))
    weights[:, :2] += 1  # both classes present
    expected = [roc_auc_score(np.repeat(labels, w), np.repeat(scores, w)) for w in weights]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights.astype(float)), expected)


def predictions(scores: np.ndarray, labels: np.ndarray, repeat: int = 0) -> pd.DataFrame:
    case = np.arange(len(labels))
    return pd.DataFrame(
        {
            "repeat": repeat,
            "case": case,
            "patient": case // 2,
            "class": "malignant",
            "label": labels,
            "probability": scores,
        }
    )


def test_interval_of_an_arm_with_itself_is_zero_and_covers_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    weak, strong = (
        predictions(labels + rng.normal(0, 2, 200), labels),
        predictions(labels + rng.normal(0, 0.7, 200), labels),
    )
    assert interval(auroc_draws(weak), auroc_draws(weak)) == (0, 0)
    found = interval(auroc_draws(strong), auroc_draws(weak))
    assert found is not None

    def share_of_pairs(scores):
        """AUROC as the share of pairs in which the positive has the higher score; there are no ties."""
        positive, negative = scores[labels[scores.index] == 1].to_numpy(), scores[labels[scores.index] == 0].to_numpy()
        return (positive[:, None] > negative).mean()

    plain = []
    for _ in range(400):
        drawn = rng.integers(0, 100, 100)
        rows = np.concatenate([2 * drawn, 2 * drawn + 1])
        plain.append(share_of_pairs(strong["probability"][rows]) - share_of_pairs(weak["probability"][rows]))
    np.testing.assert_allclose(found, np.percentile(plain, [2.5, 97.5]), atol=0.02)


def test_two_test_patients_prove_nothing():
    sure = Difference.of(dict.fromkeys(range(3), 0.2), dict.fromkeys(range(3), 0.0))
    assert judge(sure, (0.1, 0.3), 90) == "helped" and judge(sure, (0.1, 0.3), 2) == "unclear"


def test_no_interval_without_two_classes_or_a_common_repeat():
    labels = np.arange(10) % 2
    assert auroc_draws(predictions(labels * 1.0, np.ones(10, int))) == {}
    first, second = (
        auroc_draws(predictions(labels * 1.0, labels)),
        auroc_draws(predictions(labels * 1.0, labels, repeat=1)),
    )
    assert interval(first, second) is None


# -- words ---------------------------------------------------------------------------------------------------------


def test_markdown_names_the_positive_class_its_prevalence_and_the_roles():
    table = results({"none": [0.70, 0.72], "extra": [0.7, 0.7], "gan": [0.73, 0.76], "real": [0.8, 0.8]})
    sets = evaluation_sets(
        predictions(np.zeros(10), np.array([1, 1, 1] + [0] * 7)).assign(task="mal", tested_on="A", arm="none")
    )
    text = markdown(blocks(table, STUDY), STUDY, sets)
    assert "Tested at A: 10 images of 5 patients, 30 % malignant (the positive class)." in text
    squeezed = re.sub(r" +", " ", text)
    assert "| none (baseline) | 100 | 0 | 71.0 (1.4) | |" in squeezed
    assert "| extra (control) |" in squeezed and "| real (real images moved: upper bound) |" in squeezed
    assert "| gan | 100 | 0 | 74.5 (2.1) | +3.5 (0.7), 2/2 |" in squeezed
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1  # it is aligned
    without = markdown(blocks(table, STUDY), STUDY, {})
    assert "prevalence is not in this record" in without
    assert "No classifier was tested yet" in markdown([], STUDY, {})


def test_survey_shows_what_centres_said():
    card = {
        "patients": 12,
        "boxes": {"train": {"malignant": 7, "benign": "<5"}},
        "density": {"a": "<5", "b": 9},
        "spacing_mm": [0.1],
    }
    amounts, kinds = survey_tables({("mal", "B"): card, ("mal", "A"): card}, STUDY)
    assert [row[0] for row in amounts["rows"]] == ["A", "B"]  # the scenario's order
    assert amounts["rows"][0] == ["A", "receiver", "12", "7", "<5", "–", "–", "–", "–"]
    assert kinds["rows"][1] == ["B", "a\N{NO-BREAK SPACE}<5, b\N{NO-BREAK SPACE}9", "0.1"]
    assert all(len(row) == len(t["header"]) == len(t["text"]) for t in (amounts, kinds) for row in t["rows"])


def test_spread_of_nothing_and_of_one():
    assert Spread.of([]).n == 0 and math.isnan(Spread.of([]).mean)
    assert Spread.of([0.5, math.nan]).n == 1 and math.isnan(Spread.of([0.5]).sd)
