"""Our optimizers are torch's, step for step, and import no compiler."""

import subprocess
import sys

import pytest
import torch

from models import optimizers

SETTINGS = {
    "AdamW": {"lr": 0.01, "betas": (0.5, 0.9), "weight_decay": 0.1, "fused": True},
    "SGD": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_steps_and_the_same_state_as_torch(name):
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    found = []
    for optimizer_class in (getattr(torch.optim, name), getattr(optimizers, name)):
        weight = start.clone().requires_grad_()
        optimizer = optimizer_class([weight], **SETTINGS[name])
        for step in range(4):
            optimizer.zero_grad(set_to_none=True)
            assert weight.grad is None
            (weight * (step + 1)).square().sum().backward()
            optimizer.step()
            if step == 1:
                kept = optimizer.state_dict()
                optimizer = optimizer_class([weight], **SETTINGS[name])
                optimizer.load_state_dict(kept)
        assert weight.requires_grad and weight.is_leaf
        found.append((weight.detach(), optimizer.state_dict()))
    assert torch.equal(found[0][0], found[1][0])
    assert str(found[0][1]) == str(found[1][1])


def test_training_imports_no_compiler():
    code = (
        "import sys, numpy as np\n"
        "from models import GenerativeTrainer, GeneratorSpec, PatchArrays\n"
        "spec = GeneratorSpec.model_validate({'model': 'dcgan', 'image_size': 32, 'classes': ['a', 'b'],"
        " 'hyper_parameters': {'width': 2},"
        " 'training': {'batch_size': 2, 'steps': 2}})\n"
        "trainer = GenerativeTrainer(spec.build(0), spec.training, seed=0)\n"
        "trainer.advance(PatchArrays(np.zeros((4, 1, 32, 32), np.uint8), np.arange(4), np.arange(4) % 2), 2)\n"
        "trainer.load_state(trainer.state())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
