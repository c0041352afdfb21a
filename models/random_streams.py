"""Torch's random streams, derived from (seed, purpose, step) as in `basics.seeds`.

No stream depends on what was drawn before it: a training step draws the same numbers after a restart, in another process
or in another order.
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

    For weight initialisation and dropout, which take no generator.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    # torch.random.fork_rng does the same but imports the compiler, which takes a process that only samples a second.
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
