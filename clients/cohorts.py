"""Of whom sums of features have left: no two sums of this centre may differ by a few patients, in whatever study or task.

The difference of two such sums would be those patients' features. The same patients with the same patches pass again; otherwise
at least 20 of them must have changed, both as people and by their patches. Compared are all sums that ever left, each half by
itself and both together. Only keyed hashes are kept, in the workspace.

What this does not prevent: sums of many overlapping cohorts are equations, too. Each needs a study that the centre approved.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
from collections.abc import Sequence

from basics.atomic_files import write_text
from clients.node import Node, Refusal
from data_partitions import PatchDataset

FILE = "cohorts.json"
# By person: the patch of theirs that is summed; both as keyed hashes.
Cohort = dict[str, str]


def hold(node: Node, sums: Sequence[PatchDataset], fewest: int) -> None:
    """Remember whose patches are summed up, before the sums leave.

    Args:
        sums: of each sum, one patch of each patient.
        fewest: patients in whom two sums must differ, if they differ.

    Raises:
        Refusal: "too_alike": a sum that left before differs from one of these in fewer.
    """
    cohorts = [_cohort(node, patches) for patches in sums]
    with (node.workspace / f"{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two lanes of one node
        file = node.workspace / FILE
        known: list[Cohort] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        if any(_too_alike(new, old, fewest) for new in cohorts for old in known):
            raise Refusal("too_alike", need=fewest)
        added = [new for new in cohorts if new not in known]
        if added:
            write_text(file, json.dumps([*known, *added]))


def _cohort(node: Node, patches: PatchDataset) -> Cohort:
    names = patches.people()
    pixels = patches.stored()
    return {
        _keyed(node, names[patient].encode()): _keyed(node, image.tobytes())
        for patient, image in zip(patches.table["patient"].tolist(), pixels, strict=True)
    }


def _keyed(node: Node, content: bytes) -> str:
    return hmac.new(node.secret(), content, hashlib.sha256).hexdigest()[:32]


def _too_alike(new: Cohort, old: Cohort, fewest: int) -> bool:
    """Whether two sums differ, and in fewer than so many people, or among those of both in fewer than so many patches."""
    people = len(new.keys() ^ old.keys())
    changed = sum(new[name] != old[name] for name in new.keys() & old.keys())
    return 0 < people < fewest or (people == 0 and 0 < changed < fewest)
