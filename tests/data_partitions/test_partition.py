"""Partition rules: what they accept, and who goes where by each of them."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError

from data_partitions import Cohort, DataError, DealtSource, Exam, Lesion, PartitionRule, PatchTask, SplitRule
from data_partitions.build import build_patches
from data_partitions.dealing.partition import partition
from data_partitions.exams import Box
from data_partitions.patch_dataset import PatchDataset
from data_partitions.small_counts import shown_count


class Flat:
    """An image whose breast fills `share` of it."""

    def __init__(self, share):
        self.share = share

    def window(self, box):
        return np.full((box.height, box.width, 1), 100, np.uint8)

    def tissue(self, step):
        mask = np.zeros((100 // step + 1, 100), dtype=bool)
        mask[:, : round(100 * self.share)] = True
        return mask


def exam(patient, number, *, site="x", scanner="s1", density="a", malignant=None, share=0.5):
    lesions = (Lesion(Box(1, 1, 9, 9), "mass", malignant),) if malignant is not None else ()
    return Exam(f"p{patient:03d}", f"p{patient:03d}-{number}", (100, 100), partial(Flat, share), density=density,
                scanner=scanner, site=site, malignant=malignant, lesions=lesions)  # fmt: skip


def archive(patients=60, **fields):
    """Two images a patient; every third patient malignant, another third with a benign lesion."""
    values = {name: (value if callable(value) else lambda p, v=value: v) for name, value in fields.items()}
    return Cohort([
        exam(p, n, malignant=(True, False, None)[p % 3], **{name: value(p) for name, value in values.items()})
        for p in range(patients) for n in range(2)
    ])  # fmt: skip


def sizes(dealt, cohort):
    return Counter(dealt.home[e.patient] for e in cohort.exams)


def test_whole_numbers_are_images_and_fractions_are_shares():
    cohort = archive()
    by_images = partition(cohort, PartitionRule(centres={"A": 20, "B": 80}), 0, {})
    assert sizes(by_images, cohort) == {"A": 20, "B": 80, "": 20} and by_images.report == {"left_out": 20}
    by_share = partition(cohort, PartitionRule(centres={"A": 0.25, "B": 0.75}), 0, {})
    assert sizes(by_share, cohort) == {"A": 30, "B": 90} and by_share.report == {}
    alike = partition(cohort, PartitionRule.model_validate({"centres": ["A", "B", "C"]}), 0, {})
    assert set(sizes(alike, cohort).values()) == {40}
    malignant = Counter(alike.home[e.patient] for e in cohort.exams if e.malignant)
    assert max(malignant.values()) - min(malignant.values()) <= 2, "classes are dealt alike"


def test_more_than_there_is_cannot_be_dealt():
    with pytest.raises(DataError, match="asks for 200 images and the archive has 120") as error:
        partition(archive(), PartitionRule(centres={"A": 100, "B": 100}), 0, {})
    assert error.value.code == "partition_too_large" and error.value.numbers == {"need": 200, "have": 120}


def test_a_patient_of_two_sites_goes_where_most_images_are_and_is_counted():
    cohort = archive(site=lambda p: "xy"[p % 2])
    extra = [exam(0, 2, site="y"), exam(1, 2, site="x"), exam(1, 3, site="x")]  # p0: 2 x, 1 y; p1: 2 y, 2 x
    cohort = Cohort([*cohort.exams, *extra])
    dealt = partition(cohort, PartitionRule.model_validate({"by": "site", "centres": {"A": "x", "B": ["y"]}}), 0, {})
    assert dealt.home["p000"] == "A" and dealt.home["p001"] == "A", "most images; of equal numbers the first by name"
    assert dealt.home["p002"] == "A" and dealt.home["p003"] == "B"
    assert dealt.report == {"spanning": 2}


@pytest.mark.parametrize(("by", "values"), [("scanner", ("s1", "s2", "s3")), ("density", ("a", "b", "d"))])
def test_feature_skew_takes_values_and_leaves_the_others_out(by, values):
    cohort = archive(**{by: lambda p: values[p % 3]})
    rule = PartitionRule.model_validate({"by": by, "centres": {"A": [values[0]], "B": values[1]}})
    dealt = partition(cohort, rule, 0, {})
    for e in cohort.exams:
        value = getattr(e, by)
        assert dealt.home[e.patient] == {values[0]: "A", values[1]: "B"}.get(value, "")
    assert dealt.report == {"left_out": 40}
    with pytest.raises(DataError, match="no patient has .* 'zzz'; the archive has"):
        partition(cohort, PartitionRule.model_validate({"by": by, "centres": {"A": "zzz"}}), 0, {})


def test_a_list_of_names_is_a_centre_for_each_site_of_that_name():
    rule = PartitionRule.model_validate({"by": "site", "centres": ["rosendahl", "vidir"]})
    assert rule.centres == {"rosendahl": ("rosendahl",), "vidir": ("vidir",)}


def test_ten_subsets_by_breast_size():
    """dm-GAN's subsets: consecutive, of equal size."""
    cohort = archive(60, share=lambda p: 0.1 + p / 100)
    rule = PartitionRule.model_validate({"by": "breast_size", "centres": [f"n{i}" for i in range(10)]})
    breasts = {e.name: 0.1 + int(e.patient[1:]) / 100 for e in cohort.exams}
    dealt = partition(cohort, rule, 0, breasts)
    assert [dealt.home[f"p{p:03d}"] for p in range(60)] == [f"n{p // 6}" for p in range(60)]
    with pytest.raises(DataError, match="60 patients have no image on which the breast"):
        partition(cohort, rule, 0, dict.fromkeys(breasts, float("nan")))


