"""The plain version in the benchmark is the same model."""

import pytest

from bench.stylegan2_ada import PLAIN, TOLERANCE, built, differences, spec_of, times


@pytest.mark.parametrize("size", [32, 64])
def test_both_versions_make_the_same(size):
    spec = spec_of(size, channel_base=512, channel_max=16, latent=8, style_dim=8)
    models = built(spec)
    assert {type(module) for module in models[1].networks.modules()}.isdisjoint(PLAIN)
    apart = differences(*models)
    assert max(apart["images"], apart["scores"]) < TOLERANCE and apart["gradients"] < 10 * TOLERANCE
    phases = times(models, spec, 1)
    assert list(phases) == ["discriminator", "r1", "generator", "path_length"]
    assert all(len(both) == 2 for both in phases.values())
    # After steps of every phase, too.
    assert max(differences(*models).values()) < 100 * TOLERANCE
