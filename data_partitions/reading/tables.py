"""Tables as text: csv in any encoding and with commas, semicolons, tabs or bars, .xls and .xlsx. One reader for all sources.

A csv file is read line by line, because a stray quotation mark would otherwise swallow rows. A row with another number of
cells than the header is a fault with its line, unless what it has more is empty (a separator at the end of each row); so is a
line break inside a cell. A quoted cell may end with a line break, as some of CBIS-DDSM do. Numbers of rows are those of
lines in the file, or of rows in a sheet; 1 is the first.

Encoding: that of a byte order mark, else the one that is named, else UTF-8, else cp1252 (counted: it fits nearly any bytes).
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_partitions.errors import BadFile, DataError, Problem
from data_partitions.reading.limits import DEFAULT, Limits
from data_partitions.reading.opening import brief, check_bytes, check_unpacked, read_bytes

EXTRA = "spreadsheets"
SHEETS = (".xls", ".xlsx")
MARKS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = (  # the longer ones first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
FALLBACK = "cp1252"
LINE = re.compile(r"\r\n|\n|\r")  # not what str.splitlines takes for a line break, too


@dataclass(frozen=True)
class Table:
    """Names of columns as they are, rows (number, cells without spaces around them) that are not empty, and faulty rows.

    facts: how often something was changed or guessed, by the names in `facts`.
    """

    columns: tuple[str, ...]
    rows: list[tuple[int, tuple[str, ...]]]
    problems: list[Problem] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)

    def records(self) -> list[tuple[int, dict[str, str]]]:
        """(number, cells by the column's name)."""
        return [(number, dict(zip(self.columns, cells, strict=True))) for number, cells in self.rows]


def read_table(path: Path, encoding: str | None = None, limits: Limits = DEFAULT) -> Table:
    """The table, with the rows that can be read. Raises DataError where none can."""
    if not path.is_file():
        raise DataError("missing_file", f"{path} does not exist; correct `path`", field=path.name)
    try:
        if path.suffix.lower() in SHEETS:
            table = _from_sheet(path, limits)
        else:
            text, guessed = decoded_text(read_bytes(path, limits), encoding, path)
            table = _from_lines(path, LINE.split(text))
            table.facts.update(["encoding_guessed"] * guessed)
    except BadFile as error:
        code = "bad_table" if error.code == "bad_image" else error.code
        raise DataError(code, f"{path} {error}", field=path.name) from error
    if table.problems and not table.rows:
        raise DataError("bad_table", f"{path} has no row that can be read: {table.problems[0].text}", field=path.name,
                        problems=tuple(Problem("bad_table", one.text) for one in table.problems))  # fmt: skip
    return table


def read_records(
    path: Path, required: Sequence[str], encoding: str | None = None, limits: Limits = DEFAULT
) -> tuple[list[tuple[int, dict[str, str]]], Table]:
    """(number, cells by `canonical` name) of every row that is not empty, and the table itself. Raises DataError.

    Column names are compared without regard to case, spaces, hyphens and underscores, because the four tables of one archive
    spell "breast density" in two ways. required: canonical names of columns that must be there.
    """
    table = read_table(path, encoding, limits)
    names = [canonical(column) for column in table.columns]
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(
            "bad_columns",
            f"{path}: no column for {', '.join(missing)}; it has {', '.join(table.columns)}",
            field=", ".join(missing),
        )
    _refuse_twins(path, names, table)
    return [(number, dict(zip(names, cells, strict=True))) for number, cells in table.rows], table


def canonical(name: str) -> str:
    """ " Breast-Density" and "breast_density" are "breast_density"; "#filename" is "filename"."""
    return re.sub(r"[\s_\-]+", "_", name.strip().strip("#").strip()).lower()


def decoded_text(data: bytes, encoding: str | None, path: Path) -> tuple[str, bool]:
    """Text of a file, and whether its encoding was guessed. Raises DataError."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    unmarked = _utf_16(data) if marked is None and encoding is None else None
    named = [name for name in (marked or unmarked, encoding) if name]
    for name in named or ["utf-8", FALLBACK]:
        try:
            return data.decode(name), name == FALLBACK and encoding is None
        except (UnicodeError, LookupError) as error:
            reason = error
    raise DataError(
        "bad_encoding",
        f"{path} is not text in {encoding or marked or unmarked or 'UTF-8'} ({brief(reason)}); set `encoding`, often latin-1 or cp1252",
        field="encoding",
    ) from reason


def _utf_16(data: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of a table's first line is 0."""
    head = data[:64]
    halves = [head[start::2].count(0) for start in (0, 1)]
    if not head or max(halves) < 0.4 * len(head):
        return None
    return "utf-16-be" if halves[0] > halves[1] else "utf-16-le"


def _from_lines(path: Path, lines: list[str]) -> Table:
    start = next((place for place, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise BadFile("bad_table", "is an empty file; copy it again")
    mark = None
    if lines[start].lower().startswith("sep=") and len(lines[start].strip()) == 5:  # as spreadsheets write it
        mark, start = lines[start].strip()[4], start + 1
    if start >= len(lines):
        raise BadFile("bad_table", "has no header; copy it again")
    mark = mark or _separator(lines[start])
    number, header = next(_parsed(lines, start, mark))
    if isinstance(header, str):
        raise BadFile("bad_table", f"has a header that cannot be read: line {number} {header}")
    rows = ((number, cells) for number, cells in _parsed(lines, start, mark) if number > start + 1)
    return _table(path.name, header, rows)


def _table(name: str, header: Sequence[str], rows: Iterable[tuple[int, list[str] | str]]) -> Table:
    """Rows with as many cells as the header; others are faults."""
    while header and not header[-1]:
        header = header[:-1]
    columns, width = tuple(header), len(header)
    if not width:
        raise BadFile("bad_table", "has no header; copy it again")
    table = Table(columns, [])
    for number, cells in rows:
        if isinstance(cells, str):
            table.problems.append(Problem("bad_row", f"{name} row {number} {cells}"))
        elif not any(cells):
            continue
        elif len(cells) < width or any(cells[width:]):
            table.problems.append(Problem(
                "bad_row", f"{name} row {number} has {len(cells)} cells where the header has {width}; quote a cell that holds the separator"
            ))  # fmt: skip
        else:
            table.facts["trailing_separators"] += len(cells) > width
            table.rows.append((number, tuple(cells[:width])))
    return table


def _parsed(lines: list[str], start: int, mark: str) -> Iterator[tuple[int, list[str] | str]]:
    """(number of the line, its cells or what is wrong with it) from line `start` on, the first of which is 0."""
    place = start
    while place < len(lines):
        cells = _cells(lines[place], mark)
        taken = 1
        if cells is None and place + 1 < len(lines) and _closes_first(lines[place + 1], mark):
            cells, taken = _cells(f"{lines[place]}\n{lines[place + 1]}", mark), 2
        if cells is None:
            yield (
                place + 1,
                "has a quotation mark that opens or closes no cell on its line; remove it, or write the cell on one line",
            )
            place += 1
        else:
            yield place + 1, cells
            place += taken


def _closes_first(line: str, mark: str) -> bool:
    """Whether a line begins with the quotation mark that closes the last cell of the line before."""
    return re.match(rf'\s*"\s*({re.escape(mark)}|$)', line) is not None


def _cells(line: str, mark: str) -> list[str] | None:
    """Cells without spaces around them; None where quotation marks do not match."""
    if not line.strip():
        return []
    try:
        (cells,) = csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        return None
    return [cell.strip() for cell in cells]


def _separator(header: str) -> str:
    """The mark that the header has most of, outside quotation marks."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(MARKS, key=bare.count)


def _refuse_twins(path: Path, names: list[str], table: Table) -> None:
    """Two columns of one name are refused where their cells differ: which of them is meant is not known."""
    for name in {name for name in names if name and names.count(name) > 1}:
        places = [place for place, own in enumerate(names) if own == name]
        for number, cells in table.rows:
            if len({cells[place] for place in places}) > 1:
                raise DataError(
                    "bad_columns",
                    f"{path}: two columns are called {name!r} and differ in row {number}; rename one",
                    field=name,
                )


def _from_sheet(path: Path, limits: Limits) -> Table:
    """The first sheet. Further ones are counted."""
    try:
        if path.suffix.lower() == ".xls":
            check_bytes(path, limits)
            rows, sheets = _old_sheet(path)
        else:
            check_unpacked(path, limits, "copy it again")
            rows, sheets = _new_sheet(path)
    except BadFile:
        raise
    except ImportError as error:
        raise BadFile(
            "missing_reader",
            f"is a spreadsheet; install its reader: pip install 'polycentre[{EXTRA}]', or save it as .csv",
        ) from error
    except Exception as error:  # xlrd and openpyxl each raise errors of their own
        raise BadFile(
            "bad_table", f"is not a spreadsheet that can be read ({brief(error)}); save it as .csv"
        ) from error
    width = max((len(row) for row in rows), default=0)
    cells = [[_cell(value) for value in row] + [""] * (width - len(row)) for row in rows]
    table = _table(path.name, cells[0] if cells else [], enumerate(cells[1:], start=2))
    table.facts["further_sheets"] += sheets > 1
    return table


def _cell(value: object) -> str:
    """Text without spaces around it; a spreadsheet's number 5.0 is "5"."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _old_sheet(path: Path) -> tuple[list[list[Any]], int]:
    """Rows of the first sheet, errors as their text, and how many sheets there are."""
    import xlrd

    book = xlrd.open_workbook(path)
    sheet = book.sheet_by_index(0)
    errors = xlrd.error_text_from_code
    return [
        [
            errors.get(cell.value, "#ERROR") if cell.ctype == xlrd.XL_CELL_ERROR else cell.value
            for cell in sheet.row(row)
        ]
        for row in range(sheet.nrows)
    ], book.nsheets


def _new_sheet(path: Path) -> tuple[list[list[Any]], int]:
    """The same; a formula whose result the file does not hold is an error."""
    values, sheets = _first_sheet(path, results=True)
    formulas, _ = _first_sheet(path, results=False)
    for row, written in zip(values, formulas, strict=True):
        for place, formula in enumerate(written):
            if row[place] is None and isinstance(formula, str) and formula.startswith("="):
                row[place] = "#FORMULA"
    return values, sheets


def _first_sheet(path: Path, *, results: bool) -> tuple[list[list[Any]], int]:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=results)
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what a file says of its size may be wrong, and rows beyond it would be lost
        return [list(row) for row in sheet.iter_rows(values_only=True)], len(book.worksheets)
    finally:
        book.close()
