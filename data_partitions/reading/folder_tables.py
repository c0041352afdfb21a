"""The two tables of a folder of images: one row per image, and one row per lesion.

A column has our name, the name in `columns: {ours: theirs}`, or one of the names in ALIASES, which public archives use.
A lesion is given as a circle (x, y, radius), a box (x0, y0, x1, y1), or a contour (contour_x, contour_y: numbers
separated by spaces), all in pixels from the top left corner.

Longer than most files, because the columns of both tables, and what may be wrong in them, are told in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_partitions.errors import DataError, Problem
from data_partitions.exams import Box, Lesion, bounding_box
from data_partitions.reading.cells import OLDEST, BadCell, decimal
from data_partitions.reading.folders import plain_path
from data_partitions.reading.label_words import LabelWords, UnknownWord
from data_partitions.reading.limits import Limits
from data_partitions.reading.tables import Table, read_table

ALIASES: dict[str, tuple[str, ...]] = {
    "laterality": ("laterality_per_Info",),  # mini-MIAS
    "density": ("tissue", "breast_density"),  # mini-MIAS, CBIS-DDSM
    "kind": ("abnormality", "abnormality type"),
    "lesion_label": ("severity", "pathology"),
    "diagnosis": ("dx",),  # HAM10000
    "y": ("y_top_left",),  # mini-MIAS counts y upwards in the original
    "contour_x": ("lw_x_points",),  # BCDR
    "contour_y": ("lw_y_points",),
}
# Codes of mini-MIAS (Suckling et al. 1994); "none" is a row without a lesion.
KINDS: dict[str, str] = {
    "CALC": "calcification", "CIRC": "mass", "SPIC": "mass", "MISC": "other", "ARCH": "distortion", "ASYM": "other",
    "NORM": "none", "mass": "mass", "calcification": "calcification", "distortion": "distortion", "other": "other",
    "none": "none", "normal": "none",
}  # fmt: skip
OURS = tuple(sorted({"mass", "calcification", "distortion", "other", "none"}))
SHAPES = {"circle": ("x", "y", "radius"), "box": ("x0", "y0", "x1", "y1"), "contour": ("contour_x", "contour_y")}


@dataclass(frozen=True)
class Metadata:
    """Rows by our names (text "" where unknown; age, spacing_mm, malignant: None), and what was wrong with others.

    labelled: whether the table has a column for the label; if so, an empty cell means that the label is not known. disputed:
    images to which two rows give different labels; theirs are not known. facts: how often something was changed or guessed in
    the table.
    """

    rows: list[dict]
    problems: list[Problem]
    labelled: bool
    disputed: set[str]
    facts: Mapping[str, int]

    def settle(self, first: dict, second: dict) -> None:
        """Of two rows of one image the first is used, without a label where they give different ones."""
        if any(first[name] != second[name] for name in ("malignant", "diagnosis")):
            first.update(malignant=None, diagnosis="")
            self.disputed.add(first["image"])


@dataclass(frozen=True)
class LesionTable:
    """Lesions by image; images with a lesion that has no coordinates; images whose lesion could not be read; faults.

    labels: of all lesions of an image, with or without coordinates. unlabelled: kind and row of each lesion without a
    known label. facts: what was changed, by the names in `facts`, and where.
    """

    lesions: dict[str, list[Lesion]] = field(default_factory=dict)
    labels: dict[str, list[bool | None]] = field(default_factory=dict)
    unlabelled: list[tuple[str, str]] = field(default_factory=list)
    without_place: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def read_metadata(
    path: Path, columns: Mapping[str, str], words: LabelWords, encoding: str | None, limits: Limits
) -> Metadata:
    """The table of images. Raises DataError where no row can be read."""
    table, find = _read(path, columns, encoding, limits, required=("image", "patient_id"))
    # `malignant` is the plainer column where a table has both, unless the scenario says which one is the label.
    label = find("label") if "label" in columns else find("malignant") or find("label")
    known = {name: find(name) for name in ("view", "laterality", "density", "scanner", "centre", "diagnosis")}
    if "label" not in columns and label == known["diagnosis"]:
        label = ""  # a column that `columns` names as the diagnosis holds no words for malignant
    age, spacing = find("age"), find("spacing_mm")
    image, patient = find("image"), find("patient_id")
    problems = list(table.problems)
    result = Metadata([], problems, bool(label), set(), table.facts)
    seen: dict[str, dict] = {}
    for number, record in table.records():
        where = f"{path.name} row {number}"
        try:
            row = {
                "row": number,
                "image": plain_path(_given(record, image, where)),
                "patient_id": _given(record, patient, where),
                "malignant": _label(record, label, words, where),
                "age": _number(record, age, where, low=0, high=OLDEST),
                "spacing_mm": _number(record, spacing, where, low=1e-4, high=100),
                **{name: record[column] if column else "" for name, column in known.items()},
            }
        except _BadValue as error:
            problems.append(Problem("bad_value", str(error)))
            continue
        name = str(row["image"])
        if name in seen:
            first = seen[name]
            problems.append(Problem(
                "duplicate_image",
                f"{where}: image {name} is in row {first['row']} already; keep one of them",
            ))  # fmt: skip
            result.settle(first, row)
            continue
        seen[name] = row
        result.rows.append(row)
    return result


def read_lesions(
    path: Path, columns: Mapping[str, str], kinds: Mapping[str, str], words: LabelWords, encoding: str | None, limits: Limits,
    shapes: Mapping[str, tuple[int, int]], known: set[str],
) -> LesionTable:  # fmt: skip
    """The table of lesions. shapes: image -> (height, width) of usable images; known: every image of the metadata.

    Raises DataError where a row cannot be read at all, or names no image: which one it is about is not known, and that image would
    pass as healthy.
    """
    table, find = _read(path, columns, encoding, limits, required=("image",))
    nameless = [
        Problem("bad_value", f"{path.name} row {number}: {find('image')} is empty; fill it in or drop the row")
        for number, record in table.records() if not record[find("image")]
    ]  # fmt: skip
    if table.problems or nameless:
        raise DataError.of([*table.problems, *nameless], f"{path}")
    given = [shape for shape, names in SHAPES.items() if all(find(name) for name in names)]
    if not given:
        forms = ", or ".join("(" + ", ".join(names) + ")" for names in SHAPES.values())
        raise DataError(
            "bad_columns",
            f"{path}: no column says where a lesion is; expected {forms}; map them in `columns`",
            field="lesions",
        )
    places = {name: find(name) for shape in given for name in SHAPES[shape]}
    image, kind, label, birads = find("image"), find("kind"), find("lesion_label"), find("birads")
    diagnosis = find("lesion_diagnosis")
    translate = {**KINDS, **kinds}
    result = LesionTable(facts=[(fact, path.name) for fact, count in table.facts.items() for _ in range(count)])
    seen: dict[tuple, tuple[int, bool | None]] = {}  # a lesion -> its row and label
    for number, record in table.records():
        where = f"{path.name} row {number}"
        name = plain_path(record[image])
        code = record[kind] if kind else "other"
        before = len(result.problems)
        if translate.get(code) not in OURS:
            result.problems.append(Problem(
                "bad_value", f"{where}: kind {code!r} is unknown; map it in `kinds` to one of {', '.join(OURS)}"
            ))  # fmt: skip
        elif name not in known:
            result.problems.append(Problem("lesion_without_row", f"{where}: image {name!r} is not in the metadata"))
        elif translate[code] != "none" and name in shapes:
            try:
                malignant = _label(record, label, words, where)
                box, contour = _place(record, places, given, where)
                key = name, translate[code], box, None if contour is None else contour.tobytes()
                first, label_there = seen.setdefault(key, (number, malignant))
                if first != number and box is not None:
                    result.problems.append(Problem(
                        "duplicate_lesion", f"{where}: this lesion of {name} is in row {first} already; keep one of them"
                    ))  # fmt: skip
                    if malignant != label_there:
                        result.unread.add(name)
                    continue
                result.labels.setdefault(name, []).append(malignant)
                if box is None:
                    result.without_place.append(name)
                    continue
                inside = _inside(box, shapes[name], where)
                if inside != box:
                    result.facts.append(("outlines_cut", where))
                lesion = Lesion(
                    inside,
                    translate[code],
                    malignant,
                    record[birads] if birads else "",
                    contour,
                    record[diagnosis] if diagnosis else "",
                )
                result.lesions.setdefault(name, []).append(lesion)
                if malignant is None:
                    result.unlabelled.append((lesion.kind, where))
            except _BadValue as error:
                result.problems.append(Problem("bad_value", str(error)))
        if len(result.problems) > before:
            result.unread.add(name)
    return result


class _BadValue(ValueError):
    """A cell that cannot be used."""


def _read(
    path: Path, columns: Mapping[str, str], encoding: str | None, limits: Limits, required: tuple[str, ...]
) -> tuple[Table, Callable[[str], str]]:
    """The table as text, and a function: our name -> its column, or ""."""
    if not path.is_file():
        setting = "metadata" if "patient_id" in required else "lesions"
        raise DataError(
            "missing_file",
            f"{path} does not exist; correct `{setting}`, or `path` if the folder is another",
            field=setting,
        )
    table = read_table(path, encoding, limits)
    for ours, theirs in columns.items():
        # One mapping serves both tables, so a column has to be in one of them only; required ones are checked below.
        if ours in required and theirs not in table.columns:
            raise DataError(
                "bad_columns", f"{path}: column {theirs!r} for {ours} is missing; it has {_listed(table)}", field=ours
            )

    def find(name: str) -> str:
        names = (columns[name],) if columns.get(name) in table.columns else (name, *ALIASES.get(name, ()))
        found = next((column for column in names if column in table.columns), "")
        if found and table.columns.count(found) > 1:
            raise DataError("bad_columns", f"{path}: two columns are called {found!r}; rename one", field=name)
        return found

    missing = [name for name in required if not find(name)]
    if missing:
        raise DataError(
            "bad_columns", f"{path}: no column for {', '.join(missing)}; it has {_listed(table)}; map it, as in "
            f"`columns: {{{missing[0]}: THEIRS}}`", field=", ".join(missing),
        )  # fmt: skip
    return table, find


def _listed(table: Table) -> str:
    return ", ".join(table.columns)


def _given(record: dict, column: str, where: str) -> str:
    value = record[column]
    if not value:
        raise _BadValue(f"{where}: {column} is empty; fill it in or drop the row")
    return value


def _number(record: dict, column: str, where: str, low: float, high: float) -> float | None:
    """None where the table does not say."""
    try:
        return decimal(record[column], column, low, high) if column else None
    except BadCell as error:
        raise _BadValue(f"{where}: {error}") from None


def _label(record: dict, column: str, words: LabelWords, where: str) -> bool | None:
    """Malignant or not; None where the table does not say."""
    try:
        return words.read(record[column]) if column else None
    except UnknownWord:
        negative = ", ".join(words.negative) or "any other word or whole number"
        raise _BadValue(
            f"{where}: {column} {record[column]!r} is neither malignant ({', '.join(words.positive)}) nor benign ({negative}); "
            "correct it, or list it in `positive` or `negative`"
        ) from None


def _place(
    record: dict, places: Mapping[str, str], given: list[str], where: str
) -> tuple[Box | None, np.ndarray | None]:
    """Box and contour of one lesion; (None, None) when all its cells are empty."""
    for shape in given:
        texts = [record[places[name]] for name in SHAPES[shape]]
        if not any(texts):
            continue
        try:
            values = [np.array(text.split(), dtype=np.float64) for text in texts]
        except ValueError:
            values = []
        counts = {len(value) for value in values}
        wrong = len(counts) != 1 or 0 in counts or (shape != "contour" and counts != {1})
        if wrong or not all(np.isfinite(value).all() for value in values):
            raise _BadValue(f"{where}: {', '.join(SHAPES[shape])} = {', '.join(texts)} is not a {shape}")
        if shape == "contour":
            points = np.column_stack([values[1], values[0]]).astype(np.float32)
            return bounding_box(points), points
        numbers = [float(value[0]) for value in values]
        if shape == "circle":
            x, y, radius = numbers
            numbers = [x - radius, y - radius, x + radius, y + radius]
        left, top, right, bottom = (round(number) for number in numbers)
        if right <= left or bottom <= top:
            raise _BadValue(f"{where}: the {shape} {', '.join(texts)} is empty")
        return Box(top, left, bottom, right), None
    return None, None


def _inside(box: Box, shape: tuple[int, int], where: str) -> Box:
    """The part of a lesion's box that lies on its image."""
    inside = box.clipped(shape)
    if inside.height < 1 or inside.width < 1:
        raise _BadValue(
            f"{where}: the lesion {tuple(box)} lies outside its image of {shape}; check x and y and where they start"
        )
    return inside
