"""Every seed of a study is derived from (seed, purpose, ...), so that no stream depends on what else was drawn, or in which order.

There are three derivations, one for each kind of randomness. They differ only in how the purpose is written before it is
hashed. Merging them would change every phantom, every split and every initial weight, so each keeps its bytes.

    derive_seed     of the plan: whose training, which repeat: (seed, purpose, centre, index)
    step_seed       of a training loop: noise, batches, initial weights: (seed, purpose, step, ...)
    stream, rank    of the data: phantoms, crops, splits: (seed, names ...)
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

# -- the plan ----------------------------------------------------------------------------------------------------------


def derive_seed(seed: int, purpose: str, centre: str = "", index: int = 0) -> int:
    """The seed of one stream, from (seed, purpose, centre, round or repeat); 63 bits.

    Adding a centre or resuming a run does not shift another stream.
    """
    text = json.dumps([seed, purpose, centre, index], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


# -- training loops ----------------------------------------------------------------------------------------------------


def step_seed(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for one purpose: the first bytes of SHA-256 over "seed/purpose/..."."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *purpose: int | str) -> np.random.Generator:
    """A numpy generator of `step_seed`; for torch see `models.random_streams`."""
    return np.random.default_rng(step_seed(seed, *purpose))


# -- data --------------------------------------------------------------------------------------------------------------


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that belongs to (seed, names) alone: names such as a centre, a patient or an image."""
    return np.random.Generator(np.random.SFC64(np.frombuffer(_digest(seed, names), dtype=np.uint32).tolist()))


def rank(seed: int, *names: str | int) -> bytes:
    """A sort key that shuffles: equal for equal (seed, names), otherwise as good as random.

    Sorting by it is a draw without replacement that does not depend on the order of the rows, and whose first k items
    are part of its first k + 1.
    """
    return _digest(seed, names)


def _digest(seed: int, names: tuple[str | int, ...]) -> bytes:
    # The type is part of the text, so that patient 1 and patient "1" are different streams.
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return hashlib.sha256(f"{seed}\x1e{text}".encode()).digest()
