"""Is bf16 autocast faster for this model on this machine? Measured once per machine, and remembered in a file.

On a CPU with AMX it is, by 1.5 to 2.6 times; with AVX-512 bf16 alone it depends on the layers; without either it is
slower. The answer decides which numbers come out of a run, and another machine, or a cache that was emptied, may give
another one. So the choice is part of the run: see `server.precision`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache as remembered
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from basics.atomic_files import write_text
from basics.image_shape import ImageShape
from basics.plugins import Table
from models.classifiers import CLASSIFIERS, ClassifierSpec
from models.fit_classifier import ClassifierTraining, fit_classifier
from models.fit_generative import GenerativeTrainer
from models.generative import Precision
from models.generator_spec import GENERATIVE_MODELS, GeneratorSpec
from models.patch_arrays import PatchArrays
from models.stages import Stage

# A smaller gain is not worth the loss of 16 bits of mantissa, and could be an accident of the measurement.
MINIMUM_GAIN = 1.15
_ROUNDS = 3
_BF16_FLAGS = ("amx_bf16", "avx512_bf16")


def faster_precision(
    key: str,
    step_of: Callable[[Precision], Callable[[], object]],
    cache: Path,
    device: torch.device | str = "cpu",
) -> Precision:
    """The precision to use for `key`: "bf16" only where its step is at least `MINIMUM_GAIN` times faster.

    Args:
        key: what is measured (architecture, sizes, batch); the processor and thread count are added to it.
        step_of: makes one training step in a precision, where it must be measured: a thousand answers are read from a file.
            The steps are called alternately after one warm-up.
        cache: folder for the answer; one file per key and processor.
    """
    device = torch.device(device)
    if device.type == "cpu" and not bf16_flags():
        return "fp32"
    place = processor(device)
    full_key = {"key": key, "processor": place, "threads": torch.get_num_threads(), "torch": torch.__version__}
    name = hashlib.sha256(json.dumps(full_key, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache / "precision"
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / f"{name}.json"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process measures, the others wait for its answer
        if answer.exists():
            return json.loads(answer.read_text())["precision"]
        gain = _gain(step_of("fp32"), step_of("bf16"), device)
        chosen: Precision = "bf16" if gain >= MINIMUM_GAIN else "fp32"
        write_text(answer, json.dumps(full_key | {"gain": round(gain, 3), "precision": chosen}, indent=2))
        return chosen


def probe_precision(
    spec: Mapping[str, Any], *, device: str, setting: Literal["auto", "fp32", "bf16"], cache: Path
) -> Precision:
    """The precision for one model: as set, or by measuring training steps on random images.

    Args:
        spec: {"generator": JSON of a GeneratorSpec} or {"classifier": JSON of a ClassifierSpec}.
    """
    if setting != "auto":
        return setting
    if "generator" in spec:
        generator = GeneratorSpec.model_validate(spec["generator"])
        training = generator.training
        key = f"generator {generator.model_dump_json(exclude={'training'})} batch {training.batch_size}"
        if training.growing:
            key += f" growing {json.dumps(training.model_dump(mode='json')['growing'])}"
        key += _plugin_of(GENERATIVE_MODELS, generator.model)
        return faster_precision(key, partial(_generator_step, generator, device), cache, device)
    classifier = ClassifierSpec.model_validate(spec["classifier"]).model_copy(update={"pretrained": None})
    key = f"classifier {classifier.model_dump_json()}" + _plugin_of(CLASSIFIERS, classifier.model)
    return faster_precision(key, partial(_classifier_step, classifier, device), cache, device)


@remembered
def bf16_flags() -> tuple[str, ...]:
    """The bf16 instructions of this CPU (as Linux names them)."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ()
    return tuple(flag for flag in _BF16_FLAGS if flag in flags)


def processor(device: torch.device | str = "cpu") -> str:
    """Name of the processor or GPU that computes, with its bf16 instructions."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return " ".join([_processor_name(), *bf16_flags()])


@remembered
def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _gain(step_fp32: Callable[[], object], step_bf16: Callable[[], object], device: torch.device) -> float:
    """Median time of the fp32 step over that of the bf16 step, measured in turns so that load falls on both."""
    steps = (step_fp32, step_bf16)
    times: tuple[list[float], list[float]] = ([], [])
    for timed in range(_ROUNDS + 1):
        for step, taken in zip(steps, times, strict=True):
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if timed:
                taken.append(time.perf_counter() - started)
    return statistics.median(times[0]) / statistics.median(times[1])


def _plugin_of(table: Table[Any], model: str) -> str:
    """What a key says of the plug-in that a model comes from: another version of it is another model."""
    plugin = table.plugin_of(model)
    return "" if plugin is None else f" plug-in {plugin.identity}"


def _random_images(count: int, shape: ImageShape) -> PatchArrays:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 2)


def _generator_step(spec: GeneratorSpec, device: str, precision: Precision) -> Callable[[], object]:
    """Steps of the last stage, whose images are the largest; batches of one size, so that times can be compared."""
    training = spec.training.model_copy(update={"sampling": "permutation"})
    trainer = GenerativeTrainer(spec.build(0), training, seed=0, device=device, precision=precision)
    trainer.step = trainer.schedule.stages[-1].start
    images = _random_images(training.largest_batch, spec.shape)
    return lambda: trainer.advance(images, trainer.step + 1)


def _classifier_step(spec: ClassifierSpec, device: str, precision: Precision) -> Callable[[], object]:
    network = spec.build(0)
    images = _random_images(64, spec.shape)
    few = PatchArrays(images.pixels, images.rows[:2], None if images.labels is None else images.labels[:2])
    training = ClassifierTraining(batch_norm_on=None)
    return lambda: fit_classifier(
        network,
        {"x": images},
        [Stage("probe", 2, 1e-3, {"x": 1.0})],
        few,
        training,
        seed=0,
        device=device,
        precision=precision,
    )
