"""PGGAN and R3GAN learn: a ring of Gaussians, drawn as images of one spot each."""

import numpy as np
import pytest
import torch

from models import GenerativeTrainer, GeneratorSpec, PatchArrays

SIDE, PLACES, RADIUS = 16, 8, 4.5


def ring(count, seed=0):
    """A bright spot at one of eight places on a circle, a little beside it: uint8 (count, 1, 16, 16), and its place."""
    rng = np.random.default_rng(seed)
    place = np.arange(count) % PLACES
    angle = 2 * np.pi * place / PLACES
    centre = 7.5 + RADIUS * np.stack([np.sin(angle), np.cos(angle)], axis=1) + 0.3 * rng.standard_normal((count, 2))
    grid = np.arange(SIDE)
    row, column = (np.exp(-((grid - centre[:, i, None]) ** 2) / 4) for i in (0, 1))
    return (255 * row[:, :, None] * column[:, None, :]).astype(np.uint8)[:, None], place


def seen(images):
    """Of images like the ring's: share that shows one spot on the circle, and share of the places that are shown."""
    light = np.clip(images[:, 0].astype(float) - 60, 0, None)
    total = light.sum((1, 2)) + 1e-9
    rows, columns = (light.sum(axis) @ np.arange(SIDE) / total - 7.5 for axis in (2, 1))
    away = (np.arange(SIDE) - 7.5 - rows[:, None])[:, :, None] ** 2 + (np.arange(SIDE) - 7.5 - columns[:, None])[
        :, None
    ] ** 2
    spread = (light * away).sum((1, 2)) / total
    radius = np.hypot(rows, columns)
    good = (np.abs(radius - RADIUS) < 1.5) & (spread < 6) & (light.max((1, 2)) > 60)
    places = np.round(np.arctan2(rows, columns) / (2 * np.pi) * PLACES).astype(int) % PLACES
    return good.mean(), len(set(places[good].tolist())) / PLACES


def test_the_measure_sees_real_images_as_good_and_noise_as_bad():
    images, place = ring(200)
    good, covered = seen(images)
    assert good == 1 and covered == 1 and len(set(place.tolist())) == PLACES
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    assert seen(noise)[0] < 0.1
    assert seen(images[:1].repeat(50, axis=0)) == (1, 1 / PLACES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "hyper", "training"),
    [
        ("pggan", {"width": 16, "latent": 8, "critic_steps": [3, 3, 4]}, {"steps": 450, "ema": 0.95, "learning_rate": 0.004}),
        ("r3gan", {"width": 16, "latent": 8, "gamma": 1}, {"steps": 420, "ema": 0.98, "learning_rate": 0.001}),
    ],
    ids=["pggan", "r3gan"],
)  # fmt: skip
def test_it_learns_a_ring_of_gaussians(model, hyper, training):
    spec = GeneratorSpec.model_validate(
        {"model": model, "image_size": SIDE, "classes": ["a", "b"], "hyper_parameters": hyper,
         "training": {"batch_size": 16, "flips": "none"} | training}
    )  # fmt: skip
    images = PatchArrays(ring(320)[0], np.arange(320))
    built = spec.build(0)
    draw = lambda: seen(built.sample_stored(200, None, torch.Generator().manual_seed(1)))  # noqa: E731
    before = draw()
    GenerativeTrainer(built, spec.training, seed=0).advance(images, spec.training.steps)
    good, covered = draw()
    assert before[0] < 0.2
    assert good > 0.35 and covered >= 0.75, (good, covered)
