"""The phantom: windows equal the image, views share tissue, patients stay, and no shortcut tells the classes apart."""

import numpy as np
import pytest
from boxes import holds
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_partitions import Box, PatchTask, SplitRule, build_patches
from data_partitions.phantom.anatomy import Population, draw_patient
from data_partitions.phantom.fields import Beads, Octaves, grain
from data_partitions.phantom.phantom import SHAPE, SPACING_MM, PhantomSource
from data_partitions.phantom.view import ViewOfBreast

SCANNERS = ("digital", "digital-2", "film")


def exams(scanner="digital", patients=4, **arguments):
    return PhantomSource(patients=patients, scanner=scanner, **arguments).load("A", 7).exams


# At the upper border of the image and of the breast, and at the chest wall.
PART = Box(0, 0, 460, 300)


@pytest.fixture(scope="module")
def part():
    return {scanner: exams(scanner, lesion_fraction=1)[1].open().window(PART)[..., 0] for scanner in SCANNERS}


@given(st.sampled_from(SCANNERS), st.integers(0, 444), st.integers(0, 284), st.integers(16, 100), st.integers(16, 100))
@settings(max_examples=20)
def test_window_alone_equals_its_part_of_a_larger_one(part, scanner, top, left, height, width):
    box = Box(top, left, top + height, left + width).clipped((PART.bottom, PART.right))
    alone = exams(scanner, lesion_fraction=1)[1].open().window(box)[..., 0]
    cut = part[scanner][box.top : box.bottom, box.left : box.right]
    # float32 sums are taken in another order: a value may round to the next grey level, seldom.
    difference = np.abs(alone.astype(int) - cut)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_octaves_and_grain_are_functions_of_position_with_unit_variance():
    field = Octaves(8.0, 5, 0.5, np.random.default_rng(0))
    rows, columns = np.arange(0, 90, 0.5), np.arange(-40, 60, 0.5)
    whole = sum(field.on(rows, columns))
    part = sum(field.on(rows[50:80], columns[20:90]))
    np.testing.assert_allclose(part, whole[50:80, 20:90], atol=2e-5)
    assert whole.std() == pytest.approx(1, abs=0.25) and abs(whole.mean()) < 0.4
    noise = grain(3, -20, -5, 300, 400)
    np.testing.assert_array_equal(grain(3, 40, 60, 100, 90), noise[60:160, 65:155])
    assert noise.std() == pytest.approx(1, abs=0.02) and abs(noise.mean()) < 0.02


def test_a_bead_projects_to_a_gaussian_disc():
    bead = Beads(*(np.array(a, np.float32) for a in ([[30.0, 10.0, -4.0]], [2.0], [0.5])))
    rows = columns = np.arange(0, 60, 0.25)
    picture = bead.projected(np.array([[0, 1, 0], [1, 0, 0]])).on(rows, columns)
    expected = 0.5 * np.exp(-((rows[:, None] - 10) ** 2 + (columns[None] - 30) ** 2) / (2 * 2.0**2))
    assert picture.max() == pytest.approx(0.5, rel=0.03)
    np.testing.assert_allclose(picture, expected, atol=0.012)  # cut at three deviations


def test_both_views_of_a_breast_are_projections_of_one_tissue():
    """Depth is the axis that CC and MLO have in common: the profile along it agrees within a breast, not across."""
    columns = np.arange(2, 60, 1.0)

    def profile(number, view):
        patient = draw_patient(0, "A", number, Population(), 0.0)
        return ViewOfBreast(patient, "L", view).gland.on(np.arange(-110, 110, 1.0), columns).sum(axis=0)

    profiles = [(profile(n, "CC"), profile(n, "MLO")) for n in range(6)]
    for cc, mlo in profiles:
        np.testing.assert_allclose(cc, mlo, rtol=0.02)
    assert not np.allclose(profiles[0][0], profiles[1][1], rtol=0.1)


def test_a_patient_depends_on_seed_centre_and_number_only():
    few, many = exams(patients=3), exams("film", patients=6)
    for a, b in zip(few, many[: len(few)], strict=True):
        assert (a.name, a.density, a.age, a.view, a.laterality) == (b.name, b.density, b.age, b.view, b.laterality)
        assert [(x.box, x.kind, x.malignant) for x in a.lesions] == [(x.box, x.kind, x.malignant) for x in b.lesions]
    elsewhere = PhantomSource(patients=3).load("B", 7).exams
    assert [e.age for e in elsewhere] != [e.age for e in few]
    box = Box(400, 100, 480, 180)
    np.testing.assert_array_equal(few[0].open().window(box), exams(patients=6)[0].open().window(box))


