"""Shape of an image, and how a scenario writes the size of one: `64`, or `[height, width]`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PositiveInt, WithJsonSchema

# Sides of images in pixels: below the smallest no model here makes sense, the largest is a whole mammogram's.
SMALLEST_SIDE, LARGEST_SIDE = 16, 1280

# How images are stored; both mean the same range from black to white.
Storage = Literal["uint8", "uint16"]


class ImageShape(NamedTuple):
    """Channels, height and width in pixels."""

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, size: tuple[int, int], channels: int) -> ImageShape:
        """Of images of (height, width)."""
        return cls(channels, *size)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def __str__(self) -> str:
        return f"{size_text(self.size)} x {self.channels}"


def size_text(size: tuple[int, int]) -> str:
    """A size for people: "64 px", "160x128 px" (height first)."""
    height, width = size
    return f"{height} px" if height == width else f"{height}x{width} px"


def _pair(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value):
        return tuple(value)
    raise ValueError(f"is {value!r}; give a number of pixels such as 64, or [height, width] such as [160, 128]")


def _in_range(size: tuple[int, int]) -> tuple[int, int]:
    for name, side in zip(("height", "width"), size, strict=True):
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise ValueError(f"has {name} {side}; sides lie between {SMALLEST_SIDE} and {LARGEST_SIDE} pixels")
    return size


def written_size(size: tuple[int, int]) -> int | list[int]:
    """As it stands in YAML and JSON: one number for a square."""
    height, width = size
    return height if height == width else [height, width]


_AS_JSON = WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]})
ImageSize = Annotated[
    tuple[int, int], BeforeValidator(_pair), AfterValidator(_in_range), PlainSerializer(written_size), _AS_JSON
]
# Of a stage of growing images: below `SMALLEST_SIDE` there, too.
StageSize = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_pair), PlainSerializer(written_size), _AS_JSON]
