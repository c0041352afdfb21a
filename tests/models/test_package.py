"""Generator packages: what is written is read, and what was altered is not."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import GeneratorPackage, GeneratorSpec, PackageError
from models.package import _shapes_of

SPEC = GeneratorSpec.model_validate(
    {
        "model": "dcgan",
        "image_size": 32,
        "classes": ["healthy", "lesion"],
        "conditional": True,
        "hyper_parameters": {"width": 2, "latent": 4},
        "training": {"steps": 5},
    }
)
CARD = {"licence": "CC0", "purpose": "test", "data_card": {"train": {"1": "<5"}}}


@pytest.fixture(scope="module")
def package():
    return GeneratorPackage(SPEC, SPEC.build(0).shared_arrays(), CARD)


@pytest.fixture
def folder(tmp_path, package):
    package.write(tmp_path / "shared" / "b_gan")
    return tmp_path / "shared" / "b_gan"


def test_round_trip(folder, package):
    read = GeneratorPackage.read(folder)
    assert read.spec == SPEC and read.card == CARD and read.digest == package.digest
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "generator.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["b_gan"]  # nothing temporary is left
    model, again = SPEC.build(0), read.spec.build(9)
    again.load_shared_arrays(read.weights)
    labels = torch.tensor([0, 1])
    images = [m.sample_stored(2, labels, torch.Generator().manual_seed(0)) for m in (model, again)]
    assert (images[0] == images[1]).all()


def test_the_card_says_what_the_generator_is(folder):
    card = json.loads((folder / "card.json").read_text())
    assert card["format"] == "polycentre-generator/2"
    assert card["architecture"] == {
        "model": "dcgan", "image_size": 32, "classes": ["healthy", "lesion"], "made": ["healthy", "lesion"], "channels": 1,
        "conditional": True, "num_classes": 2, "storage": "uint8",
        "hyper_parameters": {"width": 2, "latent": 4, "smoothing": [0.8, 1.1]},
    }  # fmt: skip
    assert card["training"]["steps"] == 5 and card["training"]["learning_rate"] == 1e-4
    assert set(card["hashes"]) == {"generator.safetensors", "card.json"}
    assert card["data_card"] == CARD["data_card"]


@pytest.mark.parametrize("name", ["card.json", "generator.safetensors"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_is_refused(folder, name, where, change):
    path = folder / name
    original = path.read_bytes()
    altered = bytearray(original)
    altered[int(where * len(altered))] ^= change
    path.write_bytes(bytes(altered))
    try:
        with pytest.raises(PackageError) as caught:
            GeneratorPackage.read(folder)
        assert caught.value.code == "bad_package"
    finally:
        path.write_bytes(original)


def test_missing_files(tmp_path, folder):
    with pytest.raises(PackageError, match="is not a generator package"):
        GeneratorPackage.read(tmp_path / "nothing")
    (folder / "generator.safetensors").unlink()
    with pytest.raises(PackageError, match="is not a generator package"):
        GeneratorPackage.read(folder)


def test_another_format_is_refused(folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"format": "polycentre-generator/9"}))
    with pytest.raises(PackageError, match="this version reads 'polycentre-generator/2'"):
        GeneratorPackage.read(folder)


def test_what_cannot_be_written(tmp_path, package):
    other = {name: array for name, array in package.weights.items() if not name.endswith("layers.0.weight")}
    with pytest.raises(PackageError, match="do not fit"):
        GeneratorPackage(SPEC, other).write(tmp_path / "x")
    poisoned = {name: np.full_like(array, np.nan) for name, array in package.weights.items()}
    with pytest.raises(PackageError, match="NaN or infinity"):
        GeneratorPackage(SPEC, poisoned).write(tmp_path / "x")
    with pytest.raises(PackageError, match="'hashes' is written by the package itself"):
        GeneratorPackage(SPEC, package.weights, {"hashes": {}}).write(tmp_path / "x")
    with pytest.raises(PackageError, match="not JSON"):
        GeneratorPackage(SPEC, package.weights, {"fid": float("nan")}).write(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_what_checks_shapes_keeps_no_weights(tmp_path, package):
    """An ensemble's arrays, which would be the largest thing in the process."""
    members = {
        f"{m}.{key.partition('.')[2]}": array for m in ("step1", "step2") for key, array in package.weights.items()
    }
    GeneratorPackage(SPEC, members).write(tmp_path / "ensemble")
    kept = _shapes_of(SPEC.model_dump_json())
    assert not kept._members and all(tensor.is_meta for tensor in kept.state_dict().values())
    read = GeneratorPackage.read(tmp_path / "ensemble")
    assert set(read.weights) == set(members) and not kept._members


def test_writing_again_replaces(folder, package):
    GeneratorPackage(SPEC, package.weights, {"licence": "other"}).write(folder)
    assert GeneratorPackage.read(folder).card == {"licence": "other"}


def test_a_spec_fills_in_defaults_and_refuses_what_it_does_not_know():
    assert SPEC.hyper_parameters == {"width": 2, "latent": 4, "smoothing": [0.8, 1.1]}
    assert GeneratorSpec.model_validate_json(SPEC.model_dump_json()) == SPEC
    flow = GeneratorSpec.model_validate(
        {
            "model": "flow_matching",
            "image_size": 32,
            "classes": ["healthy", "lesion"],
            "hyper_parameters": {},
            "training": {},
        }
    )
    assert flow.training.ema == 0.998 and flow.training.batch_size == 64
    for change, message in (
        ({"model": "vae"}, "no model 'vae'; known models: dcgan, wgan_gp, flow_matching"),
        ({"hyper_parameters": {"depth": 3}}, "depth"),
        ({"training": {"epochs": 3}}, "epochs"),
        ({"channels": 2}, "1 or 3"),
    ):
        with pytest.raises(ValueError, match=message):
            GeneratorSpec.model_validate(SPEC.model_dump() | change)
