"""Tables of archives as text: csv in any encoding and with commas, semicolons or tabs, .xls and .xlsx.

Column names are compared without regard to case, spaces, hyphens and underscores, because the four tables of one archive
spell "breast density" in two ways. Spaces and line breaks around a cell's text are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_partitions.errors import DataError

EXTRA = "spreadsheets"
SHEETS = (".xls", ".xlsx")
MARKS = (",", ";", "\t")


def read_csv(path: Path, encoding: str, separator: str = ",") -> pd.DataFrame:
    """The table as text, column names as they are. Raises DataError."""
    try:
        # utf-8-sig also reads plain UTF-8; it drops the mark that spreadsheets put in front.
        return pd.read_csv(
            path, dtype=str, keep_default_na=False, skipinitialspace=True, sep=separator,
            encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding,
        )  # fmt: skip
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            "bad_encoding",
            f"{path} is not text in {encoding} ({error}); set `encoding`, often latin-1 or cp1252",
            field="encoding",
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError("bad_table", f"{path} is not a table separated by commas ({error})", field=path.name) from error


def read_records(path: Path, required: Sequence[str], encoding: str = "utf-8") -> list[tuple[int, dict[str, str]]]:
    """(number of the row in its file, cells by `canonical` name) of every row that is not empty. Raises DataError.

    required: canonical names of columns that must be there.
    """
    if not path.is_file():
        raise DataError("missing_file", f"{path} does not exist; correct `path`", field=path.name)
    table = _sheet(path) if path.suffix.lower() in SHEETS else read_csv(path, encoding, _separator(path))
    names = [canonical(str(column)) for column in table.columns]
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(
            "bad_columns",
            f"{path}: no column for {', '.join(missing)}; it has {', '.join(map(str, table.columns))}",
            field=", ".join(missing),
        )
    rows = []
    for number, values in enumerate(table.itertuples(index=False, name=None), start=2):  # row 1 is the header
        cells = [_cell(value) for value in values]
        if any(cells):
            rows.append((number, dict(zip(names, cells, strict=True))))
    return rows


def canonical(name: str) -> str:
    """ " Breast-Density" and "breast_density" are "breast_density"; "#filename" is "filename"."""
    return re.sub(r"[\s_\-]+", "_", name.strip().strip("#").strip()).lower()


def _cell(value: object) -> str:
    """Text without spaces around it; a spreadsheet's number 5.0 is "5"."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _separator(path: Path) -> str:
    """The mark that the first line has most of."""
    with path.open("rb") as file:
        line = file.readline()
    return max(MARKS, key=lambda mark: line.count(mark.encode()))


def _sheet(path: Path) -> pd.DataFrame:
    """The first sheet, as text."""
    try:
        rows = _old_sheet(path) if path.suffix.lower() == ".xls" else _new_sheet(path)
    except ImportError as error:
        raise DataError(
            "missing_reader",
            f"{path} is a spreadsheet; install its reader: pip install 'polycentre[{EXTRA}]', or save it as .csv",
            field=path.name,
        ) from error
    except Exception as error:  # xlrd and openpyxl each raise errors of their own
        raise DataError(
            "bad_table", f"{path} is not a spreadsheet that can be read ({error})", field=path.name
        ) from error
    header, *body = rows or [[]]
    return pd.DataFrame(body, columns=[str(name or "") for name in header], dtype=object)


def _old_sheet(path: Path) -> list[list[Any]]:
    import xlrd

    sheet = xlrd.open_workbook(path).sheet_by_index(0)
    return [sheet.row_values(row) for row in range(sheet.nrows)]


def _new_sheet(path: Path) -> list[list[Any]]:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        return [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
    finally:
        book.close()
