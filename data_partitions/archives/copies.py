"""Copies of one image under several names: patients who share an image count as one person in every split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def groups_of_copies(images: Iterable[tuple[str, str, str]]) -> tuple[dict[str, str], list[list[str]]]:
    """patient -> its group (the alphabetically first patient of it), and the sets of identical images.

    images: (patient, name, digest of the decoded pixels). Two patients are in one group when they share an image, or
    when a chain of such patients connects them.
    """
    same: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for patient, name, digest in images:
        same[digest].append((patient, name))
    patients = sorted({patient for members in same.values() for patient, _ in members})
    number = {patient: i for i, patient in enumerate(patients)}
    edges = [(number[members[0][0]], number[patient]) for members in same.values() for patient, _ in members]
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(edges), dtype=bool), (rows, columns)), shape=(len(patients), len(patients)))
    _, component = connected_components(links, directed=False)
    # Patients are in alphabetical order, so the first of each component gives the group its name.
    _, first = np.unique(component, return_index=True)
    copies = [sorted(name for _, name in members) for members in same.values() if len(members) > 1]
    return {patient: patients[first[component[i]]] for patient, i in number.items()}, sorted(copies)
