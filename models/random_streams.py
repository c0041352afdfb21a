"""Torch's random streams, derived from (seed, purpose, step) as in `basics.seeds`, so that no stream depends on what was drawn before it.

A training step that is run after a restart, at another place or in another order draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from basics.seeds import step_seed


def torch_stream(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator: noise is drawn on the CPU and then moved, so a GPU run sees the numbers of a CPU run."""
    return torch.Generator().manual_seed(step_seed(seed, *purpose))


@contextmanager
def isolated_global_stream(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global stream inside the block and put it back afterwards.

    For what offers no generator argument: weight initialisation and dropout.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    # torch.random.fork_rng does the same, but imports the compiler for it: a second in a process that only samples.
    before, before_gpu = torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None
    try:
        torch.default_generator.manual_seed(step_seed(seed, "global"))
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(step_seed(seed, "global"))
        yield
    finally:
        torch.set_rng_state(before)
        if before_gpu is not None:
            torch.cuda.set_rng_state(before_gpu, device)
