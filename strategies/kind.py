"""What a kind of job is, declared once: its body, its arrays in and out, what the answer tells about patients, and the work.

Both sides read the declaration. The server makes jobs from it and refuses answers that do not fit; a centre parses the body,
refuses arrays that do not fit, does the work, and keeps back whatever the declaration does not name. Predicted bytes, the check
against an approved study, a hospital's plan page and the policy's rules follow from it, too.

Longer than most files, because a declaration and what follows from it stand together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic import Field as Field_

# For what a job uses patients: a model learns from them, they are added up, or a model is measured on them.
Purpose = Literal["training", "sum", "test"]
# How much a field tells of patients, from what a model learned from them to nothing.
Risk = Literal["model", "aggregate", "counts", "none"]
Phase = Literal["survey", "share", "learn", "test"]
Arrays = dict[str, np.ndarray]
Answer = tuple[dict[str, Any], Arrays]


class Body(BaseModel):
    """Arguments of a job. A missing or an unknown key is an error on either side."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Answered(BaseModel):
    """Types of an answer's fields that the server computes with, as they must be in JSON: a text is no number, nor is a truth value.
    More fields may be there."""

    model_config = ConfigDict(strict=True)


# A sentence, or the name of a version, of a platform or of a class.
Words = Annotated[str, StringConstraints(max_length=2000)]
Count = Annotated[int, Field_(ge=0)]


def _as_long_as_steps(value: dict[str, list[Any]]) -> dict[str, list[Any]]:
    lengths = {len(column) for column in value.values()}
    if len(lengths) > 1 or (value and "step" not in value):
        raise ValueError("has columns of different lengths, or no steps")
    return value


# What a training was like: columns of one length, among them `step`. None: nothing was measured then.
Curves = Annotated[dict[Words, list[float | Words | None]], AfterValidator(_as_long_as_steps)]


# -- arrays ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Array:
    """Shape and dtype of one array; a side of None is not known before the data is seen."""

    shape: tuple[int | None, ...]
    dtype: str

    @cached_property
    def nbytes(self) -> int | None:
        """Bytes of the array; None where they cannot be known yet."""
        known = [side for side in self.shape if side is not None]
        return math.prod(known) * np.dtype(self.dtype).itemsize if len(known) == len(self.shape) else None

    def fits(self, array: np.ndarray) -> bool:
        """Whether an array has this dtype and shape."""
        return (
            str(array.dtype) == self.dtype
            and array.ndim == len(self.shape)
            and all(side in (None, own) for side, own in zip(self.shape, array.shape, strict=True))
        )


Layout = Mapping[str, Array]


def layout_of(arrays: Mapping[str, Any], prefix: str = "") -> dict[str, Array]:
    """The layout of arrays or tensors at hand, or of tensors that have shapes only."""
    return {
        prefix + name: Array(tuple(array.shape), str(array.dtype).removeprefix("torch."))
        for name, array in arrays.items()
    }


def layout_bytes(layout: Layout) -> int | None:
    """Bytes of all arrays; None where one of them cannot be known yet."""
    sizes = [array.nbytes for array in layout.values()]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _nothing(body: Any) -> Layout:
    return {}


def _always(body: Any) -> bool:
    return True


def _never(body: Any) -> bool:
    return False


@dataclass(frozen=True)
class Received:
    """Arrays that come with a job.

    Attributes:
        name: `*` stands for any one part of a name.
        layout: exact names, shapes and dtypes, from the body.
    """

    name: str
    layout: Callable[[Any], Layout]


@dataclass(frozen=True)
class Start:
    """Weights that come again and again, and that a centre can make itself for the first time.

    Attributes:
        number: key of the body that counts them, from 0 on; None: these came before, with a number.
        decoded: arrays of a job as plain weights, by name in the model.
        initial: those of number 0, from the body.
        free: from the body, names that follow the images and not the learning rate (batch norm's statistics).
    """

    number: str | None
    decoded: Callable[[Any, Arrays], Arrays]
    initial: Callable[[Any], Arrays]
    free: Callable[[Any], frozenset[str]]


