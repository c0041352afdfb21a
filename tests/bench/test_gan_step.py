"""The benchmarks of training compare our loop with steps written by hand: both are still there to be timed."""

import pytest
import torch

from bench.gan_step import CASES, hand_training, loop_step, random_images, spec_of


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_loop_and_the_steps_written_by_hand_both_run(case):
    model, image_size, _, width = case
    spec, images = spec_of(model, image_size, 4, width), random_images(image_size)
    loop_step(spec, images, "fp32")()
    step, networks = hand_training(spec, images, "fp32")
    before = [parameter.detach().clone() for parameter in networks.parameters()]
    step()
    after = list(networks.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