def test_exams_have_what_a_study_needs():
    found = exams(patients=150)
    assert {(e.view, e.laterality) for e in found} == {(v, s) for v in ("CC", "MLO") for s in "LR"}
    assert {e.density for e in found} == set("abcd")
    lesions = [lesion for exam in found for lesion in exam.lesions]
    assert {lesion.kind for lesion in lesions} == {"mass", "calcification", "distortion"}
    assert {lesion.malignant for lesion in lesions} == {True, False}
    assert {lesion.birads for lesion in lesions} >= {"2", "3", "4a", "4b", "4c", "5"}
    assert all(38 <= e.age <= 88 and e.spacing_mm == SPACING_MM for e in found)
    for exam in found:
        for lesion in exam.lesions:
            assert holds(Box(0, 0, *SHAPE), lesion.box)
            low, high = lesion.contour.min(axis=0), lesion.contour.max(axis=0)
            assert lesion.box.top <= low[0] and lesion.box.left <= low[1]
            assert lesion.box.bottom >= high[0] and lesion.box.right >= high[1]
    birads = {m: np.mean([x.birads >= "4b" for x in lesions if x.malignant is m]) for m in (True, False)}
    assert birads[True] > birads[False] + 0.2
    both_views = [e for e in found if e.lesions]
    assert len(both_views) == 2 * len({e.patient for e in both_views})


def test_right_breasts_have_their_chest_wall_on_the_right():
    left, right = (next(e for e in exams() if e.laterality == side).open() for side in "LR")
    assert left.tissue(8)[:, 0].any() and not left.tissue(8)[:, -1].any()
    assert right.tissue(8)[:, -1].any() and not right.tissue(8)[:, 0].any()


def test_a_lesion_is_brighter_than_its_surroundings_would_be():
    """The same patient with and without the lesion's contrast: the difference lies in the lesion."""
    with_lesion, without = (exams(patients=2, lesion_fraction=1, contrast=c) for c in (2, 1e-3))
    for a, b in zip(with_lesion, without, strict=True):
        for lesion in a.lesions:
            top, left, bottom, right = lesion.box
            around = Box(top - 30, left - 30, bottom + 30, right + 30).clipped(SHAPE)
            change = a.open().window(around).astype(float)[..., 0] - b.open().window(around)[..., 0]
            inner = change[top - around.top : bottom - around.top, left - around.left : right - around.left]
            assert inner.max() > 8
            assert inner.mean() > change.mean()


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return build_patches(
        PhantomSource(patients=110), PatchTask(image_size=32, margin_mm=6), SplitRule(test_only=True), centre="A",
        seed=11, cache=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip


def auroc(features, patches):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    groups = patches.table["patient"].to_numpy()
    scores = cross_val_predict(model, features, patches.labels, groups=groups, cv=GroupKFold(5), method="predict_proba")
    return roc_auc_score(patches.labels, scores[:, 1])


def test_place_and_size_do_not_tell_the_classes_apart(patches):
    """About 300 boxes of 110 patients: chance is .5 with a standard error near .035; the tolerance is three of them."""
    table = patches.table
    features = np.column_stack(
        [table["width"], table["background"], table["view"] == "MLO", table["laterality"] == "L"]
    )
    assert abs(auroc(features, patches) - 0.5) < 0.105


def test_border_and_darkness_do_not_tell_the_classes_apart(patches):
    """A lesion adds some light to the middle of its patch, so its mean is no exact .5; the rim must be nearly blind."""
    pixels = patches.float32()[:, 0]
    rim = np.concatenate([pixels[:, :3].reshape(len(pixels), -1), pixels[:, -3:].reshape(len(pixels), -1),
                          pixels[:, :, :3].reshape(len(pixels), -1), pixels[:, :, -3:].reshape(len(pixels), -1)],
                          axis=1)  # fmt: skip
    features = np.column_stack([rim.mean(1), rim.std(1), rim.min(1), (rim < -0.9).mean(1)])
    assert abs(auroc(features, patches) - 0.5) < 0.12


def test_another_scanner_shifts_the_grey_values():
    box = Box(400, 60, 600, 260)
    home, *others = (np.stack([exam.open().window(box) for exam in exams(scanner)[:8:4]]) for scanner in SCANNERS)
    for away in others:
        assert np.abs(home.astype(float) - away).mean() > 8
        assert np.corrcoef(home.ravel(), away.ravel())[0, 1] > 0.7  # the same breast
