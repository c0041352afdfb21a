"""dm-GAN: with one centre and no delay it is ordinary GAN training; both exchanges agree; discriminators stay at home."""

import numpy as np
import pytest
import torch

from models import GenerativeTrainer
from strategies.dm_gan import DmGANSettings

BOTH_GANS = [(model, conditional) for model in ("dcgan", "wgan_gp") for conditional in (False, True)]


def state_of(centres, key=None):
    from safetensors.numpy import load_file

    (folder,) = (centres_folder(centres) / "A" / "states").iterdir()
    newest = max(folder.glob("*.safetensors"), key=lambda path: int(path.stem))
    return {n.removeprefix("state."): a for n, a in load_file(newest).items() if n.startswith("state.")}


def centres_folder(centres):
    from pathlib import Path

    return Path(centres.place["out"]) / "centres"


@pytest.mark.parametrize(("model", "conditional"), BOTH_GANS)
@pytest.mark.parametrize("exchange", ["images", "generator"])
def test_one_centre_and_one_batch_a_job_is_ordinary_training(model, conditional, exchange, lab, share, same_arrays):
    here = lab(A=20)
    spec = here.spec(model, conditional, decay="linear_second_half", steps=5)
    settings = DmGANSettings(updates=5, batches_per_job=1, exchange=exchange, steps="mean" if exchange == "generator" else "each")
    centres = here.centres()
    (shared,) = share(centres, here.dm_gan(spec, settings))
    assert not shared.problems
    plain = GenerativeTrainer(spec.build(5), spec.training, seed=100)
    plain.advance(here.patches("A", conditional), 5)
    weights = plain.model.shared_arrays()
    found = shared.generators["arm", "task"].weights
    discriminator = {n: t.numpy() for n, t in plain.state().items() if ".discriminator." in n}
    kept = {n: a for n, a in state_of(centres).items() if ".discriminator." in n}
    if exchange == "generator":
        # Running statistics follow images of the server's own, which draws none of the centre's noise.
        weights, found = ({n: a for n, a in w.items() if "running" not in n} for w in (weights, found))
    same_arrays(found, weights)
    same_arrays(kept, discriminator)
