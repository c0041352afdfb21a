"""Fidelity: members' sums are those of their union, halves are by patient, and a measured distance is one taken by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.app import answer
from clients.centre_file import TRIAL_MINIMUMS
from federation.wire.code_digest import code_digest
from federation.wire.errors import explain
from federation.wire.exchange import run_together
from federation.wire.job import Job
from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums, frechet_distance
from models.generative import GenerativeModel
from scenarios.plan import Plan
from scenarios.reader import parse
from strategies import fidelity
from strategies.delivery import drawn
from strategies.layouts import PREVIEW
from strategies.members import FederationFailed

SPACES = ("texture",)
PLAYS = {"partition-id": 0}


def close(a: FeatureSums, b: FeatureSums):
    assert a.count == b.count
    for one, other in ((a.sum, b.sum), (a.outer, b.outer)):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-9 * np.abs(other).max())


def by_hand(images):
    return FeatureSums.of(FEATURE_SPACES["texture"](images))


def some_images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 16, 16)).astype(np.uint8)


def measuring(here, spec, **changes):
    return here.fidelity(spec, spaces=SPACES, **changes)


def ask(centres, exchange):
    return run_together(centres, {0: exchange})[0]


# -- sums ----------------------------------------------------------------------------------------------------


@given(
    cuts=st.lists(st.integers(1, 29), max_size=3, unique=True), first=st.lists(st.booleans(), min_size=30, max_size=30)
)
def test_sums_of_members_and_halves_add_up_to_those_of_the_union(cuts, first):
    images, first = some_images(30), np.array(first)
    members = zip(np.split(images, sorted(cuts)), np.split(first, sorted(cuts)), strict=True)
    arrays = [fidelity.sums_of_halves(part, halves, SPACES) for part, halves in members]
    halves = {
        half: fidelity.sum_up([FeatureSums.from_arrays(one, f"texture.{half}") for one in arrays])
        for half in fidelity.HALVES
    }
    close(halves["first"], by_hand(images[first]))
    close(halves["second"], by_hand(images[~first]))
    close(halves["first"] + halves["second"], by_hand(images))


def test_sums_do_not_depend_on_the_batches_in_which_features_are_taken(monkeypatch):
    images, first = some_images(11), np.arange(11) < 6
    whole = fidelity.sums_of_halves(images, first, SPACES)
    monkeypatch.setattr(fidelity, "_BATCH", 4)
    parts = fidelity.sums_of_halves(images, first, SPACES)
    assert whole.keys() == parts.keys() and not [n for n in whole if not n.startswith("texture.")]
    for half in fidelity.HALVES:
        close(*(FeatureSums.from_arrays(arrays, f"texture.{half}") for arrays in (whole, parts)))


def test_the_reference_is_the_union_of_all_members_and_its_floor_the_distance_of_their_halves(lab):
    here = lab(A=14, B=22)
    centres = here.centres()
    reference = ask(centres, measuring(here, here.spec()).reference(here.units, None, None))
    total = FeatureSums.from_arrays(reference.arrays, "texture")
    assert total.count == 13 + 18, "the fewest that are shown as 15, and as 20"
    whole = by_hand(np.concatenate([patches.select(labels=(1,)).stored() for patches in here.datasets.values()]))
    np.testing.assert_allclose(total.mean, whole.mean, atol=0.3 * np.sqrt(np.diag(whole.covariance)).max())
    assert reference.images == {"A": 15, "B": 20} and len(set(reference.units)) == 2
    sums = [
        fidelity.sum_up([FeatureSums.from_arrays(reply.arrays, f"texture.{half}") for reply in centres.replies])
        for half in fidelity.HALVES
    ]
    assert reference.floors == {"fd_texture": pytest.approx(frechet_distance(*sums))}
    assert reference.floors["fd_texture"] > 0


def test_a_reference_without_a_space_still_counts_the_members_patches(lab):
    here = lab(A=14, B=12)
    reference = ask(here.centres(), here.fidelity(here.spec()).reference(here.units, None, None))
    assert (reference.arrays, reference.floors, reference.images) == ({}, {}, {"A": 15, "B": 10})


def test_a_member_that_does_not_answer_is_named_with_its_code(lab):
    here = lab(A=14, B=12)
    lost = here.centres(
        spoil=lambda job, reply: replace(reply, code="diverged", arrays={}) if job.centre == "B" else None
    )
    with pytest.raises(FederationFailed, match=r"centre 'B' did not send sums of features \(diverged\)"):
        ask(lost, measuring(here, here.spec()).reference(here.units, None, None))


# -- the centre's half ---------------------------------------------------------------------------------------


def sums_of(here, folder, conditional=False, fewest=2, deployed=False):
    place = {"out": str(folder), "cache": str(folder)}
    (ask,) = here.fidelity(here.spec(conditional=conditional), spaces=SPACES).sums
    body = ask.filled() | {"fewest_patients": fewest}
    if not deployed:
        return answer(Job("s", "u", "A", "feature_sums", body, place=place), PLAYS)
    config = {"centre": "A", "workspace": str(folder / "workspace"), "cache": str(folder / "cache")}
    return answer(Job("s", "u", "A", "feature_sums", body, code=code_digest(), strategy="fedavg_gan"), config)


@pytest.mark.parametrize("conditional", [False, True])
def test_halves_are_by_patient_with_one_patch_of_each(conditional, lab, tmp_path):
    """What a half sums to is a sum over patients of one of their patches, found among all of them."""
    here = lab(A=13)
    patches = here.datasets["A"]
    reply = sums_of(here, tmp_path, conditional)
    used = patches if conditional else patches.select(labels=(1,))
    boxes = 30 if conditional else 15  # each class rounded by itself
    assert reply.ok and reply.body == {"images": boxes, "labels": sorted(set(used.labels.tolist()))}
    features = FEATURE_SPACES["texture"](used.stored())
    patients, found = used.table["patient"].to_numpy(), []
    for half, count in (("first", 7), ("second", 6)):
        sums = FeatureSums.from_arrays(reply.arrays, f"texture.{half}")
        assert sums.count == count, "the odd patient is in the first half"
        # Which patches: least squares of the sum over their features has 0 and 1 as its only solution.
        weights, *_ = np.linalg.lstsq(features.T, sums.sum, rcond=None)
        chosen = weights > 0.5
        np.testing.assert_allclose(weights, chosen, atol=1e-6)
        close(sums, FeatureSums.of(features[chosen]))
        found += patients[chosen].tolist()
    assert sorted(found) == list(range(13)), "each patient once"


def test_the_study_does_not_choose_who_is_in_which_half(lab, tmp_path):
    """With halves of many seeds every single patient could be solved for."""
    assert "seed" not in fidelity.FeatureSumsBody.model_fields
    here = lab(A=30)
    first, second = (sums_of(here, tmp_path).arrays["texture.first.sum"] for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("patients", "summed"), [(43, 43), (45, 43), (47, 43), (48, 48)])
def test_the_number_of_patients_in_a_sum_says_no_more_than_the_rounded_count(patients, summed, lab, tmp_path):
    reply = sums_of(lab(A=patients), tmp_path)
    counts = [int(reply.arrays[f"texture.{half}.count"]) for half in fidelity.HALVES]
    assert sum(counts) == summed and counts[0] - counts[1] in (0, 1)


def test_only_training_patches_are_summed(lab, tmp_path):
    here = lab(A=21)
    patches = here.datasets["A"]
    table = patches.full_table.assign(split=["train" if p < 13 else "test" for p in patches.full_table["patient"]])
    here.datasets["A"] = replace(patches, full_table=table)
    reply = sums_of(here, tmp_path)
    train = by_hand(patches.select(labels=(1,), patients=range(13)).stored())
    assert reply.body == {"images": 15, "labels": [1]}
    close(fidelity.sum_up([FeatureSums.from_arrays(reply.arrays, f"texture.{h}") for h in fidelity.HALVES]), train)


@pytest.mark.parametrize(("patients", "fewest", "deployed", "sent"), [
    (13, 6, False, True), (13, 7, False, False), (42, 2, True, False), (43, 2, True, True), (43, 22, True, False),
])  # fmt: skip
def test_sums_of_a_few_patients_are_not_sent(patients, fewest, deployed, sent, lab, tmp_path, monkeypatch):
    """A simulation keeps to the scenario's number, a real centre to its own where that is larger."""
    monkeypatch.setattr(
        "clients.side.cohorts.hold", lambda node, one_each, *of: (*of[:2], False)
    )  # these patients have no names
    monkeypatch.setattr("clients.minimums.check", lambda *of: None)  # which refuses the same, without the numbers
    monkeypatch.setattr("clients.policy.TRIAL_MINIMUMS", TRIAL_MINIMUMS.model_copy(update={"sum_patients": 20}))
    reply = sums_of(lab(A=patients), tmp_path, fewest=fewest, deployed=deployed)
    assert reply.ok == sent and bool(reply.arrays) == sent
    if not sent:
        have = {13: 15, 42: 40, 43: 45}[patients]
        assert (reply.code, reply.numbers) == (
            "too_few_to_measure",
            {"have": have, "need": 2 * max(fewest, 20 * deployed)},
        )
        assert f"has {have} patients" in explain("A", reply.code, "features of real patches", reply.numbers)


