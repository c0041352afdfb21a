"""CSV whose bytes depend on the rows alone: not on their order, nor on the type (Python's or numpy's) of a number.

A spreadsheet takes a cell that begins with = + - or @ for a formula, whoever wrote the text in it. Such a text gets an apostrophe
before it, which spreadsheets know as the mark of a text; `read_cell` takes it away again. Numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], numeric: Sequence[str] = ()) -> str:
    """Sorted rows as CSV text with a header.

    columns: names and order; a row with other keys is refused (ValueError naming them).
    numeric: the columns that sort by number; the others sort by text. Both after formatting, column by column.
    None and NaN become empty cells. A text that a spreadsheet would run is written as `text_cell` does.
    """
    wanted = set(columns)
    table = []
    for row in rows:
        if set(row) != wanted:
            missing, unknown = sorted(wanted - set(row)), sorted(set(row) - wanted)
            raise ValueError(f"a row lacks the columns {missing} and has the unknown columns {unknown}")
        table.append([_cell(row[name], name in numeric) for name in columns])
    by_number = [name in numeric for name in columns]
    table.sort(key=lambda cells: [_sort_key(c, n) for c, n in zip(cells, by_number, strict=True)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(table)
    return text.getvalue()


# A tab, a carriage return or a line feed before a formula is passed over.
_RUN = ("=", "+", "-", "@", "\t", "\r", "\n")
_MARK = "'"


def text_cell(text: str) -> str:
    """A text as a cell that no spreadsheet runs; `read_cell` gives it back, whatever it was."""
    return _MARK + text if text.lstrip(_MARK).startswith(_RUN) else text


def read_cell(cell: str) -> str:
    """The text of a cell that `text_cell` made."""
    return cell[1:] if cell.startswith(_MARK) and cell.lstrip(_MARK).startswith(_RUN) else cell


def _cell(value: Any, numeric: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        # Adding zero turns -0.0 into 0.0. Ten digits: more than a test set resolves, fewer than a sum's order changes.
        return "" if math.isnan(value) else f"{float(value) + 0.0:.10g}"
    return str(value) if numeric and _is_number(value) else text_cell(str(value))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _sort_key(cell: str, by_number: bool) -> tuple[int, float, str]:
    if by_number:
        try:
            return (0, float(cell), cell)
        except ValueError:  # an empty cell, or a size given in words: after the numbers
            return (1, 0.0, cell)
    return (0, 0.0, cell)
