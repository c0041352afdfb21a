"""Make `import torchvision` (and so timm) work where torchvision's compiled operators do not load.

The published torchvision wheel is built for CUDA. With a CPU build of torch its operators are missing, and the import fails
while registering shape functions for two of them. Declaring their signatures is enough: nothing here calls them. Where
torchvision is complete this does nothing.
"""

from __future__ import annotations

import sys

import torch

_MISSING = "torchvision::nms does not exist"
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# Held for the life of the process: a library's definitions go when it is collected.
_library: torch.library.Library | None = None


def import_torchvision() -> None:
    """Import torchvision, declaring the two operators first if they are missing."""
    global _library
    try:
        import torchvision  # noqa: F401

        return
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(operator + _SIGNATURE)
    import torchvision  # noqa: F401