# -- measuring -----------------------------------------------------------------------------------------------


def test_due_after_every_so_many_rounds_and_always_after_the_last(lab):
    here = lab(A=12)
    three = measuring(here, here.spec(), every=3)
    assert [number for number in range(1, 9) if three.due(number, 8)] == [3, 6, 8]
    assert [number for number in range(1, 7) if three.due(number, 6)] == [3, 6]
    only_pictures = here.fidelity(here.spec(), every=3)
    assert [number for number in range(1, 9) if only_pictures.due(number, 8)] == [8]


@pytest.mark.parametrize("conditional", [False, True])
def test_a_measured_distance_is_that_between_its_images_and_all_real_ones(conditional, lab):
    here = lab(A=14, B=12)
    spec = here.spec(conditional=conditional)
    plan, centres = measuring(here, spec), here.centres()
    reference = ask(centres, plan.reference(here.units, None, None))
    model = spec.build(7)
    assert isinstance(model, GenerativeModel)
    weights = model.shared_arrays()
    reply = ask(centres, plan.measurement(here.units, reference, "id", weights, preview=True, label="x"))
    per_class = dict.fromkeys((0, 1) if conditional else (1,), plan.choice.images)
    images, labels = drawn(spec, weights, per_class, seed=2, device="cpu", precision="fp32")
    expected = frechet_distance(by_hand(images), FeatureSums.from_arrays(reference.arrays, "texture"))
    assert reply.ok and reply.centre == "A"
    assert reply.body["distances"] == {"fd_texture": pytest.approx(expected, rel=1e-6)}
    # Fewer than PREVIEW of each class were drawn: all are shown.
    shown = np.argsort(labels, kind="stable")
    assert np.array_equal(reply.arrays["preview.pixels"], images[shown])
    assert reply.arrays["preview.labels"].tolist() == sorted(labels.tolist())


