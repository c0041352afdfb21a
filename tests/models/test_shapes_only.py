"""Networks without memory have the shapes of real ones, and cost next to nothing."""

import subprocess
import sys

import pytest
import torch

from models import GENERATIVE_MODELS, GenerativeTraining, GeneratorSpec
from models.shapes_only import shapes_only


@pytest.mark.parametrize("model", sorted(GENERATIVE_MODELS))
def test_shapes_are_those_of_a_network_in_memory(model):
    defaults = GENERATIVE_MODELS[model].training_defaults()
    spec = GeneratorSpec(
        model=model, hyper_parameters={}, training=GenerativeTraining.model_validate(defaults.model_dump()),
        conditional=True, image_size=32, channels=1, classes=("healthy", "lesion"),
    )  # fmt: skip
    with shapes_only():
        without = spec.build(0)
    real = spec.build(0)
    for name, network in real.networks.items():
        found = without.networks[name].state_dict()
        assert {k: (t.shape, t.dtype) for k, t in network.state_dict().items()} == {
            k: (t.shape, t.dtype) for k, t in found.items()
        }
        assert [b.shape for b in network.buffers()] == [b.shape for b in without.networks[name].buffers()]
        assert all(parameter.is_meta for parameter in without.networks[name].parameters())


def test_draws_outside_and_on_real_tensors_are_untouched():
    with shapes_only():
        drawn = torch.zeros(1000, device="cpu").normal_(generator=torch.Generator("cpu").manual_seed(0))
    assert drawn.std() == pytest.approx(1, abs=0.1)
    assert torch.zeros(1000).normal_().std() == pytest.approx(1, abs=0.1)


def test_the_compiler_stays_out():
    code = """
import sys
import torch
from models import GENERATIVE_MODELS, GenerativeTraining, GeneratorSpec
from models.shapes_only import shapes_only
for model, settings in GENERATIVE_MODELS.items():
    training = GenerativeTraining.model_validate(settings.training_defaults().model_dump())
    with shapes_only():
        GeneratorSpec(model=model, hyper_parameters={}, training=training, conditional=True, image_size=32, classes=("a", "b")).build(0)
    assert "torch._dynamo" not in sys.modules, model
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
