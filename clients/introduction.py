"""What a node says about itself before a study: which centre it is, its code and versions, and its time."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from clients.node import Node
from federation.flower.bundle import own_checkout, own_digest
from federation.wire.code_digest import code_digest
from federation.wire.job import IDENTIFY, PROTOCOL
from strategies.kind import Body, Field, Kind

_PACKAGES = ("polycentre", "flwr", "torch", "numpy")


def introduction(node: Node) -> dict[str, Any]:
    """The answer to the roll call. `bundle` is the digest of the app bundle that Flower builds from this installation."""
    return {
        "centre": node.centre,
        "protocol": PROTOCOL,
        "code": code_digest(),
        "bundle": own_digest(own_checkout(), node.workspace / "own_bundle.json"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "platform": f"{platform.system()} {platform.machine()}",
        "clock": time.time(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# Asked by whoever finds the node, before a job can be addressed; see `federation.wire.roll_call`.
ROLL_CALL = Kind(
    name=IDENTIFY,
    title="roll call",
    phase="survey",
    body=Body,
    work=introduction,
    answer=(
        Field("centre", "name", "who this node is"),
        Field("protocol", "number", "version of the protocol"),
        Field("code", "digest", "which version of the project runs here"),
        Field("bundle", "digest", "which version of the project runs here"),
        Field("versions.*", "versions", "of Python and the main packages"),
        Field("platform", "name", "operating system and processor family"),
        Field("clock", "time", "this machine's clock"),
    ),
)
