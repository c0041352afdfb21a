"""Which images of a shared folder belong to one centre: a natural centre, part k of n, or at most so many images.

All of it goes by group: a patient, or patients joined by copies of an image. No group is divided.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from basics.seeds import rank
from data_partitions.archives.account import Account
from data_partitions.errors import DataError
from data_partitions.exams import Cohort, Exam

Groups = dict[str, list[Exam]]


@dataclass(frozen=True)
class FolderShare:
    """The centre's share; None means all.

    centre: the exams of this site. part: (k, n), dealt out by part_seed. images: at most so many.
    """

    centre: str | None
    part: tuple[int, int] | None
    part_seed: int
    images: int | None

    def of(
        self, cohort: Cohort, account: Account, seed: int, malignant: Collection[str], with_lesion: Collection[str]
    ) -> Cohort:
        """This share of the folder's exams.

        malignant, with_lesion: names of the images that the tables call so; classes are shared out alike by them.
        """
        groups: Groups = defaultdict(list)
        for exam in sorted(cohort.exams, key=lambda exam: exam.name):
            groups[cohort.group(exam.patient)].append(exam)
        labels = {name: any(exam.name in malignant for exam in exams) for name, exams in groups.items()}
        found = {name: any(exam.name in with_lesion for exam in exams) for name, exams in groups.items()}
        if self.centre is not None:
            groups = _natural_centre(groups, self.centre, account)
        if self.part is not None:
            number, total = self.part
            # Dealt like cards, those with a lesion first.
            order = sorted(groups, key=lambda name: (-found[name], -labels[name], rank(self.part_seed, "part", name)))
            groups = {name: groups[name] for name in order[number - 1 :: total]}
        if self.images is not None:
            groups = _limited(groups, self.images, seed, labels)
        chosen = [exam for name in sorted(groups) for exam in groups[name]]
        joined = {patient: name for patient, name in cohort.groups.items() if name in groups}
        return replace(cohort, exams=chosen, groups=joined)


def _natural_centre(groups: Groups, centre: str, account: Account) -> Groups:
    """Groups of one site. A group found at several belongs where most of its images are, ties alphabetically."""
    sites = Counter(exam.site for exams in groups.values() for exam in exams)
    if centre not in sites:
        known = ", ".join(sorted(sites)) or "none"
        raise DataError(
            "unknown_centre", f"{account.path}: no image of centre {centre!r}; the table has {known}", field="centre"
        )
    taken, spanning, moved_here, moved_away = {}, [], 0, 0
    for name, exams in groups.items():
        counts = Counter(exam.site for exam in exams)
        home = min(counts, key=lambda site: (-counts[site], site))
        if len(counts) > 1 and centre in counts:
            spanning.append(name)
            if home == centre:
                moved_here += len(exams) - counts[home]
            else:
                moved_away += counts[centre]
        if home == centre:
            taken[name] = exams
    account.note(
        "spanning_patients", len(spanning),
        "patients found in several centres, kept in the one with most of their images",
    )  # fmt: skip
    if spanning:
        account.report["spanning_patients"] = {
            "patients": len(spanning),
            "images_moved_here": moved_here,
            "images_moved_away": moved_away,
        }
        account.private["spanning_patients"] = sorted(spanning)
    return taken


def _limited(groups: Groups, images: int, seed: int, labels: Mapping[str, bool]) -> Groups:
    """At most `images` images: whole groups, each class its share of the images."""
    total = sum(len(exams) for exams in groups.values())
    taken: Groups = {}
    for label in sorted({labels[name] for name in groups}):
        names = sorted((name for name in groups if labels[name] == label), key=lambda n: rank(seed, "images", n))
        room = int(images * sum(len(groups[name]) for name in names) / total) if images < total else total
        for name in names:
            if len(groups[name]) > room:
                break
            room -= len(groups[name])
            taken[name] = groups[name]
    return taken
