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


class Exposure(NamedTuple):
    """What tells the exposures of a patient apart; "" where it is not known."""

    patient: str
    study: str
    side: str
    view: str

    @property
    def is_known(self) -> bool:
        """Whether the images of one patient can be told apart at all."""
        return bool(self.study or self.side or self.view)


def raw_images(exams: Iterable[Exam], looked: Mapping[str, FileLook]) -> RawImages:
    """The raw images among exams.

    looked: what the file of an exam said of itself, by the exam's name; exams without a file of their own have none.
    """
    return raw_among(
        (exam.name, _exposure(exam, looked[exam.name]), looked[exam.name].intent)
        for exam in exams
        if exam.name in looked
    )


def raw_among(images: Iterable[tuple[str, Exposure, str]]) -> RawImages:
    """The raw ones of images, each (name, exposure, intent); images of one patient, study, side and view are one exposure."""
    known = list(images)
    shown = {exposure for _, exposure, intent in known if intent not in ("", RAW) and exposure.is_known}
    raw = sorted((name, exposure in shown) for name, exposure, intent in known if intent == RAW)
    return RawImages([name for name, double in raw if double], [name for name, double in raw if not double])


def _exposure(exam: Exam, look: FileLook) -> Exposure:
    return Exposure(
        exam.patient, look.study, (exam.laterality or look.laterality).upper(), (exam.view or look.view).upper()
    )
