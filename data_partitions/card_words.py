"""Words that may stand in a data card. What a table calls a scanner or a view may be a name: a study says which column is read.

A word that is not known here is "other". Of a scanner's text only the maker leaves, as it is written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from data_partitions.exams import KINDS
from data_partitions.reading.views import OTHERS, USED
from data_partitions.small_counts import OTHER

# Kinds of detectors and digitizers, as sources of this project name them.
_SCANNERS = frozenset((
    "digital", "digital-2", "film", "low_energy", "subtracted", "dermatoscope", "dba", "howtek", "lumisys", "lumiscan",
))  # fmt: skip
# Makers of mammography units, dermatoscopes and general X-ray and MR units, by a word of their name.
_MAKERS = {
    "agfa": "Agfa", "canon": "Canon", "carestream": "Carestream", "dermlite": "DermLite", "fotofinder": "FotoFinder",
    "fujifilm": "Fujifilm", "fuji": "Fujifilm", "ge": "GE", "heine": "Heine", "hologic": "Hologic", "lorad": "Hologic", "ims": "IMS",
    "giotto": "IMS", "kodak": "Carestream", "konica": "Konica Minolta", "metaltronica": "Metaltronica", "molemax": "MoleMax",
    "philips": "Philips", "sectra": "Philips", "planmed": "Planmed", "sedecal": "Sedecal", "senographe": "GE", "selenia": "Hologic",
    "siemens": "Siemens", "mammomat": "Siemens", "shimadzu": "Shimadzu", "toshiba": "Canon", "villa": "Villa",
    "vidir": "VIDIR", "varian": "Varian",
}  # fmt: skip
_SPACES = re.compile(r"[^a-z0-9]+")


def _scanner(text: str) -> str:
    plain = text.strip().casefold()
    if plain in _SCANNERS or not plain:
        return plain
    parts = _SPACES.split(plain)
    return next((_MAKERS[part] for part in parts if part in _MAKERS), OTHER)


def _one_of(words: Collection[str]) -> Callable[[str], str]:
    """Function: the known word that a text is, as it is written or whatever its case; "" stays."""
    known = {word.casefold(): word for word in words} | {word: word for word in words} | {"": ""}
    return lambda text: known.get(text.strip(), known.get(text.strip().casefold(), OTHER))


# By column of a patch data set: from a text to the word that may leave.
WORDS: Mapping[str, Callable[[str], str]] = {
    "scanner": _scanner,
    "view": _one_of((*USED, *OTHERS, "dermatoscopic")),
    "laterality": _one_of(("L", "R", "left", "right", "B")),
    "density": _one_of(("a", "b", "c", "d", "1", "2", "3", "4", "F", "G", "D")),
    "lesion_type": _one_of(KINDS),
}