def test_a_measurement_sends_images_only_where_asked_and_so_many_of_each_class(lab):
    here = lab(A=14)
    spec = here.spec(conditional=True)
    plan, centres = measuring(here, spec, images=PREVIEW + 3), here.centres()
    reference = ask(centres, plan.reference(here.units, None, None))
    weights = spec.build(7).shared_arrays()
    with_pictures, without = (
        ask(centres, plan.measurement(here.units, reference, "id", weights, preview=preview, label="x"))
        for preview in (True, False)
    )
    assert np.bincount(with_pictures.arrays["preview.labels"]).tolist() == [PREVIEW] * 2
    assert not without.arrays and without.body == with_pictures.body
    assert without.unit != with_pictures.unit


def test_a_measurement_is_another_unit_for_another_generator_or_another_reference(lab):
    here = lab(A=14)
    plan, centres = measuring(here, here.spec()), here.centres()
    reference = ask(centres, plan.reference(here.units, None, None))
    weights = here.spec().build(7).shared_arrays()
    units = {
        ask(centres, plan.measurement(here.units, ref, identity, weights, preview=False, label="x")).unit
        for ref, identity in (
            (reference, "a"), (reference, "a"), (reference, "b"), (replace(reference, units=("other",)), "a"),
        )
    }  # fmt: skip
    assert len(units) == 3


@pytest.mark.parametrize(
    ("arm", "asked"),
    [
        ("strategy: fedavg_gan, rounds: 2, local_steps: 2, fidelity: {spaces: []}", 0),
        ("strategy: fedavg_gan, rounds: 2, local_steps: 2", 2),
        ("strategy: dm_gan, updates: 2, fidelity: {spaces: []}", 2),  # its centres are weighted by their patches
    ],
)
def test_sums_are_asked_for_only_where_something_is_done_with_them(arm, asked):
    text = "\n".join([
        "name: sums", "seed: 0", "repeats: 1", "centres:",
        "  A: {roles: [receiver], data: {source: phantom, patients: 24}}",
        "  B: {roles: [provider], data: {source: phantom, patients: 24}}",
        "  C: {roles: [provider], data: {source: phantom, patients: 24}}",
        "task: {name: lesion, label: lesion, image_size: 32, margin_mm: 6}",
        f"arms: {{shared: {{model: dcgan, batch_size: 4, {arm}}}}}",
        "study: {classifiers: [cnn_small], synthetic: 8}",
    ])  # fmt: skip
    plan = Plan(parse(text, source="test", base=Path()))
    assert sum(ask.kind is fidelity.FEATURE_SUMS for ask in plan.asks()) == asked
