"""How large a job of `dm_gan` is: in bytes, and in batches so that a node mostly computes."""

from __future__ import annotations

import math

from federation.wire.availability import Fate
from federation.wire.job import MAX_BYTES
from federation.wire.transport import Transport
from models import GeneratorSpec
from strategies.dm_gan.phases import batches_of
from strategies.kind import Array, Layout, layout_bytes
from strategies.layouts import encoded

# Share of a deployed centre's time that is to be computing.
_COMPUTING = 0.8
LARGEST_JOB = 256
FAKE = "fake."
# Images of a job; more would wait longer on a hospital's line than they save.
LARGEST_BYTES = 128 * 1024**2


def adapted(batches: int, computing_s: float, fate: Fate, largest: int = LARGEST_JOB) -> int:
    """Batches of a centre's next job, so that most of its round trip is computing.

    Moves half of the way (in the logarithm), and at most by a factor of two: one slow message does not mean a slow line.
    """
    around_s = max(0.0, fate.finished_s - fate.sent_s - computing_s)
    wanted = around_s * _COMPUTING / (1 - _COMPUTING) / max(computing_s / batches, 1e-6)
    half_way = min(2.0 * batches, max(batches / 2, math.sqrt(batches * max(wanted, 1.0))))
    return int(min(largest, max(1, round(half_way))))


def images_layout(spec: GeneratorSpec, batches: int, transport: Transport) -> Layout:
    """Generated images of a job of exchange `images`: images alone, whatever the networks."""
    image = (spec.training.batch_size, *spec.shape)
    plain = {FAKE + phase: Array((batches * repeats, *image), "float32") for phase, repeats in batches_of(spec).items()}
    return encoded(plain, transport)


def job_problem(spec: GeneratorSpec, batches: int, transport: Transport) -> str | None:
    """Why a job of so many batches cannot be sent, if it cannot."""
    down = layout_bytes(images_layout(spec, batches, transport)) or 0
    if down <= MAX_BYTES:
        return None
    return f"a job of {batches} batches holds {down / 1e9:.1f} GB of images; lower batches_per_job, or set exchange: generator"
