"""CSV whose bytes depend on the rows alone: not on their order, nor on the type (Python's or numpy's) of a number."""

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
    None and NaN become empty cells.
    """
    wanted = set(columns)
    table = []
    for row in rows:
        if set(row) != wanted:
            missing, unknown = sorted(wanted - set(row)), sorted(set(row) - wanted)
            raise ValueError(f"a row lacks the columns {missing} and has the unknown columns {unknown}")
        table.append([_cell(row[name]) for name in columns])
    by_number = [name in numeric for name in columns]
    table.sort(key=lambda cells: [_sort_key(c, n) for c, n in zip(cells, by_number, strict=True)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(table)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        # Adding zero turns -0.0 into 0.0. Ten digits: more than a test set resolves, fewer than a sum's order changes.
        return "" if math.isnan(value) else f"{float(value) + 0.0:.10g}"
    return str(value)


def _sort_key(cell: str, by_number: bool) -> tuple[int, float, str]:
    if by_number:
        try:
            return (0, float(cell), cell)
        except ValueError:  # an empty cell, or a size given in words: after the numbers
            return (1, 0.0, cell)
    return (0, 0.0, cell)
