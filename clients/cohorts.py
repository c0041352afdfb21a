"""Of whom sums of features have left: no two sums of this centre may differ by a few patients, in whatever study or task.

The difference of two such sums would be those patients' features. So a cohort is frozen: while fewer than 20 people have come, a later
sum is over the people of the earlier one, and new ones wait. Where some of those people are no longer here, or their patches
changed for a few of them, there is no sum. Compared are all sums that ever left, each half by itself and both together. Only
keyed hashes are kept, in the workspace.

What this does not prevent: sums of many overlapping cohorts are equations, too. Each needs a study that the centre approved.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator

import numpy as np

from basics.atomic_files import write_text
from clients.node import Node, Refusal
from data_partitions import PatchDataset

FILE = "cohorts.json"
# By person: the patch of theirs that is summed; both as keyed hashes.
Cohort = dict[str, str]
# Of one answer: both halves together, and each by itself.
Answer = tuple[Cohort, Cohort, Cohort]


def hold(
    node: Node, one_each: PatchDataset, rows: np.ndarray, first: np.ndarray, fewest: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Whose patches are summed up; remembered before the sums leave.

    Args:
        one_each: one patch of each patient.
        rows: those to be summed up.
        first: bool, which of these belong to the first half.
        fewest: patients in whom two sums must differ, if they differ.

    Returns:
        rows and first, which may be those of an earlier sum; whether they are.

    Raises:
        Refusal: "too_alike": a sum that left before differs in fewer, and cannot be made again.
    """
    people, patches = _keyed_all(node, one_each)

    def answer(rows: np.ndarray, first: np.ndarray) -> Answer:
        def cohort(part: np.ndarray) -> Cohort:
            return {people[row]: patches[row] for row in part.tolist()}

        return cohort(rows), cohort(rows[first]), cohort(rows[~first])

    with (node.workspace / f"{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two lanes of one node
        file = node.workspace / FILE
        known: list[Answer] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        before = [cohort for one in known for cohort in one]
        for found_rows, found_first, frozen in [(rows, first, False), *_earlier(known, people)]:
            new = answer(found_rows, found_first)
            if not any(_too_alike(one, old, fewest) for one in new for old in before):
                if list(new) not in known:
                    write_text(file, json.dumps([*known, new]))
                return found_rows, found_first, frozen
    raise Refusal("too_alike", need=fewest)


def _earlier(known: Iterable[Answer], people: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Rows of the people of earlier sums, the latest first, where all of them are here."""
    place = {person: row for row, person in enumerate(people)}
    for both, first, _ in reversed(list(known)):
        if both.keys() <= place.keys():
            rows = np.array(sorted(place[person] for person in both), dtype=int)
            yield rows, np.array([people[row] in first for row in rows.tolist()], dtype=bool), True


def _keyed_all(node: Node, patches: PatchDataset) -> tuple[list[str], list[str]]:
    """(person, patch) of each row, as keyed hashes."""
    names = patches.people()
    people = [_keyed(node, names[patient].encode()) for patient in patches.table["patient"].tolist()]
    return people, [_keyed(node, image.tobytes()) for image in patches.stored()]


def _keyed(node: Node, content: bytes) -> str:
    return hmac.new(node.secret(), content, hashlib.sha256).hexdigest()[:32]


def _too_alike(new: Cohort, old: Cohort, fewest: int) -> bool:
    """Whether two sums differ, and in fewer than so many people, or among those of both in fewer than so many patches."""
    people = len(new.keys() ^ old.keys())
    changed = sum(new[name] != old[name] for name in new.keys() & old.keys())
    return 0 < people < fewest or (people == 0 and 0 < changed < fewest)
