"""Classifiers: images (n, channels, height, width) in [-1, 1] to logits (n, classes).

`cnn` is the network of Szafranowska et al. (IWBI 2022), `cnn_small` one for minutes on a CPU; the rest come from timm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from basics.image_shape import ImageShape, ImageSize, size_text
from basics.plugins import Table, instance_of
from models.errors import ModelError
from models.random_streams import isolated_global_stream
from models.torchvision_schema import import_torchvision


class CNN(nn.Sequential):
    """Four blocks of 3x3 convolution, batch norm, max pooling, ReLU; two layers on top. 1.1 M parameters at 128 px."""

    head = "output."

    def __init__(self, shape: ImageShape, num_classes: int):
        if any(side % 16 for side in shape.size):
            raise ValueError(f"image_size is {size_text(shape.size)}; cnn takes sides that are multiples of 16")
        layers: dict[str, nn.Module] = {}
        inputs = shape.channels
        for number, outputs in enumerate((16, 32, 64, 128)):
            layers[f"block{number}"] = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            )
            inputs = outputs
        layers["flatten"] = nn.Flatten()
        layers["hidden"] = nn.Sequential(
            nn.Linear(128 * (shape.height // 16) * (shape.width // 16), 128),
            nn.BatchNorm1d(128),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        layers["output"] = nn.Linear(128, num_classes)
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class SmallCNN(nn.Module):
    """0.17 M parameters: pixels are folded into channels, the smaller side to 16, then four convolutions and global pooling."""

    head = "output."

    def __init__(self, shape: ImageShape, num_classes: int):
        super().__init__()
        self.fold = min(shape.size) // 16
        if min(shape.size) % 16 or max(shape.size) % self.fold:
            raise ValueError(
                f"image_size is {size_text(shape.size)}; cnn_small takes a smaller side that is a multiple of 16, and a larger one "
                "that is a multiple of its sixteenth"
            )
        # Pooled after the first and the third convolution: half the operations of pooling once, and on the phantom .13
        # more AUROC for a receiver with 70 patients (3 seeds).
        self.layers = nn.Sequential(
            *_convolution(shape.channels * self.fold**2, 32), nn.MaxPool2d(2), *_convolution(32, 64),
            *_convolution(64, 96), nn.MaxPool2d(2), *_convolution(96, 96), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
        )  # fmt: skip
        self.output = nn.Linear(96, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.layers(F.pixel_unshuffle(images, self.fold)))


class TimmClassifier(nn.Module):
    """A network of timm on three channels (a single one is repeated), normalised as its ImageNet weights expect."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        config: Any = network.pretrained_cfg
        self.head = f"network.{config['classifier']}."
        # Inputs are in [-1, 1]; the weights expect (x - mean) / std of values in [0, 1].
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        self.register_buffer("scale", (0.5 / std)[:, None, None], persistent=False)
        self.register_buffer("shift", ((0.5 - mean) / std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.expand(-1, 3, -1, -1) * self.scale + self.shift)


class Resized(nn.Module):
    """A network with a bilinear resize in front, to the (height, width) that it was built for."""

    def __init__(self, network: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        return self.network(F.interpolate(images, size=self.size, mode="bilinear", antialias=True))


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _timm(name: str, sized: bool = False) -> Callable[[ImageShape, int], nn.Module]:
    def build(shape: ImageShape, num_classes: int) -> nn.Module:
        import_torchvision()
        import timm  # here, because the import takes seconds and few jobs need it

        size: dict[str, Any] = {"img_size": shape.size} if sized else {}
        return TimmClassifier(timm.create_model(name, num_classes=num_classes, **size))

    return build


@dataclass(frozen=True)
class Architecture:
    """How a classifier is built.

    Attributes:
        build: (shape of its input, number of classes) to a network. Its attribute `head` is the prefix of its last layer's
            weights, which pretrained weights do not replace.
        input_side: that the smaller side of patches is resized to unless a spec says otherwise; None: as they are.
        multiple: of which the other side is then the nearest multiple that keeps the patches' shape.
    """

    build: Callable[[ImageShape, int], nn.Module]
    input_side: int | None = None
    multiple: int = 1

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that patches of `size` are resized to."""
        if self.input_side is None:
            return size
        factor = self.input_side / min(size)
        height, width = (max(1, round(side * factor / self.multiple)) * self.multiple for side in size)
        return height, width


_BUILTIN: Mapping[str, Architecture] = {
    "cnn": Architecture(CNN),
    "cnn_small": Architecture(SmallCNN),
    # Windows of 7 patches of 4 pixels, and three halvings, need 224 for its weights to fit.
    "swin_tiny": Architecture(_timm("swin_tiny_patch4_window7_224", sized=True), input_side=224, multiple=28),
    "efficientnet_b2": Architecture(_timm("efficientnet_b2")),
    "resnet18": Architecture(_timm("resnet18")),
    "resnet50": Architecture(_timm("resnet50")),
}
CLASSIFIERS: Table[Architecture] = Table("classifiers", _BUILTIN, instance_of(Architecture))


def _known(model: str) -> str:
    if model not in CLASSIFIERS:
        raise ValueError(CLASSIFIERS.unknown(model))
    return model


ClassifierName = Annotated[str, AfterValidator(_known)]


class ClassifierSpec(BaseModel):
    """All that is needed to build a classifier.

    Attributes:
        image_size, channels: of the patches.
        num_classes: of the task.
        input_size: to which patches are resized for this network; None: as its `Architecture` says.
        pretrained: a local state dict (.safetensors, .pth, .pt); everything but the head must fit.
        pretrained_sha256: of that file; None: whatever it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ClassifierName
    image_size: ImageSize
    channels: int
    num_classes: int = Field(ge=2)
    input_size: ImageSize | None = None
    pretrained: Path | None = None
    pretrained_sha256: str | None = None

    @property
    def plain(self) -> ClassifierSpec:
        """The same without a file of weights, for a network that gets other ones."""
        return self.model_copy(update={"pretrained": None, "pretrained_sha256": None})

    @property
    def shape(self) -> ImageShape:
        """Of the patches."""
        return ImageShape.of(self.image_size, self.channels)

    def build(self, seed: int) -> nn.Module:
        """The network, with weights from `seed` and from the file where one is given.

        Raises:
            ModelError: "bad_weights": the file is missing, unreadable or for another architecture.
        """
        architecture = CLASSIFIERS[self.model]
        size = self.input_size or architecture.input_size(self.image_size)
        with isolated_global_stream(seed):
            network = architecture.build(ImageShape.of(size, self.channels), self.num_classes)
        if self.pretrained is not None:
            load_pretrained(network, self.pretrained, self.pretrained_sha256)
        return network if size == self.image_size else Resized(network, size)


def load_pretrained(network: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Load a state dict from a local file; the head keeps its own weights.

    Args:
        sha256: that the file must have; None: any.

    Raises:
        ModelError: "bad_weights".
    """
    try:
        content = path.read_bytes()
        if sha256 is not None and (actual := hashlib.sha256(content).hexdigest()) != sha256:
            raise ValueError(f"its SHA-256 is {actual}, and pretrained_sha256 is {sha256}")
        found: Any = (
            load(content) if path.suffix == ".safetensors" else torch.load(BytesIO(content), "cpu", weights_only=True)
        )
    except Exception as error:
        raise ModelError("bad_weights", f"cannot read weights from {path}: {error}") from error
    for key in ("state_dict", "model"):  # how training scripts commonly wrap it
        found = found[key] if isinstance(found.get(key), dict) else found
    target = network.network if isinstance(network, TimmClassifier) else network
    head = str(network.head).removeprefix("network.")
    body = {name: tensor for name, tensor in found.items() if not name.startswith(head)}
    own = {name: tensor for name, tensor in target.state_dict().items() if not name.startswith(head)}
    wrong = sorted(set(own) ^ set(body)) or [name for name in own if own[name].shape != body[name].shape]
    if wrong:
        raise ModelError(
            "bad_weights",
            f"weights in {path} do not fit: {len(wrong)} names or shapes differ, first {wrong[0]!r}",
            differing=len(wrong),
        )
    target.load_state_dict(body, strict=False)
