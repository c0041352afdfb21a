"""The detector of leaked patches (tests/conftest.py) sees a patch in every form in which it could travel."""

import numpy as np
import pytest

from data_partitions import PatchTask, SplitRule, build_patches
from data_partitions.phantom.phantom import PhantomSource
from federation.wire.transport import encode

TASK = PatchTask(image_size=32, margin_mm=4.2, crops=2)
OTHERS = 5  # images before the patch in its batch


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaks")
    build_patches(PhantomSource(patients=16), TASK, SplitRule(), centre="A", seed=3, cache=folder)
    return folder


@pytest.fixture(scope="module")
def patches(cache, patches_of):
    return patches_of(cache)


@pytest.fixture(scope="module")
def planted(patches):
    """uint8 (6, 1, 32, 32): a patch of middling contrast after images of noise."""
    found = np.stack([np.frombuffer(patch, np.uint8) for patch in sorted(patches)])
    patch = found[np.argsort(found.std(axis=1), kind="stable")[len(found) // 4]]
    noise = np.random.default_rng(0).integers(0, 256, (OTHERS, 1, 32, 32), dtype=np.uint8)
    return np.concatenate([noise, patch.reshape(1, 1, 32, 32)])


def as_int8(images):
    """The transport's rounding of images in [-1, 1]; the scales travel in an array of their own."""
    return encode({"x": images.astype(np.float32) / np.float32(127.5) - 1}, "int8")["x"]


FORMS = {
    "uint8": lambda u: u,
    "float32 in [-1, 1]": lambda u: (u / 127.5 - 1).astype(np.float32),
    "float64 in [0, 1]": lambda u: u / 255,
    "float16 in [-1, 1]": lambda u: (u / 127.5 - 1).astype(np.float16),
    "int8 of the transport": as_int8,
    "int8 of the transport, all in one row": lambda u: as_int8(u.reshape(1, -1)),
    "int8 by subtraction": lambda u: (u.astype(np.int16) - 128).astype(np.int8),
    "uint16": lambda u: u.astype(np.uint16) * 257,
    "int16 centred": lambda u: (u.astype(np.int16) - 128) * 256,
    "int32": lambda u: u.astype(np.int32),
    "int64": lambda u: u.astype(np.int64) - 128,
    "normalised by the patch": lambda u: ((u - u[-1].mean()) / u[-1].std()).astype(np.float32),
}
TURNS = {
    "as it is": lambda u: u,
    "mirrored": lambda u: u[..., ::-1],
    "upside down": lambda u: u[..., ::-1, :],
    "half a turn": lambda u: u[..., ::-1, ::-1],
    "transposed": lambda u: np.swapaxes(u, 2, 3),
    "a quarter turn": lambda u: np.rot90(u, 1, axes=(2, 3)),
    "three quarter turns": lambda u: np.rot90(u, 3, axes=(2, 3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_patch_is_found_in_every_form_and_turned(form, planted, patches, leaks):
    for turn in TURNS.values():
        sent = np.ascontiguousarray(FORMS[form](np.ascontiguousarray(turn(planted))))
        assert leaks([np.zeros(7), sent], patches)
        assert leaks([sent.reshape(3, 2, -1)], patches), "in any shape"
        assert not leaks([sent.reshape(-1, 1024)[:OTHERS]], patches), "without the patch nothing is found"


def test_patches_of_other_patients_and_weights_are_not_taken_for_a_leak(tmp_path, patches, leaks):
    others = build_patches(PhantomSource(patients=16), TASK, SplitRule(), centre="B", seed=3, cache=tmp_path).stored()
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.02, (64, 32, 4, 4)).astype(np.float32)
    assert not leaks([*(form(others) for form in FORMS.values()), weights, as_int8(weights)], patches)
    assert not leaks([np.full((2, 32, 32), np.nan), np.ones((4, 32, 32)), np.zeros((1, 1024), bool)], patches)


def test_nearly_all_patches_are_found_after_rounding_to_int8(patches, leaks):
    one_by_one = [np.frombuffer(patch, np.uint8).reshape(1, 1, 32, 32) for patch in sorted(patches)[::8]]
    found = [leaks([as_int8(patch)], patches) for patch in one_by_one]
    assert np.mean(found) >= 0.95