@dataclass(frozen=True)
class Field:
    """One part of an answer's body, as the page of a hospital shows it.

    Attributes:
        name: path in the body; `*` stands for any one part of a path.
        type: what it is made of.
        tells: what it says about patients.
        risk: none: nothing about patients. counts: how many there are of what. aggregate: numbers over many images.
            model: what a model learned from them.
        when: where it is not sent every time.
    """

    name: str
    type: str
    tells: str
    risk: Risk = "none"
    when: str = ""


@dataclass(frozen=True)
class Sent(Field):
    """Arrays of an answer.

    Attributes:
        layout: exact names, shapes and dtypes, from the body of the job.
        sent_if: whether they are sent at all, from the body.
    """

    layout: Callable[[Any], Layout] = field(default=_nothing, kw_only=True)
    sent_if: Callable[[Any], bool] = field(default=_always, kw_only=True)


# -- what a hospital's minimums are compared with ------------------------------------------------------------------------


@dataclass(frozen=True)
class Uses:
    """Whose images a kind of job uses.

    Attributes:
        groups: from all patches of the centre (a `PatchDataset`) and the body: the selections of which each must be of enough
            patients.
        where: whether a job uses them at all, from the body.
    """

    purpose: Purpose
    groups: Callable[[Any, Any], Iterable[Any]]
    where: Callable[[Any], bool] = _always


@dataclass(frozen=True)
class Terms:
    """How a job trains what then leaves.

    Attributes:
        steps: training steps behind it.
        batch_size: images of the smallest batch.
        settings: by key of the hospital's minimums (learning_rate, betas, smoothing, width), the values that the study sets.
    """

    steps: int
    batch_size: int
    settings: Mapping[str, tuple[float, ...]]


def _no_training(body: Any) -> Terms | None:
    return None


# -- kinds -------------------------------------------------------------------------------------------------------------


class BadBody(ValueError):
    """A body that is not one of its kind: `key` is the first that is missing, unknown or of another type."""

    code = "bad_body"

    def __init__(self, kind: str, key: str, text: str):
        super().__init__(f"{kind}: {key}: {text}")
        self.key = key
        self.numbers: dict[str, Any] = {"kind": kind, "key": key[:64]}


