"""How large a job of `dm_gan` is: in bytes, and in batches so that a node mostly computes."""

from __future__ import annotations

import math

from federation.wire.availability import Fate
from federation.wire.job import MAX_BYTES
from federation.wire.transport import Transport
from models import GeneratorSpec
from models.convolutional_gan import ConvolutionalGAN
from strategies.remote_generator import adversarial_phases, build_gan

# Share of a deployed centre's time that is to be computing.
_COMPUTING = 0.8
LARGEST_JOB = 256
# Images of a job; more would wait longer on a hospital's line than they save.
LARGEST_BYTES = 128 * 1024**2


def adapted(batches: int, computing_s: float, fate: Fate, largest: int = LARGEST_JOB) -> int:
    """Batches of a centre's next job, so that most of its round trip is computing.

    Moves half of the way (in the logarithm), and at most by a factor of two: one slow message is no new line.
    """
    around_s = max(0.0, fate.finished_s - fate.sent_s - computing_s)
    wanted = around_s * _COMPUTING / (1 - _COMPUTING) / max(computing_s / batches, 1e-6)
    half_way = min(2.0 * batches, max(batches / 2, math.sqrt(batches * max(wanted, 1.0))))
    return int(min(largest, max(1, round(half_way))))


def repeats_of(model: ConvolutionalGAN) -> int:
    """Batches of generated images that the discriminator takes in one training step."""
    return sum(phase.repeats for phase in adversarial_phases(model)[0])


def job_problem(spec: GeneratorSpec, batches: int, transport: Transport) -> str | None:
    """Why a job of so many batches cannot be sent, if it cannot; to be asked where models have shapes only."""
    down, _ = job_bytes(spec, batches, repeats_of(build_gan(spec, 0)), transport)
    if down <= MAX_BYTES:
        return None
    return f"a job of {batches} batches holds {down / 1e9:.1f} GB of images; lower batches_per_job, or set exchange: generator"


def job_bytes(spec: GeneratorSpec, batches: int, repeats: int, transport: Transport) -> tuple[int, int]:
    """Bytes of arrays of a job of exchange `images`, down and up: images alone, whatever the networks.

    Args:
        repeats: batches of images that the discriminator takes in one training step.
    """
    item = {"fp32": 4, "fp16": 2, "int8": 1}[transport]
    images = batches * spec.training.batch_size * spec.channels * spec.image_size**2 * item
    scales = {"fp32": (0, 0), "fp16": (0, 4), "int8": (4 * batches * (repeats + 1), 4 * batches + 4)}[transport]
    return images * (repeats + 1) + scales[0], images + scales[1]
