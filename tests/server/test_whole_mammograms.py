"""Whole mammograms of 1280 x 1024: cut, stored, learned from by nobody, and drawn again from a package of an untrained model."""

import numpy as np
import pytest

from data_partitions import PatchTask, SplitRule, build_patches
from data_partitions.phantom.phantom import PhantomSource
from models import ClassifierSpec, GeneratorPackage, GeneratorSpec, predict
from models.batch_stream import BatchStream
from reports.samples import grid
from strategies.centre_side import as_arrays
from strategies.delivery import drawn

SIZE = (1280, 1024)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    task = PatchTask(
        classes=["benign", "malignant"], whole_image=True, image_size=SIZE, storage="uint16",
        preprocess=["flip_to_left", {"fit": {"height": 1280, "width": 1024}}],
    )  # fmt: skip
    cache = tmp_path_factory.mktemp("cache")
    return build_patches(
        PhantomSource(patients=3, lesion_fraction=1),
        task,
        SplitRule(train=1, val=0, test=0),
        centre="A",
        seed=1,
        cache=cache,
    )


def test_extraction_keeps_size_depth_and_what_is_where(patches):
    assert patches.pixels.shape == (12, 1, *SIZE) and patches.pixels.dtype == np.uint16
    assert isinstance(patches.pixels, np.memmap)
    card = patches.data_card()["image"]
    assert card == {"channels": 1, "height": 1280, "width": 1024}
    for image in patches.pixels[:, 0]:
        # The chest wall is on the left, the padding above, below and on the right.
        assert image[:, :200].mean() > 2 * image[:, -200:].mean() and image.max() > 40_000
        assert image[640, 10] > 0


@pytest.mark.parametrize("model", ["dcgan", "wgan_gp"])
def test_a_package_of_an_untrained_model_is_read_and_sampled(model, patches, tmp_path):
    spec = GeneratorSpec.model_validate(
        {"model": model, "image_size": SIZE, "storage": "uint16", "classes": ["benign", "malignant"], "conditional": False,
         "made": ["malignant"], "hyper_parameters": {"width": 4}, "training": {"batch_size": 2}}
    )  # fmt: skip
    built = spec.build(0)
    batch = BatchStream(built, as_arrays(patches.select(labels=spec.labels)), spec.training, 0).batch(0)
    assert batch.real().shape == (2, 1, *SIZE) and built.networks["discriminator"](batch.real(), None).shape == (2,)
    GeneratorPackage(spec, built.shared_arrays(), {}).write(tmp_path / "p")
    again = GeneratorPackage.read(tmp_path / "p")
    images, labels = drawn(again.spec, again.weights, {1: 2}, seed=3, device="cpu", precision="fp32")
    assert images.shape == (2, 1, *SIZE) and images.dtype == np.uint16 and labels.tolist() == [1, 1]
    assert grid(images).shape == (160, 2 * 128 + 2)  # halved three times, two of them side by side


def test_a_flow_and_classifiers_take_the_size(patches):
    spec = GeneratorSpec.model_validate(
        {"model": "flow_matching", "image_size": SIZE, "classes": ["a", "b"], "hyper_parameters": {"widths": [32] * 6}, "training": {}}
    )  # fmt: skip
    spec.build(0)
    network = ClassifierSpec(model="cnn_small", image_size=SIZE, channels=1, num_classes=3).build(0)
    probability = predict(network, as_arrays(patches))
    assert probability.shape == (12, 3) and np.allclose(probability.sum(axis=1), 1)
