"""mini-MIAS (Suckling et al. 1994) as it is distributed: 322 PGM images and Info.txt.

Info.txt has a line for each abnormality: number, tissue (F, G, D), class, severity, and x, y and radius in pixels, y from
the BOTTOM of the image (Info.txt, note 3). Abnormalities that spread over the whole breast have no coordinates (note 4).
Films come in pairs, odd numbers right and even numbers left, of one patient.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.errors import BadFile, DataError
from data_partitions.exams import Box, Exam, Lesion
from data_partitions.reading.cells import BadCell, whole
from data_partitions.reading.folder_tables import KINDS
from data_partitions.reading.folders import files_below
from data_partitions.reading.image_files import is_image
from data_partitions.reading.opening import read_bytes
from data_partitions.reading.tables import decoded_text

SPACING_MM = 0.2
TISSUES = ("F", "G", "D")
CLASSES = tuple(name for name in KINDS if name.isupper())
SEVERITIES = {"B": False, "M": True}
LINE = re.compile(r"mdb(\d{3})\b")
TABLE = "Info.txt"


class MiniMiasSource(ArchiveSource):
    """The unpacked archive: Info.txt and mdb001.pgm .. mdb322.pgm, all in one folder or below it."""

    source: Literal["mini_mias"] = "mini_mias"
    scanner: str = ""

    @property
    def official(self) -> dict[str, int]:
        """Counts of the whole archive: 161 pairs of films."""
        return {"images": 322, "patients": 161}

    def _exams(self, account: Account) -> list[Exam]:
        own = [file for file in files_below(self.path, "mdb*") if LINE.fullmatch(file.stem) and is_image(file)]
        files = account.one_each(own, lambda file: file.stem)
        findings: dict[str, list[tuple[str, list[str]]]] = {}
        for where, words in _lines(account, self.path / TABLE):
            if words[0] in account.several:
                continue  # a fault already
            if words[0] not in files:
                account.fault("row_without_file", f"{where}: no file {words[0]}.pgm; add it or drop the line")
            else:
                findings.setdefault(words[0], []).append((where, words))
        looks = account.looks({name: files[name] for name in sorted(findings)})
        account.unlisted({files[name] for name in findings} | {file for file in own if file.stem in account.several})
        exams, placeless = [], 0
        for name, look in looks.items():
            lesions: list[Lesion] = []
            severities: list[bool] = []
            for where, words in findings[name]:
                if words[2] == "NORM":
                    continue
                severities.append(SEVERITIES[words[3]])
                box = _box(words, look.shape[0])
                if box is None:
                    placeless += 1
                    account.unplaced.add(name)
                    continue
                if account.repeated(name, where, tuple(words[2:])):
                    continue
                inside = account.inside(name, f"{where}: the circle", box, look.shape)
                if inside is not None:
                    lesions.append(Lesion(inside, KINDS[words[2]], SEVERITIES[words[3]]))
            number = int(name[3:])
            exams.append(account.exam(
                look, files[name], name=name, patient=f"mias_p{(number + 1) // 2:03d}", view="MLO",
                laterality="R" if number % 2 else "L", density=findings[name][0][1][1], spacing_mm=SPACING_MM,
                scanner=self.scanner, malignant=any(severities), lesions=tuple(lesions),
            ))  # fmt: skip
        account.note(
            "lesions_without_coordinates", placeless,
            "lesions have no coordinates and are left out; no healthy box is drawn from their images",
        )  # fmt: skip
        return exams


def _lines(account: Account, path: Path) -> list[tuple[str, list[str]]]:
    """(file and line, words) of every line about a film that can be read."""
    if not path.is_file():
        account.refuse("missing_file", f"{path} does not exist; set `path` to the folder that holds {TABLE}")
        return []
    try:
        text, guessed = decoded_text(read_bytes(path, account.limits), account.encoding, path)
    except (BadFile, DataError) as error:
        account.refuse(error.code, str(error) if isinstance(error, DataError) else f"{path} {error}")
        return []
    account.fact("encoding_guessed", path.name, times=guessed)
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        where = f"{path.name} line {number}"
        if not words or not LINE.fullmatch(words[0]):
            # The rest is the licence and the explanations around the list, unless it looks like a line of it.
            if line.strip().lower().startswith("mdb") or (
                len(words) > 2 and words[1] in TISSUES and words[2] in CLASSES
            ):
                account.refuse(
                    "bad_value", f"{where}: {line.strip()!r} begins with no film's number such as mdb001; correct it"
                )
            continue
        account.things += 1
        problem = _problem(line.strip(), words)
        if problem is None:
            found.append((where, words))
        else:
            account.unread.add(words[0])
            account.fault(problem[0], f"{where}: {problem[1]}")
    return found


def _problem(line: str, words: list[str]) -> tuple[str, str] | None:
    """Code and text of what is wrong with a line about a film."""
    if len(words) < 3 or words[1] not in TISSUES or words[2] not in CLASSES:
        return "unknown_label", f"{line!r} is not a number, a tissue (F, G, D) and a class"
    if words[2] != "NORM" and (len(words) < 4 or words[3] not in SEVERITIES):
        return "unknown_label", f"{line!r} has no severity (B, M)"
    if len(words) not in (3, 4, 7) and not words[4].startswith("*"):
        return "bad_value", f"{line!r} has {len(words)} words; expected 3, 4 or 7"
    try:
        _circle(words)
    except BadCell:
        return "bad_value", f"{' '.join(words[4:7])} is not x, y and radius"
    return None


def _circle(words: list[str]) -> tuple[int, int, int] | None:
    """x, y and radius; None where the line has none. Raises BadCell."""
    if len(words) != 7 or words[4].startswith("*"):
        return None
    x, y, radius = (whole(word, "x, y or radius") for word in words[4:7])
    if x is None or y is None or radius is None:
        raise BadCell("x, y and radius are not all known")
    return x, y, radius


def _box(words: list[str], height: int) -> Box | None:
    """Box around the circle in rows from the top; None where the line has no coordinates."""
    circle = _circle(words)
    if circle is None:
        return None
    x, y, radius = circle
    top, left = height - y - radius, x - radius
    return Box(top, left, top + 2 * radius, left + 2 * radius)
