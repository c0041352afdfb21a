"""dm-GAN: with one centre and no delay it is ordinary GAN training; both exchanges agree; discriminators stay at home."""

import numpy as np
import pytest

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
    settings = DmGANSettings(
        updates=5, batches_per_job=1, exchange=exchange, steps="mean" if exchange == "generator" else "each"
    )
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


def jobs_with_discriminator(centres):
    return [
        any(name.startswith("discriminator.") for name in job.arrays) for job in centres.sent("train_discriminator")
    ]


def test_discriminators_travel_only_when_they_change_places(lab, share):
    here = lab(A=12, B=12)
    spec = here.spec(ema=None)
    settings = DmGANSettings(updates=7, batches_per_job=1, lock_step=True, swap_every=3)
    centres = here.centres()
    (shared,) = share(centres, here.dm_gan(spec, settings, strategy="md_gan"))
    assert not shared.problems
    rounds = [jobs_with_discriminator(centres)[start : start + 2] for start in range(0, 14, 2)]
    assert rounds == [[number in (3, 6)] * 2 for number in range(7)], "a swapped discriminator is sent once"
    sent = [r.unit for r in centres.replies if any(n.startswith("discriminator.") for n in r.arrays)]
    assert len(sent) == 2 * 2


def test_a_swapped_discriminator_is_trained_on_where_it_arrived(lab, share, same_arrays):
    """What a centre sends at a swap is what the other one goes on with, and what that one then keeps training."""
    here = lab(A=12, B=12)
    settings = DmGANSettings(updates=5, batches_per_job=1, lock_step=True, swap_every=2)
    centres = here.centres()
    share(centres, here.dm_gan(here.spec("wgan_gp", ema=None), settings, strategy="md_gan"))

    def discriminators(one):
        return {n: a for n, a in one.arrays.items() if n.startswith("discriminator.")}

    replies = {
        (r.centre, number // 2): r
        for number, r in enumerate(r for r in centres.replies if r.kind == "train_discriminator")
    }
    jobs = {(j.centre, number // 2): j for number, j in enumerate(centres.sent("train_discriminator"))}
    for here_, there in (("A", "B"), ("B", "A")):
        same_arrays(discriminators(jobs[here_, 2]), discriminators(replies[there, 1]))
    # Update 3 ends with another swap: what is sent then was trained since in two jobs, not set back before the second.
    for name, array in discriminators(replies["A", 3]).items():
        assert not np.array_equal(array, discriminators(replies["B", 1])[name])
    assert not discriminators(jobs["A", 3])
