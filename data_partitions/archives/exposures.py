"""Raw images beside those that a reader sees: one exposure may be there twice, "for processing" and "for presentation"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from data_partitions.exams import Exam
from data_partitions.reading.dicom import RAW
from data_partitions.reading.looks import FileLook


class RawImages(NamedTuple):
    """Names of raw images, in order. double: with an image for presentation beside them; alone: without."""

    double: list[str]
    alone: list[str]


def raw_images(exams: Iterable[Exam], looked: Mapping[str, FileLook]) -> RawImages:
    """The raw images among exams; images of one patient, study, side and view are taken for one exposure.

    looked: what the file of an exam said of itself, by the exam's name; exams without a file of their own have none.
    """
    known = [(exam, looked[exam.name]) for exam in exams if exam.name in looked]
    exposures = {exam.name: _exposure(exam, look) for exam, look in known}
    shown = {exposures[exam.name] for exam, look in known if look.intent not in ("", RAW)}
    raw = sorted(exam.name for exam, look in known if look.intent == RAW)
    return RawImages(
        [name for name in raw if exposures[name] in shown], [name for name in raw if exposures[name] not in shown]
    )


def _exposure(exam: Exam, look: FileLook) -> tuple[str, ...]:
    return exam.patient, look.study, (exam.laterality or look.laterality).upper(), (exam.view or look.view).upper()
