"""What a SuperLink starts for a run in the place of Flower's server process: it runs this installation's own code, or nothing.

Whoever may hand a run to the SuperLink could hand it any bundle, and it would run on the operator's machine. Here a bundle
has to be the one that Flower builds from this checkout, and what is run is the checkout itself: nothing is unpacked.
`federation.flower.launchers` puts this in front of `flwr-serverapp`.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

from flwr.supercore.utils import get_flwr_home
from flwr.superlink.cli import flwr_serverapp

from federation.flower.bundle import (
    BundleError,
    differences,
    digest_of,
    own_bundle,
    own_checkout,
    own_digest,
    read_bundle,
)
from federation.flower.launchers import put_before, without_installing

log = logging.getLogger("flwr")
_REPLACED = ("install_from_fab", "get_project_dir")
process: Any = importlib.import_module("flwr.superlink.runtime.run_serverapp")


class Gate:
    """The check of one run's bundle.

    Args:
        checkout: this installation's code.
        memory: file in which the digest of its bundle is kept.
    """

    def __init__(self, checkout: Path, memory: Path):
        self._checkout, self._memory = checkout, memory

    def install_from_fab(self, content: bytes, **options: Any) -> Path:
        """In the place of Flower's `install_from_fab`: nothing is unpacked.

        Raises:
            BundleError: it is not the own bundle.
        """
        files = read_bundle(content)
        digest, own = digest_of(files), own_digest(self._checkout, self._memory)
        if digest != own:
            log.error("bundle %s refused: it differs from this installation's in %s", digest,
                      differences(files, own_bundle(self._checkout)))  # fmt: skip
            raise BundleError(
                f"this SuperLink runs its own app bundle only ({own}), and this one is {digest}; submit the run from its checkout"
            )
        return self._checkout

    def get_project_dir(self, fab_id: str, fab_version: str, fab_hash: str) -> Path:
        """In the place of Flower's function of this name: where the code lies that is run."""
        return self._checkout


def guard(gate: Gate) -> None:
    """Put a gate in front of Flower's server process.

    Raises:
        StudyError: this version of Flower is built otherwise, and nothing would be checked.
    """
    put_before(process, gate, _REPLACED, "server")


def main() -> None:
    """Entry point in the place of `flwr-serverapp`; the arguments are those of Flower's own program."""
    sys.argv = without_installing(sys.argv)
    guard(Gate(own_checkout(), get_flwr_home() / "own_bundle.json"))
    flwr_serverapp()


if __name__ == "__main__":
    main()