def test_dirichlet_and_quantity_follow_the_seed():
    cohort = archive()
    for rule in (
        PartitionRule(by="dirichlet", centres={"A": 40, "B": 80}, alpha=0.2),
        PartitionRule.model_validate({"by": "quantity", "centres": ["A", "B"], "alpha": 0.5}),
    ):
        first = partition(cohort, rule, 1, {})
        again = partition(Cohort(cohort.exams[::-1]), rule, 1, {})
        assert first.home == again.home != partition(cohort, rule, 2, {}).home
    assert sizes(partition(cohort, PartitionRule(by="dirichlet", centres={"A": 40, "B": 80}, alpha=0.2), 1, {}), cohort) == {
        "A": 40, "B": 80
    }  # fmt: skip


def test_groups_of_patients_stay_together():
    cohort = archive()
    groups = {f"p{p:03d}": "p000" for p in range(0, 30)}
    dealt = partition(Cohort(cohort.exams, groups=groups), PartitionRule(centres={"A": 0.5, "B": 0.5}), 0, {})
    assert len({dealt.home[f"p{p:03d}"] for p in range(30)}) == 1


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"centres": ["A", "A"]}, "names a centre twice"),
        ({"centres": {"A": 10, "B": 0.5}}, "whole numbers of images, or shares"),
        ({"centres": {"A": 0.7, "B": 0.7}}, "sum to at most 1"),
        ({"centres": {"A": 0, "B": 3}}, "0 is too few images"),
        ({"centres": {"A": 3}, "alpha": 1}, "by size takes no alpha"),
        ({"centres": {"A": 3}, "by": "dirichlet"}, "needs alpha"),
        ({"centres": {"A": ["x"]}}, "takes a number of images"),
        ({"centres": {"A": ["x"], "B": ["x", "y"]}, "by": "site"}, "'x' is given to two centres"),
        ({"centres": {}}, "at least 1"),
    ],
)
def test_rules_that_cannot_be(rule, told):
    with pytest.raises(ValidationError, match=told):
        PartitionRule.model_validate(rule)


# --- the source


PHANTOM = {"source": "phantom", "patients": 30}


def dealt(centre, **rule):
    rule = {"centres": {"A": 40, "B": 60}, "seed": 1} | rule
    return DealtSource.model_validate({"archive": PHANTOM, "partition": rule, "centre": centre})


def test_each_centre_has_its_own_part_of_one_archive():
    parts = {centre: dealt(centre).load(centre, seed) for centre, seed in (("A", 5), ("B", 9))}
    patients = {centre: {e.patient for e in part.exams} for centre, part in parts.items()}
    assert not patients["A"] & patients["B"]
    assert {centre: len(part.exams) for centre, part in parts.items()} == {"A": 40, "B": 60}
    assert "20 images of the archive go to no centre" in parts["A"].report["notes"]
    # The task decides which lesions are looked at, never who is where.
    with_task = dealt("A").load("A", 5, None, PatchTask(label="malignancy"))
    assert {e.patient for e in with_task.exams} == patients["A"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    task, cache = PatchTask(image_size=16, margin_mm=4.2, crops=2), tmp_path_factory.mktemp("dealt")
    return build_patches(dealt("A"), task, SplitRule(), centre="A", seed=0, cache=cache)


def test_a_part_becomes_patches_with_splits_of_its_own(data):
    assert set(data.table["split"]) == {"train", "val", "test"}
    assert (data.table.groupby("patient")["split"].nunique() == 1).all()
    assert data.report["partition"] == {"left_out": 20}


def test_breasts_are_measured_once(tmp_path, monkeypatch):
    source = dealt("A", by="breast_size", centres=["A", "B", "C"])
    small, middle, large = (
        DealtSource.model_validate(source.model_dump() | {"centre": c}).load(c, 0, tmp_path).exams for c in "ABC"
    )
    assert len(small) == len(middle) == len(large) == 40
    monkeypatch.setattr("data_partitions.phantom.phantom.PhantomImage.tissue", None)
    assert [e.name for e in source.load("A", 0, tmp_path).exams] == [e.name for e in small]


def test_a_source_that_does_not_exist_is_named():
    with pytest.raises(ValidationError, match="source is 'dicom-web'; known sources: phantom, folder"):
        DealtSource.model_validate({"archive": {"source": "dicom-web"}, "partition": {"centres": ["A"]}, "centre": "A"})
    with pytest.raises(ValidationError, match="patient: unknown key; known keys: .*patients"):
        DealtSource.model_validate(
            {"archive": PHANTOM | {"patient": 2}, "partition": {"centres": ["A"]}, "centre": "A"}
        )
    with pytest.raises(ValidationError, match="centre 'Z' gets nothing; the partition has A, B"):
        dealt("Z")


# --- what is recorded of it


def test_partition_rows_name_no_patient_and_hide_small_counts(data):
    rows = data.partition_rows(b"secret")
    assert isinstance(data, PatchDataset) and [r["split"] for r in rows] == [
        "train", "train", "val", "val", "test", "test"
    ]  # fmt: skip
    assert {r["class"] for r in rows} == {"lesion", "healthy"}
    counts = data.counts()
    for row in rows:
        n = counts[row["split"]][int(row["class"] == "positive")]
        assert row["images"] == shown_count(n) and row["patients"] in ("<5", *range(5, 1000, 5))
        assert (row["digest"] == "") == (row["images"] == "<5"), "or two digests of nothing would be the same"
    assert rows != data.partition_rows(b"other")
    digests = [row["digest"] for row in rows if row["digest"]]
    assert len(set(digests)) == len(digests) >= 2
