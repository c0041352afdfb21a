"""How much of one file is read: bounds against files that would fill the memory, by mistake or on purpose."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds of one file; the field names are keys of a source's `limits`. A file beyond one is a fault, and not decoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    megapixels: float = Field(120, gt=0, description="of one image")
    megabytes: float = Field(4096, gt=0, description="of one file as it is and unpacked")
    frames: int = Field(1, ge=1, description="frames or pages of an image file, of which the first is used")


DEFAULT = Limits()
