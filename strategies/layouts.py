"""Shapes of what travels: generators, averaged weights, classifiers, pictures. Built without memory, once for each specification."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from data_partitions import PatchTask
from federation.wire.transport import SCALE_SUFFIX, Transport, check_transport
from models import ClassifierSpec, GeneratorSpec
from models.federated_parts import averaged_state
from models.phases import fastest_rate
from models.shapes_only import shapes_only
from strategies.kind import Array, Layout, layout_of

# Synthetic images of each class that travel with a generator, for the report.
PREVIEW = 32


def encoded(layout: Layout, how: Transport) -> Layout:
    """The layout of `federation.wire.transport.encode(arrays, how)`.

    Raises:
        ValueError: an unknown `how`.
    """
    check_transport(how)
    if how == "fp32":
        return layout
    found: dict[str, Array] = {}
    for name, array in layout.items():
        if not np.issubdtype(np.dtype(array.dtype), np.floating):
            found[name] = array
        elif how == "fp16":
            found[name] = Array(array.shape, "float16")
        elif len(array.shape) < 2:
            found[name] = Array(array.shape, "float32")
        else:
            found[name] = Array(array.shape, "int8")
            found[name + SCALE_SUFFIX] = Array(array.shape[:1], "float32")
    return found


def prefixed(layout: Layout, prefix: str) -> Layout:
    """The same arrays under names that begin with `prefix`."""
    return {prefix + name: array for name, array in layout.items()}


def generator_layout(spec: GeneratorSpec) -> Layout:
    """What a provider shares: one set of weights per member of the checkpoint ensemble; see `GenerativeModel.shared_arrays`."""
    return _generator_layout(spec.model_dump_json())


@lru_cache(maxsize=256)
def _generator_layout(spec: str) -> Layout:
    parsed = GeneratorSpec.model_validate_json(spec)
    with shapes_only():
        model = parsed.build(0)
    # A generator that is averaged has the shapes of its average.
    one = {n: t for n, t in model.sampler.state_dict().items() if not n.endswith("num_batches_tracked")}
    return {f"{member}.{name}": array for member in parsed.training.members for name, array in layout_of(one).items()}


def averaged_layout(spec: GeneratorSpec, *, averaged_generator: bool) -> Layout:
    """What `models.federated_parts` averages of a generative model.

    Args:
        averaged_generator: whether the generator's moving average travels, too.
    """
    return _averaged_layout(spec.model_dump_json(), averaged_generator)


@lru_cache(maxsize=256)
def _averaged_layout(spec: str, averaged_generator: bool) -> Layout:
    parsed = GeneratorSpec.model_validate_json(spec)
    with shapes_only():
        model = parsed.build(0)
    if averaged_generator and parsed.training.averages:
        model.start_average()
    return layout_of(averaged_state(model, copy=False))


def network_layouts(spec: GeneratorSpec, network: str) -> tuple[Layout, Layout]:
    """Of one network of a generative model: (averaged state, parameters)."""
    return _network_layouts(spec.model_dump_json(), network)


@lru_cache(maxsize=256)
def _network_layouts(spec: str, network: str) -> tuple[Layout, Layout]:
    parsed = GeneratorSpec.model_validate_json(spec)
    with shapes_only():
        found = parsed.build(0).networks[network]
    return layout_of(averaged_state(found, copy=False)), layout_of(dict(found.named_parameters()))


def fastest_rate_of(spec: GeneratorSpec) -> float:
    """See `models.phases.fastest_rate`."""
    return _fastest_rate(spec.model_dump_json())


@lru_cache(maxsize=256)
def _fastest_rate(spec: str) -> float:
    parsed = GeneratorSpec.model_validate_json(spec)
    with shapes_only():
        return fastest_rate(parsed.build(0).phases(), parsed.training.learning_rate)


def classifier_layout(spec: ClassifierSpec, *, averaged: bool = False) -> Layout:
    """A classifier's whole state, or the part of it that a federation averages."""
    return _classifier_layout(spec.plain.model_dump_json(), averaged)


@lru_cache(maxsize=256)
def _classifier_layout(spec: str, averaged: bool) -> Layout:
    with shapes_only():
        network = ClassifierSpec.model_validate_json(spec).build(0)
    return layout_of(averaged_state(network, copy=False) if averaged else network.state_dict())


def patches_layout(task: PatchTask, count: int | None) -> Layout:
    """So many patches of a task as "pixels"; None: their number is not known before the survey."""
    return {"pixels": Array((count, *task.shape), task.storage)}


def preview_layout(spec: GeneratorSpec, images: int = PREVIEW) -> Layout:
    """Synthetic images and their labels, as they travel with a generator.

    Their number is known where each class must be there: a model of more than two may have seen some of them only.

    Args:
        images: of each class that were drawn; at most `PREVIEW` of them travel.
    """
    count = min(PREVIEW, images) * len(spec.labels) if len(spec.labels) <= 2 else None
    return {
        "preview.pixels": Array((count, *spec.shape), spec.storage),
        "preview.labels": Array((count,), "int64"),
    }
