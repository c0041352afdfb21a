"""What a SuperExec starts for a run instead of Flower's server process: it runs this installation's own code, or nothing.

Whoever may submit a run to the SuperLink could submit any bundle, and it would run on the operator's machine. Here the bundle
must be the one that Flower builds from this checkout. What runs is the checkout itself: nothing is unpacked.
`federation.flower.launchers` puts this in the place of `flwr-serverapp`.
"""

from __future__ import annotations

import importlib
import logging
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
from federation.flower.launchers import run_guarded
from federation.flower.processes import end_with_parent

log = logging.getLogger("flwr")
CHECKS = ("install_from_fab", "get_project_dir")
process: Any = importlib.import_module("flwr.superlink.runtime.run_serverapp")


class Gate:
    """Checks the bundle of one run.

    Args:
        checkout: this installation's code.
        memory: file that keeps the digest of its bundle.
    """

    def __init__(self, checkout: Path, memory: Path):
        self._checkout, self._memory = checkout, memory

    def install_from_fab(self, content: bytes, **options: Any) -> Path:
        """Replaces Flower's `install_from_fab`: unpacks nothing.

        Raises:
            BundleError: the bundle is not this installation's own.
        """
        files = read_bundle(content)
        digest, own = digest_of(files), own_digest(self._checkout, self._memory)
        if digest != own:
            log.error("bundle %s refused: it differs from this installation's in %s", digest,
                      differences(files, own_bundle(self._checkout)))  # fmt: skip
            raise BundleError(
                f"this installation runs only its own app bundle ({own}), and this one is {digest}; submit the run from its checkout"
            )
        return self._checkout

    def get_project_dir(self, fab_id: str, fab_version: str, fab_hash: str) -> Path:
        """Replaces Flower's function of this name: the folder of the code that runs."""
        return self._checkout


def main() -> None:
    """Entry point instead of `flwr-serverapp`; takes the arguments of Flower's own program."""
    # Flower itself looks every 0.2 s whether the parent is there, but then waits for the end of its main thread's sleep
    # between two tries to reach a SuperLink, up to 20 s. A signal of the kernel's ends that sleep.
    end_with_parent()
    run_guarded(flwr_serverapp, process, Gate(own_checkout(), get_flwr_home() / "own_bundle.json"), CHECKS)


if __name__ == "__main__":
    main()
