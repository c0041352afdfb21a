"""Copies of one image under several names: whoever shares one is one person for every split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


def groups_of_copies(images: Iterable[tuple[str, str, str]]) -> tuple[dict[str, str], list[list[str]]]:
    """patient -> its group (the alphabetically first patient of it), and the sets of identical images.

    images: (patient, name, digest of the decoded pixels). Patients are joined when they share an image, and so are
    patients joined to them.
    """
    same: dict[str, list[tuple[str, str]]] = defaultdict(list)
    parent: dict[str, str] = {}
    for patient, name, digest in images:
        parent[patient] = patient
        same[digest].append((patient, name))

    def root(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    for members in same.values():
        for patient, _ in members[1:]:
            first, second = sorted((root(members[0][0]), root(patient)))
            parent[second] = first
    copies = [sorted(name for _, name in members) for members in same.values() if len(members) > 1]
    return {patient: root(patient) for patient in parent}, sorted(copies)
