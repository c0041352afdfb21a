"""Local halves: what a provider shares is what a receiver draws from, to the bit, and no discriminator is shared."""

import json

import numpy as np
import pytest

from federation.wire.job import canonical_json
from models import GenerativeModel, GeneratorSpec, PatchArrays
from strategies.delivery import drawn
from strategies.layouts import layout_of
from strategies.one_shot import TRAIN, WEIGHTS, curves, trained

COMPUTE = {"device": "cpu", "precision": "fp32"}
STEPS = 4  # one for each size of a model that grows
MODELS = {
    "dcgan": ({"width": 8}, True),
    "flow_matching": ({"widths": [32], "sampling_steps": 2}, True),
    "wgan_gp": ({"width": 8}, False),
    "stylegan2_ada": ({"channel_base": 128, "channel_max": 8, "latent": 8, "style_dim": 8}, True),
    "pggan": ({"width": 8}, True),
    "r3gan": ({"width": 8, "augment": "diffaugment"}, True),
}


PATCHES = PatchArrays(
    np.random.default_rng(0).integers(0, 256, (12, 1, 32, 32), dtype=np.uint8), np.arange(12), np.arange(12) % 2
)


def specification(model):
    hyper, conditional = MODELS[model]
    return GeneratorSpec.model_validate(
        {
            "model": model,
            "image_size": 32,
            "classes": ["healthy", "lesion"],
            "conditional": conditional,
            "hyper_parameters": hyper,
            "training": {"steps": STEPS, "batch_size": 4},
        }
    )


@pytest.fixture(scope="module", params=MODELS)
def shared(request):
    """A specification, the weights that its training shares, and the training's history."""
    spec = specification(request.param)
    return spec, *trained(spec, PATCHES, seed=3, **COMPUTE)


def test_training_again_gives_the_same_weights(shared):
    spec, weights, history = shared
    again, _ = trained(spec, PATCHES, seed=3, **COMPUTE)
    assert weights.keys() == again.keys() and all(np.array_equal(weights[k], again[k]) for k in weights)
    assert history["step"][-1] == STEPS


def test_a_shared_generator_draws_the_same_images_anywhere(shared):
    spec, weights, _ = shared
    counts = {0: 3, 1: 5} if spec.conditional else {1: 5}
    images, labels = drawn(spec, weights, counts, seed=9, **COMPUTE)
    assert images.dtype == np.uint8 and images.shape == (sum(counts.values()), 1, 32, 32)
    assert {int(k): int((labels == k).sum()) for k in counts} == counts
    same, _ = drawn(spec, {k: v.copy() for k, v in weights.items()}, counts, seed=9, **COMPUTE)
    assert np.array_equal(images, same)
    other, _ = drawn(spec, weights, counts, seed=10, **COMPUTE)
    assert not np.array_equal(images, other)


# -- no discriminator --------------------------------------------------------------------------------------------------


def beyond_the_generator(spec, weights):
    """Names in which shared weights differ from the state of the generator's network; its counters are not shared."""
    own = {
        name for name in spec.build(0).networks["generator"].state_dict() if not name.endswith("num_batches_tracked")
    }
    return {name.partition(".")[2] for name in weights} ^ own


def misfit(spec, weights, own_data, compute):
    """The first of the weights that the kind of job does not declare."""
    body = TRAIN.parse(own_data | {"generator": spec, "name": "g", "seed": 3, "compute": compute})
    declared = {name: array for name, array in TRAIN.layout_out(body).items() if name.startswith(WEIGHTS)}
    sent = layout_of(weights, WEIGHTS)
    return next((name for name in (*declared, *sent) if declared.get(name) != sent.get(name)), "")


def test_what_is_shared_is_the_generator_alone(shared, own_data, compute):
    spec, weights, _ = shared
    assert not beyond_the_generator(spec, weights) and not misfit(spec, weights, own_data, compute)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "flow_matching"])
def test_a_discriminator_among_what_is_shared_would_be_found(model, monkeypatch, own_data, compute):
    spec = specification(model)
    plain = GenerativeModel.sharable_state

    def leaky(self):
        first, tensor = next(iter(self.networks["discriminator"].state_dict().items()))
        return plain(self) | {f"d.{first}": tensor.clone()}

    monkeypatch.setattr(GenerativeModel, "sharable_state", leaky)
    weights, _ = trained(spec, PATCHES, seed=3, **COMPUTE)
    assert len(beyond_the_generator(spec, weights)) == 1
    assert misfit(spec, weights, own_data, compute).startswith("weights.final.d.")


def test_what_was_not_measured_in_a_window_travels_as_nothing():
    """Of a lazy phase, or of snapshots; JSON has no NaN."""
    values = {"model": "pggan", "image_size": 32, "classes": ["healthy", "lesion"], "hyper_parameters": {"width": 2}}
    training = {"steps": 6, "batch_size": 4, "snapshot_every": 4, "choose_snapshot": "sliced_wasserstein"}
    _, history = trained(GeneratorSpec.model_validate(values | {"training": training}), PATCHES, seed=3, **COMPUTE)
    found = json.loads(canonical_json(curves(history)))
    assert [value is None for value in found["sliced_wasserstein"]] == [True] * 3 + [False, True, False]
    assert found["step"] == [1, 2, 3, 4, 5, 6] and None not in found["critic_loss"]
