"""Sums of features that are one person's: of a split that leaves two, of crops of one lesion, of two sums that differ by one."""

import numpy as np
import pytest
from drawn_hospital import DrawnHospital, draw

from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums

SPACE = "randnet"
STILL = "image_size: 32, margin_px: 20, crops: 5, zoom: [0, 0], shift: [0, 0]"
FEW = f"task: {{name: all, {STILL}}}\nsplit: {{train: 0.1, val: 0.45, test: 0.45}}"
DIFFERENT = """
tasks:
  - {name: all, image_size: 32, margin_px: 20, crops: 1}
  - {name: mass, lesions: mass, image_size: 32, margin_px: 20, crops: 1}
split: {train: 1, val: 0, test: 0}
"""
ALL = "task: {name: all, image_size: 32, margin_px: 20, crops: 1}\nsplit: {train: 1, val: 0, test: 0}"
LOW = "{spaces: [texture, randnet], fewest_patients: 2}"


def hospital(centre_file, folder, **drawn):
    return DrawnHospital(centre_file, folder / "node", draw(folder / "pictures", **drawn))


def sums(reply):
    assert reply.ok, (reply.code, reply.numbers)
    return [FeatureSums.from_arrays(reply.arrays, f"{SPACE}.{half}") for half in ("first", "second")]


def nearest(node, plan, task, features):
    """How far features are from those of the nearest patch of a patient."""
    true = FEATURE_SPACES[SPACE](node.truth(plan, task).stored())
    return float(np.abs(true - features).max(axis=1).min())


def undefended(monkeypatch):
    """Sums over patches as they are, of however few patients."""
    monkeypatch.setattr("clients.minimums.check", lambda *of: None)
    monkeypatch.setattr("clients.side.NodeSide.fewest_patients", 0)
    monkeypatch.setattr("strategies.fidelity.fewest_shown_alike", lambda count: count)


def as_asked(node, one_each, rows, first, fewest):
    """A node that remembers no cohort."""
    return rows, first, False


def test_a_half_of_one_patient_is_refused_and_its_number_hidden(centre_file, tmp_path):
    node = hospital(centre_file, tmp_path, positives=20, negatives=20)
    reply = node.sums(node.plan("few", FEW, LOW))
    said = {"rule": "minimums.sum_patients", "asks": "at least 20 patients in each sum", "has": "fewer"}
    assert (reply.code, reply.numbers, reply.arrays) == ("below_minimum", said, {})


def test_without_a_minimum_a_half_is_one_patient(centre_file, tmp_path, monkeypatch):
    undefended(monkeypatch)
    monkeypatch.setattr("strategies.fidelity.max", lambda *numbers: 1, raising=False)
    node = hospital(centre_file, tmp_path, positives=20, negatives=20)
    plan = node.plan("few", FEW, LOW)
    for half in sums(node.sums(plan)):
        assert nearest(node, plan, None, half.sum / half.count) < 1e-9


def test_five_crops_of_a_lesion_count_once(centre_file, tmp_path, monkeypatch):
    """A variation: enough patients, of whom the crops of a few make up the sum."""
    node = hospital(centre_file, tmp_path, positives=45, negatives=5)
    study = f"task: {{name: all, {STILL}}}\nsplit: {{train: 1, val: 0, test: 0}}"
    patches = node.truth(node.plan("truth", study))
    patients = patches.table["patient"].to_numpy()
    features = FEATURE_SPACES[SPACE](patches.stored())
    each = np.stack([features[patients == patient][0] for patient in np.unique(patients)], 1)  # all five are equal

    def shares(name):
        first, second = sums(node.sums(node.plan(name, study)))
        assert (first.count, second.count) == (22, 21)
        return np.round(np.linalg.lstsq(each, first.sum + second.sum, rcond=None)[0], 4)

    assert len(patches) == 225 and sorted(shares("crops")) == [0, 0] + [1] * 43
    monkeypatch.setattr("strategies.fidelity.one_of_each_patient", lambda patches: patches)
    monkeypatch.setattr("clients.minimums.check", lambda *of: None)
    monkeypatch.setattr("clients.side.cohorts.hold", as_asked)
    assert shares("undefended").max() > 1


def test_two_tasks_that_differ_by_one_lesion_do_not_both_get_sums(centre_file, tmp_path):
    node = hospital(centre_file, tmp_path, positives=44, negatives=5, calcifications=1)
    plan = node.plan("two", DIFFERENT)
    sums(node.sums(plan, "all"))
    reply = node.sums(plan, "mass")
    assert (reply.code, reply.numbers, reply.arrays) == ("too_alike", {"need": 20}, {})
    assert node.sums(plan, "all").ok and node.sums(node.plan("three", DIFFERENT), "all").ok, "the same passes again"


def test_without_memory_the_difference_of_two_tasks_is_a_patient(centre_file, tmp_path, monkeypatch):
    monkeypatch.setattr("clients.side.cohorts.hold", as_asked)
    monkeypatch.setattr("strategies.fidelity.fewest_shown_alike", lambda count: count)
    node = hospital(centre_file, tmp_path, positives=44, negatives=5, calcifications=1)
    plan = node.plan("two", DIFFERENT)
    (a, b), (c, d) = sums(node.sums(plan, "all")), sums(node.sums(plan, "mass"))
    assert nearest(node, plan, "all", (a + b).sum - (c + d).sum) < 1e-6


@pytest.mark.parametrize("margin", ["margin_px: 20", "margin_px: 21"])
def test_another_study_with_other_patches_of_all_but_one_is_refused_too(margin, centre_file, tmp_path):
    """A variation: every patch differs a little, so that no two sums hold the same, and the people differ by one."""
    node = hospital(centre_file, tmp_path, positives=44, negatives=5, calcifications=1)
    sums(node.sums(node.plan("one", DIFFERENT), "all"))
    reply = node.sums(node.plan("other", DIFFERENT.replace("margin_px: 20", margin)), "mass")
    assert reply.code == "too_alike"


def test_other_patches_of_one_patient_are_refused(centre_file, tmp_path):
    """A variation: the same people, and of one of them another lesion."""
    node = hospital(centre_file, tmp_path, positives=44, negatives=5)
    plan = node.plan("one", DIFFERENT)
    sums(node.sums(plan, "all"))
    table = node.path.parent.parent / "pictures" / "lesions.csv"
    lines = table.read_text().splitlines()
    image, kind, *_ = lines[1].split(",")
    table.write_text("\n".join([lines[0], f"{image},{kind},40,40,20,benign", *lines[2:]]) + "\n")
    assert node.sums(node.plan("other", DIFFERENT), "all").code == "too_alike"


def test_a_patient_who_came_since_is_in_no_sum_until_twenty_have(centre_file, tmp_path):
    """The later sum is that of the earlier patients: their difference is nothing."""
    node = hospital(centre_file, tmp_path, positives=45, negatives=5)
    plan = node.plan("one", ALL)
    table = node.path.parent.parent / "pictures" / "lesions.csv"
    lines = table.read_text().splitlines()
    came = lines[-1]
    table.write_text("\n".join(line for line in lines if line != came) + "\n")
    earlier = node.sums(plan)
    table.write_text("\n".join(lines) + "\n")
    later = node.sums(node.plan("two", ALL))
    assert later.body["earlier_cohort"] is True and "earlier_cohort" not in earlier.body
    for one, other in zip(sums(earlier), sums(later), strict=True):
        assert (
            one.count == other.count and np.array_equal(one.sum, other.sum) and np.array_equal(one.outer, other.outer)
        )
