"""A generator as one centre gives it to another: a folder with weights and a card, and no code.

    generator.safetensors   the generator's weights (one set per member of a checkpoint ensemble)
    card.json               architecture, training, hashes; data it saw, licence, purpose and further statements

A package is read whole or not at all: one changed byte in either file is refused, and so are weights that do not fit
the architecture. The hashes guard against damage and mix-ups; they do not prove who made a package.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from basics.bounded_text import CARD as LIMITS
from basics.bounded_text import load_json, read_text
from models.errors import PackageError
from models.generative import GenerativeModel
from models.generator_spec import GeneratorSpec
from models.shapes_only import shapes_only

FORMAT = "polycentre-generator/2"
WEIGHTS, CARD = "generator.safetensors", "card.json"
_OWN_KEYS = ("format", "architecture", "training", "hashes")


@dataclass(frozen=True)
class GeneratorPackage:
    """A trained generator with its card.

    Attributes:
        spec: what to build, and how it was trained.
        weights: `GenerativeModel.shared_arrays`.
        card: further statements (data_card, licence, purpose, metrics, privacy, ...), JSON values.
    """

    spec: GeneratorSpec
    weights: Mapping[str, np.ndarray]
    card: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the package; the folder appears whole, in place of an earlier one.

        Raises:
            PackageError: the weights do not fit the architecture, or the card uses a key of the package's own.
        """
        self._check()
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            (temporary / WEIGHTS).write_bytes(self._weight_bytes())
            (temporary / CARD).write_bytes(self._card_bytes())
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def read(cls, folder: Path) -> GeneratorPackage:
        """Read and check a package.

        Raises:
            PackageError: it is missing, altered or of another format, or its weights do not fit.
        """
        folder = Path(folder)
        try:
            card_text, weight_bytes = read_text(folder / CARD, LIMITS), (folder / WEIGHTS).read_bytes()
        except OSError as error:
            raise PackageError(f"{folder} is not a generator package: {error.strerror}: {error.filename}") from error
        except ValueError as error:
            raise PackageError(f"{folder / CARD} cannot be read: {error}; get the package again") from error
        try:
            card = load_json(card_text, LIMITS)
            if card["format"] != FORMAT:
                raise PackageError(f"{folder} has format {card['format']!r}; this version reads {FORMAT!r}")
            if hashlib.sha256(weight_bytes).hexdigest() != card["hashes"][WEIGHTS]:
                raise PackageError(
                    f"{folder / WEIGHTS} was altered: its SHA-256 is not the one on the card; get the package again"
                )
            # Their number follows from the classes and `conditional`.
            architecture = {k: v for k, v in card["architecture"].items() if k != "num_classes"}
            spec = GeneratorSpec.model_validate(architecture | {"training": card["training"]})
            weights = load(weight_bytes)
        except (AttributeError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if isinstance(error, PackageError):
                raise
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise PackageError(
                f"{folder / CARD} or its weights cannot be read: {problem}; get the package again"
            ) from error
        package = cls(spec, weights, {k: v for k, v in card.items() if k not in _OWN_KEYS})
        package._check()
        if package._card_bytes() != card_text.encode():
            raise PackageError(f"{folder / CARD} was altered: it is not what its own hash says; get the package again")
        return package

    @property
    def digest(self) -> str:
        """SHA-256 of the card, which holds that of the weights: changes with any byte of the package."""
        return hashlib.sha256(self._card_bytes()).hexdigest()

    def _check(self) -> None:
        taken = sorted(set(self.card) & set(_OWN_KEYS))
        if taken:
            raise PackageError(f"card key {taken[0]!r} is written by the package itself; use another name")
        try:
            _json(dict(self.card))
        except (TypeError, ValueError) as error:
            raise PackageError(f"the card is not JSON: {error}") from error
        if not all(np.isfinite(array).all() for array in self.weights.values()):
            raise PackageError("the generator's weights hold NaN or infinity")
        try:
            shapes = _shapes_of(self.spec.model_dump_json())
            try:
                shapes.load_shared_arrays(self.weights)
            finally:
                shapes._members = []  # it serves the next package, too, and would keep an ensemble's arrays until then
        except ValueError as error:
            raise PackageError(f"the generator's weights do not fit: {error}") from error

    def _weight_bytes(self) -> bytes:
        return save({name: np.asarray(self.weights[name], order="C") for name in sorted(self.weights)})

    def _card_bytes(self) -> bytes:
        spec = self.spec.model_dump(mode="json")
        training = spec.pop("training")
        card = {
            "format": FORMAT,
            "architecture": spec | {"num_classes": self.spec.num_classes},
            "training": training,
            **self.card,
        }
        hashes = {
            WEIGHTS: hashlib.sha256(self._weight_bytes()).hexdigest(),
            CARD: hashlib.sha256(_json(card)).hexdigest(),
        }
        return _json(card | {"hashes": hashes})


@lru_cache(maxsize=8)
def _shapes_of(spec: str) -> GenerativeModel:
    """A model without values, whose shapes weights must have; the generators of a thousand centres are often of one kind."""
    with shapes_only():
        return GeneratorSpec.model_validate_json(spec).build(0)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
