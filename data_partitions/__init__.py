"""Medical image data of one centre: sources, patches, patient-disjoint splits.

`SOURCES` names every source a scenario may choose by its field `source`. A new one is a frozen pydantic model with that
field and a method `load(centre, seed, cache) -> Cohort`, in a file of its own, and one line here.
"""

from data_partitions.build import build_patches
from data_partitions.dealt import DealtSource
from data_partitions.errors import DataError, Problem
from data_partitions.exams import Box, Cohort, Exam, Lesion
from data_partitions.folder import FolderSource
from data_partitions.partition import PartitionRule
from data_partitions.patch_dataset import PatchDataset
from data_partitions.patches import PatchTask
from data_partitions.phantom import PhantomSource
from data_partitions.split import SPLITS, SplitRule

SOURCES: dict[str, type] = {"phantom": PhantomSource, "folder": FolderSource, "dealt": DealtSource}

__all__ = [
    "SOURCES", "SPLITS", "Box", "Cohort", "DataError", "DealtSource", "Exam", "FolderSource", "Lesion", "PartitionRule",
    "PatchDataset", "PatchTask", "PhantomSource", "Problem", "SplitRule", "build_patches",
]  # fmt: skip
