"""Feature spaces: closed forms of single features, invariances, independence of batches, and alarm at damage."""

import hashlib

import numpy as np
import pytest
import torch
from scipy import ndimage

from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums, frechet_distance
from metrics.random_network import SEED, _weights

SPACES = sorted(FEATURE_SPACES)
HISTOGRAM, NEAR, FAR, SPECTRUM = slice(0, 16), slice(16, 26), slice(26, 36), slice(51, 59)
GRADIENTS = [slice(36 + 5 * scale, 41 + 5 * scale) for scale in range(3)]


def tissue(count, side=32, seed=0, channels=1):
    """Smooth random fields with fine grain, of varying brightness: uint8 (count, channels, side, side)."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, channels, side, side)), (0, 0, 3, 3), mode="wrap")
    grain = ndimage.gaussian_filter(rng.normal(size=(count, channels, side, side)), (0, 0, 0.6, 0.6), mode="wrap")
    level = rng.uniform(90, 160, (count, 1, 1, 1))
    return np.clip(level + 300 * smooth + 8 * grain, 0, 255).astype(np.uint8)


def texture(image):
    """Features of one grey image (height, width)."""
    return FEATURE_SPACES["texture"](np.asarray(image, np.uint8)[None, None])[0]


@pytest.mark.parametrize("name", SPACES)
def test_table(name):
    space = FEATURE_SPACES[name]
    assert (space.name, space.distance) == (name, f"fd_{name}")
    assert space.dimensions == {"texture": 59, "randnet": 704}[name]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (3, 16, 33), (1, 47, 32), (3, 64, 80)])
def test_shapes_and_independence_of_batches_to_the_bit(name, channels, height, width):
    space = FEATURE_SPACES[name]
    images = tissue(11, 80, channels=channels)[..., :height, :width]
    whole = space(images)
    assert whole.shape == (11, space.dimensions) and whole.dtype == np.float64 and np.isfinite(whole).all()
    parts = np.concatenate([space(images[:1]), space(images[1:8]), space(images[8:8]), space(images[8:])])
    np.testing.assert_array_equal(parts, whole)
    assert len(np.unique(whole, axis=0)) == 11


@pytest.mark.parametrize("name", SPACES)
def test_more_images_than_one_batch_holds(name):
    images = tissue(6, 256)
    np.testing.assert_array_equal(FEATURE_SPACES[name](images)[5], FEATURE_SPACES[name](images[5:])[0])


@pytest.mark.parametrize("name", SPACES)
def test_a_grey_image_is_its_three_equal_channels(name):
    grey = tissue(4)
    colour = np.repeat(grey, 3, axis=1)
    np.testing.assert_allclose(FEATURE_SPACES[name](grey), FEATURE_SPACES[name](colour), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_are_finite(name, value):
    assert np.isfinite(FEATURE_SPACES[name](np.full((2, 1, 16, 16), value, np.uint8))).all()


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((2, 1, 32, 32), np.float32), "float32"),
        (np.zeros((2, 32, 32), np.uint8), "must be uint8"),
        (np.zeros((2, 2, 32, 32), np.uint8), "2 channels"),
        (np.zeros((2, 1, 32, 15), np.uint8), "32 x 15"),
        (np.zeros((2, 1, 1281, 32), np.uint8), "1281 x 32"),
    ],
)
def test_what_no_feature_is_defined_for(images, text):
    for space in FEATURE_SPACES.values():
        with pytest.raises(ValueError, match=text):
            space(images)


def test_histogram_of_a_ramp_is_flat():
    ramp = np.arange(256).reshape(16, 16)
    np.testing.assert_allclose(texture(ramp)[HISTOGRAM] ** 2, np.full(16, 1 / 16))
    assert (texture(np.full((16, 16), 200))[HISTOGRAM] == np.eye(16)[200 // 16]).all()


def test_patterns_of_a_ramp_a_dot_and_noise():
    # Along a ramp three neighbours are darker and five are not: every pixel is the uniform pattern of five ones.
    np.testing.assert_allclose(texture(np.tile(np.arange(32), (32, 1)))[NEAR] ** 2, np.eye(10)[5])
    dot = np.zeros((17, 17))
    dot[8, 8] = 255
    shares = texture(dot)[NEAR] ** 2 * 15 * 15
    # The dot sees no neighbour as bright; everything else, its neighbours too, sees only ones.
    np.testing.assert_allclose(shares, [1, 0, 0, 0, 0, 0, 0, 0, 224, 0], atol=1e-9)
    # Independent pixels: the rank of the centre among nine is uniform, so all ones or none have 1/9 each.
    noise = np.random.default_rng(0).integers(0, 256, (256, 256))
    shares = texture(noise)[FAR] ** 2
    assert shares[0] == pytest.approx(1 / 9, abs=0.01) and shares[8] == pytest.approx(1 / 9, abs=0.01)


def test_patterns_ignore_quarter_turns_and_monotone_changes_of_grey():
    image = tissue(1)[0, 0] // 2
    for other in (np.rot90(image), image[::-1], image * 2, image + 17):
        np.testing.assert_allclose(texture(other)[16:36], texture(image)[16:36])


def test_gradients_of_stripes():
    ramp = np.tile(np.arange(0, 128, 4), (32, 1))
    for scale, features in enumerate(texture(ramp)[part] for part in GRADIENTS):
        steepness = 4 * 2**scale / 255
        np.testing.assert_allclose(
            features, [np.log(steepness + 1 / 255), 0, 1 / (1 + (1 / 255 / steepness) ** 2), 0, np.log(1 / 255)],
            atol=1e-9,
        )  # fmt: skip
    assert texture(ramp.T)[GRADIENTS[0]][2] == pytest.approx(-texture(ramp)[GRADIENTS[0]][2])
    diagonal = texture(np.add.outer(np.arange(32), np.arange(32)) * 4)[GRADIENTS[0]]
    np.testing.assert_allclose(diagonal[2:4], [0, 1 / (1 + 1 / (2 * 4**2))], atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 24), (24, 17)])
def test_spectrum_by_the_whole_transform(height, width):
    image = tissue(1, 24)[0, 0, :height, :width]
    window = np.outer(*(np.sin(np.pi * np.arange(1, side + 1) / (side + 1)) ** 2 for side in (height, width)))
    power = np.abs(np.fft.fft2((image / 255 - image.mean() / 255) * window)) ** 2 / np.square(window).sum()
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")) / 0.5
    rings = [(radius > (ring + 1e-9) / 8) & (radius <= (ring + 1 + 1e-9) / 8) for ring in range(8)]
    expected = [np.log(np.sqrt(power[ring].mean()) + 1 / 255) for ring in rings]
    np.testing.assert_allclose(texture(image)[SPECTRUM], expected)


def test_spectrum_of_white_noise_is_flat_and_of_a_wave_a_peak():
    noise = np.random.default_rng(0).normal(128, 20, (256, 256)).clip(0, 255)
    # The lowest ring is missing what was subtracted with the mean.
    np.testing.assert_allclose(texture(noise)[SPECTRUM][1:], np.log(20 / 255 + 1 / 255), atol=0.05)
    wave = 128 + 60 * np.sin(2 * np.pi * 10 / 32 * np.arange(32))  # 10 of 16 cycles to Nyquist: ring 5 of 8
    assert (
        texture(np.tile(wave, (32, 1)))[SPECTRUM].argmax() == texture(np.tile(wave, (32, 1)).T)[SPECTRUM].argmax() == 4
    )


def test_luminance_of_pure_colours():
    colours = np.zeros((3, 3, 16, 16), np.uint8)
    colours[[0, 1, 2], [0, 1, 2]] = 255
    bins = FEATURE_SPACES["texture"](colours)[:, HISTOGRAM].argmax(axis=1)
    assert bins.tolist() == [int(255 * share) // 16 for share in (0.299, 0.587, 0.114)]


def test_the_random_network_by_an_independent_forward_pass():
    layers = []
    for weight, bias in _weights():
        layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer.double())
    images = tissue(3, 40, channels=3)
    x, outputs = torch.from_numpy(images).double() / 127.5 - 1, []
    with torch.no_grad():
        for layer in layers:
            outputs.append(torch.relu(layer(x)))
            x = torch.nn.functional.avg_pool2d(outputs[-1], 2)
    expected = [o.mean((2, 3)) for o in outputs] + [o.std((2, 3), unbiased=False) for o in outputs]
    np.testing.assert_allclose(FEATURE_SPACES["randnet"](images), torch.cat(expected, 1).numpy(), rtol=1e-3, atol=1e-4)


def test_the_random_network_has_the_same_weights_for_ever():
    assert SEED == 20190704
    digest = hashlib.sha256(b"".join(t.numpy().astype("<f4").tobytes() for layer in _weights() for t in layer))
    assert digest.hexdigest()[:16] == "5d6967f118e9638c"
    for index, (weight, bias) in enumerate(_weights()):
        bound, sums = (6 / weight[0].numel()) ** 0.5, weight.double().sum((2, 3)).abs().amax(1)
        zero, plain = (sums, sums[:0]) if index else (sums[:16], sums[16:])
        assert zero.max() < 1e-5 and (plain > 0.1 * bound).all()
        assert 0.98 * bound < weight[16:].abs().max() <= 2 * bound and abs(float(weight.mean())) < 0.1 * bound
        assert float(bias.abs().max()) <= 0.5


@pytest.fixture(scope="module")
def compare():
    """Function (space, images): distance to 100 real images."""
    real = {name: FeatureSums.of(space(tissue(100))) for name, space in FEATURE_SPACES.items()}
    return lambda name, images: frechet_distance(real[name], FeatureSums.of(FEATURE_SPACES[name](images)))


@pytest.mark.parametrize("name", SPACES)
def test_the_distance_grows_with_damage(name, compare):
    other = tissue(100, seed=1)
    rng = np.random.default_rng(2)
    grain = rng.normal(size=other.shape)
    damages = {
        "blur": [ndimage.gaussian_filter(other, (0, 0, s, s)) for s in (0.5, 1.0, 2.0)],
        "noise": [np.clip(other + level * 255 * grain, 0, 255).astype(np.uint8) for level in (0.03, 0.08, 0.2)],
        "collapse": [other[np.arange(100) % kept] for kept in (30, 10, 3)],
        "brightness": [np.clip(other.astype(int) + more, 0, 255).astype(np.uint8) for more in (15, 30, 60)],
    }
    floor = compare(name, other)
    for kind, levels in damages.items():
        distances = [floor, *(compare(name, images) for images in levels)]
        assert distances == sorted(distances) and distances[-1] > 3 * floor, (kind, distances)
