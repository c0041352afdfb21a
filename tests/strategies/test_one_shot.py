"""Local halves: what a provider shares is what a receiver draws from, to the bit."""

import numpy as np
import pytest

from models import GeneratorSpec, PatchArrays
from strategies.one_shot import synthesise, train_generator


@pytest.mark.parametrize(
    ("model", "hyper", "conditional"),
    [
        ("dcgan", {"width": 8}, True),
        ("flow_matching", {"widths": [32], "sampling_steps": 2}, True),
        ("wgan_gp", {"width": 8}, False),
    ],
)
def test_a_shared_generator_draws_the_same_images_anywhere(model, hyper, conditional):
    spec = GeneratorSpec.model_validate(
        {
            "model": model,
            "image_size": 32,
            "conditional": conditional,
            "hyper_parameters": hyper,
            "training": {"steps": 2, "batch_size": 4},
        }
    )
    rng = np.random.default_rng(0)
    patches = PatchArrays(rng.integers(0, 256, (12, 1, 32, 32), dtype=np.uint8), np.arange(12), np.arange(12) % 2)
    compute = {"device": "cpu", "precision": "fp32"}
    weights, result = train_generator(spec, patches, seed=3, **compute)
    again, _ = train_generator(spec, patches, seed=3, **compute)
    assert weights.keys() == again.keys() and all(np.array_equal(weights[k], again[k]) for k in weights)
    assert result["history"]["step"][-1] == 2
    counts = {0: 3, 1: 5} if conditional else {1: 5}
    images, labels = synthesise(spec, weights, counts, seed=9, **compute)
    assert images.dtype == np.uint8 and images.shape == (sum(counts.values()), 1, 32, 32)
    assert {int(k): int((labels == k).sum()) for k in counts} == counts
    same, _ = synthesise(spec, {k: v.copy() for k, v in weights.items()}, counts, seed=9, **compute)
    assert np.array_equal(images, same)
    other, _ = synthesise(spec, weights, counts, seed=10, **compute)
    assert not np.array_equal(images, other)
    assert not any("discriminator" in name or "critic" in name for name in weights)
