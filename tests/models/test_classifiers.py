"""Classifiers: sizes, shapes, weights from files."""

import pytest
import torch
from safetensors.torch import save_file

from models import CLASSIFIERS, ClassifierSpec, ModelError
from models.classifiers import Resized, TimmClassifier


def build(model, image_size=32, channels=1, seed=0, **more):
    return (
        ClassifierSpec(model=model, image_size=image_size, channels=channels, **{"num_classes": 2} | more)
        .build(seed)
        .eval()
    )


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_sizes():
    with torch.device("meta"):
        assert round(parameters(build("cnn", 128)) / 1e6, 2) == 1.15  # 1.1 M in the paper
        assert round(parameters(build("cnn_small", 32, 3)) / 1e6, 2) == 0.16
        assert round(parameters(build("cnn_small", 64, 3)) / 1e6, 2) == 0.17


@pytest.mark.parametrize("model", ["cnn", "cnn_small"])
@pytest.mark.parametrize("image_size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(model, image_size, channels):
    assert build(model, image_size, channels)(torch.zeros(2, channels, image_size, image_size)).shape == (2, 2)


@pytest.mark.parametrize("model", ["resnet18", "efficientnet_b2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_timm_networks(model, channels):
    assert build(model, 32, channels)(torch.zeros(2, channels, 32, 32)).shape == (2, 2)


def test_swin_takes_its_input_size_from_the_spec():
    network = build("swin_tiny", 32, input_size=64)
    assert isinstance(network, Resized) and network.size == (64, 64)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 2)
    with torch.device("meta"):
        assert build("swin_tiny", 32).size == (224, 224)


def test_resize_is_seen_by_the_network():
    network = build("cnn", 64, input_size=32)
    image = torch.full((2, 1, 64, 64), 0.25)
    torch.testing.assert_close(network(image), network.network(torch.full((2, 1, 32, 32), 0.25)))


def test_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = (build("cnn_small", seed=s).output.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="known classifiers: cnn, cnn_small, swin_tiny"):
        ClassifierSpec(model="vgg", image_size=32, channels=1, num_classes=2)
    for model in ("cnn", "cnn_small"):
        with pytest.raises(ValueError, match="multiples? of 16|sixteenth"):
            build(model, 40)
    assert set(CLASSIFIERS) == {"cnn", "cnn_small", "swin_tiny", "efficientnet_b2", "resnet18", "resnet50"}


def test_timm_input_is_normalised_as_imagenet_weights_expect():
    network = build("resnet18")
    seen = []
    network.network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.zeros(1, 1, 32, 32))  # mid-grey is 0.5 in [0, 1]
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("model", ["resnet18", "cnn_small"])
def test_pretrained_weights_are_taken_except_the_head(tmp_path, ending, model):
    source = build(model, seed=1)
    inner = source.network if isinstance(source, TimmClassifier) else source
    head = "fc" if model == "resnet18" else "output"
    state = {k: v.clone() for k, v in inner.state_dict().items()}
    state[f"{head}.weight"], state[f"{head}.bias"] = torch.zeros(1000, 8), torch.zeros(1000)  # of another task
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    loaded, fresh = build(model, seed=2, pretrained=path).state_dict(), build(model, seed=2).state_dict()
    for name, tensor in loaded.items():
        origin = fresh if f"{head}." in name else source.state_dict()
        assert torch.equal(tensor, origin[name]), name


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = {k: v.clone() for k, v in build("cnn_small").state_dict().items()}
    del state["layers.0.weight"]
    save_file(state, path)
    with pytest.raises(ModelError, match=r"1 names or shapes differ, first 'layers\.0\.weight'") as caught:
        build("cnn_small", pretrained=path)
    assert caught.value.code == "bad_weights"
    with pytest.raises(ModelError, match="cannot read weights"):
        build("cnn_small", pretrained=tmp_path / "missing.pth")


def test_pickled_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ModelError, match="cannot read weights"):
        build("cnn_small", pretrained=tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()
