"""How far a generator's images are from training images, to choose among the snapshots of a training (Karras et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch

from basics.image_shape import Storage
from basics.seeds import numpy_stream
from metrics import sliced_wasserstein
from models.generative import GenerativeModel, Precision
from models.patch_arrays import PatchArrays
from models.random_streams import torch_stream

# Images of either set; with 128 patches of each, 65,536 of a set. Karras et al. take 16,384 images.
IMAGES = 512


def distance_to(images: PatchArrays, model: GenerativeModel, *, seed: int, precision: Precision = "fp32") -> float:
    """Sliced Wasserstein distance, the mean over all levels, times 1,000.

    All snapshots are compared with the same training images, and draw from the same noise, with the labels of those images.

    Args:
        images: that it is trained on; at most 512 of them are taken.
        seed: of the training.
    """
    rng = numpy_stream(seed, "snapshot distance")
    chosen = np.sort(rng.permutation(len(images))[:IMAGES])
    real = images.take(chosen).numpy()
    storage: Storage = "uint16" if real.dtype == np.uint16 else "uint8"
    labels = None
    if model.num_classes is not None:
        assert images.labels is not None, "a conditional model is trained on labels"
        labels = torch.from_numpy(np.asarray(images.labels)[chosen].astype(np.int64))
    noise = torch_stream(seed, "snapshot distance")
    made = model.sample_stored(len(real), labels, noise, precision=precision, storage=storage)
    return 1000 * float(np.mean(list(sliced_wasserstein(real, made, rng).values())))