@dataclass(frozen=True)
class Kind:
    """One kind of job.

    Attributes:
        name: as it travels, and in records.
        title: in the words of reports and pages.
        phase: of the study.
        body: the arguments.
        work: what a centre does: (its side, the body, arrays) -> (answer, arrays), none of Flower's types. Where the kind
            is `stateful`: (its side, the body, arrays, state) -> ((answer, arrays), state after it).
        answer: fields of the answer's body.
        answer_model: types of those that the server computes with, where there are many; more fields may be there.
        sends, receives: arrays.
        pixels: whether images of patients leave a centre, or come to one. A deployed node refuses such a job.
        stateful: whether it builds on what the centre kept of the job before.
        place: where a federation stands, as keys of the body: a centre answers places in ascending order, each once.
        start: the weights that a job brings, where a centre can tell whether they are those of this training.
        steady: of an answer that is made anew each time (`kept` is False), what must not change within an approved study.
        averaged: whether answers become part of a running result and are not kept themselves.
        kept: whether a resumed run takes a recorded answer instead of asking again.
        reveals: what a dishonest coordinator could learn of patients from the answers, in plain words.
        uses: whose images. A kind that tells of patients of a task and says nothing here is taken to train on all training patches.
        trains: how what leaves is trained, from the body; None where nothing that was trained leaves.
        once: whether the work itself answers each question once, and refuses otherwise; a node's memory leaves it alone.
        masked: whether the arrays of an answer can be read in a sum over several centres only, from the body.
    """

    name: str
    title: str
    phase: Phase
    body: type[Body]
    work: Callable[..., Any]
    answer: tuple[Field, ...] = ()
    answer_model: type[BaseModel] | None = None
    sends: tuple[Sent, ...] = ()
    receives: tuple[Received, ...] = ()
    pixels: bool = False
    stateful: bool = False
    averaged: bool = False
    kept: bool = True
    place: tuple[str, ...] = ()
    start: Start | None = None
    steady: Callable[[Mapping[str, Any]], Any] | None = None
    reveals: str = ""
    uses: tuple[Uses, ...] = ()
    trains: Callable[[Any], Terms | None] = _no_training
    once: bool = False
    masked: Callable[[Any], bool] = _never

    def parse(self, body: Mapping[str, Any]) -> Any:
        """The body, checked.

        Raises:
            BadBody: a key is missing, unknown, or of another type.
        """
        try:
            return self.body.model_validate(dict(body))
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise BadBody(self.name, key or "body", first["msg"]) from None

    def fields(self) -> tuple[Field, ...]:
        """All that an answer may hold: arrays first."""
        return (*self.sends, *self.answer)

    def releases_model(self, body: Any) -> bool:
        """Whether the answer holds what a model learned from patients."""
        return any(part.risk == "model" and part.sent_if(body) for part in self.sends)

    def plain_update(self, body: Any) -> bool:
        """Whether the answer holds what this centre alone has learned, round after round."""
        return self.averaged and self.releases_model(body) and not self.masked(body)

    def layout_in(self, body: Any) -> Layout:
        """Arrays that a job of this body brings."""
        return _merged(part.layout(body) for part in self.receives)

    def layout_out(self, body: Any) -> Layout:
        """Arrays of the answer to a job of this body."""
        return _merged(part.layout(body) for part in self.sends if part.sent_if(body))

    def misfit_in(self, body: Any, arrays: Mapping[str, np.ndarray]) -> str:
        """Name of the first array of a job that should not be there, is missing, or has another shape or dtype; "" if none."""
        return _misfit(self.layout_in(body), arrays)

    def misfit_out(self, body: Any, arrays: Mapping[str, np.ndarray]) -> str:
        """The same of an answer."""
        return _misfit(self.layout_out(body), arrays)

    def missing(self, body: Mapping[str, Any], asked: Any = None) -> str:
        """The first field that every answer has and this one lacks, or has with another type; empty where there is none.

        Args:
            asked: the body of the job, which may ask for more.
        """
        if self.answer_model is not None:
            try:
                self.answer_model.model_validate(body, context=asked)
            except ValidationError as problem:
                return ".".join(str(part) for part in problem.errors(include_url=False)[0]["loc"])
        for part in self.answer:
            place: Any = body
            for key in part.name.split("."):
                if part.when or key == "*":
                    break
                if not isinstance(place, Mapping) or key not in place:
                    return part.name
                place = place[key]
        return ""

    def undeclared(self, body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
        """The first part of an answer that is not declared; empty where all are."""
        fields = [_pattern(part.name) for part in self.answer]
        for path in _paths(body):
            if not any(pattern.fullmatch(path) for pattern in fields):
                return path.rstrip("\0").replace("\0", ".")
        for name, array in arrays.items():
            declared = any(fullmatch(part.name, name) for part in self.sends)
            if not declared or not isinstance(array, np.ndarray):
                return name
        return ""


def _merged(layouts: Iterator[Layout]) -> Layout:
    merged: dict[str, Array] = {}
    for layout in layouts:
        merged |= layout
    return merged


def _misfit(expected: Layout, arrays: Mapping[str, np.ndarray]) -> str:
    for name in (*expected, *arrays):
        if name not in expected or name not in arrays or not expected[name].fits(arrays[name]):
            return name
    return ""


def fullmatch(declared: str, name: str) -> bool:
    """Whether the name of an array is covered by a declared one."""
    return _pattern(declared).fullmatch(name.replace(".", "\0")) is not None


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """A declared name as a pattern: it covers all that lies below it."""
    parts = "\0".join("[^\0]*" if part == "*" else re.escape(part) for part in name.split("."))
    return re.compile(parts + "(\0.*)?", re.DOTALL)


def _paths(value: Any, above: str = "") -> Iterator[str]:
    """Paths of everything that is not a mapping, parts joined by NUL because keys may hold points."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _paths(inner, f"{above}\0{key}" if above else str(key))
    elif isinstance(value, Mapping) and above:
        yield f"{above}\0"  # an empty mapping where a declared field may be
    elif above:
        yield above
