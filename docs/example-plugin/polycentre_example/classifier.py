"""A classifier: images averaged to 8 x 8, then two layers. `head` is the layer that pretrained weights do not replace."""

from __future__ import annotations

from torch import Tensor, nn

from basics.image_shape import ImageShape, size_text
from models.classifiers import Architecture

SIDE = 8


class TwoLayers(nn.Module):
    """Images (n, channels, height, width) to logits (n, classes)."""

    head = "output."

    def __init__(self, shape: ImageShape, num_classes: int):
        super().__init__()
        if min(shape.size) < SIDE:
            raise ValueError(f"image_size is {size_text(shape.size)}; two_layers takes sides of {SIDE} pixels or more")
        self.hidden = nn.Sequential(
            nn.AdaptiveAvgPool2d(SIDE), nn.Flatten(), nn.Linear(shape.channels * SIDE**2, 32), nn.ReLU()
        )
        self.output = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.hidden(images))


TWO_LAYERS = Architecture(TwoLayers)
