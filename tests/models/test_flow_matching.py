"""Flow matching: the integrator on fields with known solutions, guidance, label drop, and that training works."""

import numpy as np
import pytest
import torch

from models import GeneratorSpec, PatchArrays, fit_generative
from models.flow_matching import heun
from models.generative import Batch


def spec(image_size=32, channels=1, conditional=True, training=None, **hyper) -> GeneratorSpec:
    return GeneratorSpec.model_validate(
        {"model": "flow_matching", "image_size": image_size, "classes": ["healthy", "lesion"], "channels": channels,
         "conditional": conditional,
         "hyper_parameters": {"widths": [32]} | hyper, "training": training or {}}
    )  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_heun_is_exact_where_velocity_is_linear_in_time(steps):
    """dx/dt = a + b t has x(1) = x(0) + a + b / 2, and the trapezium rule meets it for any number of steps."""
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    a, b = torch.tensor([0.5, 3.0], dtype=torch.float64), torch.tensor([-1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(heun(lambda _, t: a + b * t, x, steps), x + a + b / 2)


def test_heun_converges_with_the_square_of_the_step():
    def error(steps):  # dx/dt = x
        return abs(heun(lambda x, t: x, torch.ones(1, dtype=torch.float64), steps).item() - np.e)

    assert error(20) / error(40) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(("widths", "millions"), [((64, 96, 128), 1.7), ((32, 64, 96), 0.8)])
def test_parameters(widths, millions):
    model = spec(widths=widths).build(0)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_shapes(image_size, channels, conditional):
    model = spec(image_size, channels, conditional, widths=[32, 32, 32], sampling_steps=1).build(0)
    labels = torch.tensor([0, 1]) if conditional else None
    assert model.sample(2, labels, torch.Generator()).shape == (2, channels, image_size, image_size)
    loss, _ = model.velocity_loss(Batch(2, torch.zeros(2, channels, image_size, image_size), labels), torch.Generator())
    assert torch.isfinite(loss)


def test_sizes_and_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="makes sides that are multiples of 8"):
        spec(36, widths=[32, 32, 32]).build(0)
    with pytest.raises(ValueError, match="multiple of 32"):
        spec(widths=[48])


def test_untrained_loss_is_the_power_of_the_velocity():
    """The network starts as the zero field, so the loss is E|x1 - x0|^2 = mean x1^2 + 1."""
    model = spec().build(0)
    images = torch.full((256, 1, 32, 32), 0.5)
    loss, _ = model.velocity_loss(
        Batch(256, images, torch.zeros(256, dtype=torch.long)), torch.Generator().manual_seed(0)
    )
    assert loss.item() == pytest.approx(1.25, abs=0.01)


class Recorder(torch.nn.Module):
    """A velocity of +1 with class 1, -1 with class 0 and 0 with none; remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.classes, self.times = [], []
        self.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))

    def forward(self, x, t, classes=None):
        self.classes.append(classes)
        self.times.append(t)
        return torch.zeros_like(x) + torch.tensor([-1.0, 1.0, 0.0])[classes][:, None, None, None]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_extrapolates_from_no_class_to_the_class(guidance):
    model = spec(guidance=guidance, sampling_steps=3).build(0)
    labels = torch.tensor([0, 1, 1])
    images = model.draw(Recorder(), 3, labels, torch.Generator().manual_seed(0))
    noise = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = noise + guidance * torch.tensor([-1.0, 1.0, 1.0])[:, None, None, None]
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)


def test_a_tenth_of_the_labels_is_dropped_and_times_centre_below_one_half():
    model = spec().build(0)
    recorder = Recorder()
    model.networks["generator"] = recorder
    labels = torch.ones(20000, dtype=torch.long)
    model.velocity_loss(Batch(20000, torch.zeros(20000, 1, 2, 2), labels), torch.Generator().manual_seed(0))
    assert (recorder.classes[0] == 2).double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert recorder.times[0].median().item() == pytest.approx(1 / (1 + np.exp(0.2)), abs=0.01)


def discs_and_bars(count: int, rng: np.random.Generator) -> PatchArrays:
    """16 px images: bright discs (class 1) and horizontal bars (class 0) somewhere on a dark ground."""
    y, x = np.mgrid[:16, :16]
    pixels = np.full((count, 1, 16, 16), 40, np.uint8)
    for i in range(count):
        cy, cx = rng.integers(5, 11, 2)
        shape = (y - cy) ** 2 + (x - cx) ** 2 < 9 if i % 2 else abs(y - cy) < 2
        pixels[i, 0][shape] = 220
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 2)


def test_training_learns_two_classes():
    images = discs_and_bars(200, np.random.default_rng(0))
    training = {"steps": 90, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 10, "flips": "none", "ema": 0.95}
    small = spec(16, widths=[32, 32], sampling_steps=6, training=training)
    model = small.build(0)
    history = fit_generative(model, images, small.training, seed=0).history
    assert np.mean(history["velocity_loss"][-10:]) < 0.45 * history["velocity_loss"][0]
    labels = torch.arange(40) % 2
    drawn = model.sample_stored(40, labels, torch.Generator().manual_seed(1)).astype(float)[:, 0]
    # A bar reaches the left and right border, a disc does not: the brightest pixel of the border tells the class.
    border = np.maximum(drawn[:, :, 0].max(1), drawn[:, :, -1].max(1))
    right = (border > 130) == (labels.numpy() == 0)
    assert right.mean() > 0.85
