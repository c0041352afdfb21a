"""Which images show the same: equal once decoded, or nearly equal (saved again, resized, brightened).

There are two steps, because the first alone confuses one skin lesion in the middle of an image with another. A difference
hash (Krawetz 2013) of 9 x 9 means, compared along rows and along columns (128 bits), finds candidates; thumbnails of
32 x 32 without their coarse brightness, compared by correlation, confirm them. On 3,000 dermatoscopic images (4.5 million
pairs) the highest correlation of two different lesions was .93; JPEG at quality 40, 60 % size, and 20 % more brightness
stay above .96. A crop of 5 % is not found, nor is a mirrored copy.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage
from scipy import ndimage

from data_partitions.exams import Box, Exam

MAX_BITS = 16  # of 128 that may differ
MIN_CORRELATION = 0.96
_SIDE = 32
_BLUR = 9  # thumbnail pixels over which brightness counts as coarse


class Fingerprint(NamedTuple):
    """digest of shape and pixels; bits: uint64 (2,); detail: float32 (1024,) of norm 1 (0 for a flat image)."""

    digest: str
    bits: np.ndarray
    detail: np.ndarray


class Pair(NamedTuple):
    """Two images by their places in the list; `correlation` is 1 for exact copies."""

    first: int
    second: int
    exact: bool
    correlation: float


def fingerprint(exam: Exam) -> Fingerprint:
    """Of a whole image. Opens it."""
    return fingerprint_of(np.ascontiguousarray(exam.open().window(Box(0, 0, *exam.shape))))


def fingerprint_of(pixels: np.ndarray) -> Fingerprint:
    """pixels: uint8 (height, width, 1 or 3)."""
    digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).hexdigest()
    grey = PillowImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")
    means = np.asarray(grey.resize((9, 9), PillowImage.Resampling.BOX), dtype=np.int16)
    rises = np.concatenate([(means[:8, 1:] > means[:8, :-1]).ravel(), (means[1:, :8] > means[:-1, :8]).ravel()])
    thumbnail = np.asarray(grey.resize((_SIDE, _SIDE), PillowImage.Resampling.BOX), dtype=np.float32)
    detail = thumbnail - ndimage.uniform_filter(thumbnail, _BLUR)
    detail -= detail.mean()
    # Flat images have nothing but noise to recognise, and would all be alike.
    norm = float(np.linalg.norm(detail))
    detail = detail / norm if norm > _SIDE * 0.25 else np.zeros_like(detail)
    return Fingerprint(digest, np.packbits(rises).view(np.uint64), detail.ravel())


def same_pictures(prints: list[Fingerprint]) -> list[Pair]:
    """All pairs of exact and of near copies, in the order of the list."""
    exact = _exact(one.digest for one in prints)
    pairs = [Pair(i, j, True, 1.0) for i, j in exact]
    known = set(exact)
    if prints:
        bits, details = np.stack([one.bits for one in prints]), np.stack([one.detail for one in prints])
    for i in range(len(prints) - 1):
        away = np.bitwise_count(bits[i] ^ bits[i + 1 :]).sum(axis=1)
        near = i + 1 + np.flatnonzero(away <= MAX_BITS)
        alike = details[near] @ details[i]
        pairs += [
            Pair(i, int(j), False, round(float(r), 4))
            for j, r in zip(near[alike >= MIN_CORRELATION], alike[alike >= MIN_CORRELATION], strict=True)
            if (i, int(j)) not in known
        ]
    return sorted(pairs)


def _exact(digests: Iterable[str]) -> list[tuple[int, int]]:
    """Places of equal digests: each with the first of its kind."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return [(same[0], other) for same in places.values() for other in same[1:]]
