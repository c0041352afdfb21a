"""Medical image data of one centre: sources, patches, patient-disjoint splits.

The table of sources is in `sources`; `SOURCES` here also has `dealt`, which deals out any of them.
"""

from basics.plugins import Table
from data_partitions.build import build_patches
from data_partitions.dealing.dealt import DealtSource
from data_partitions.dealing.partition import PartitionRule
from data_partitions.errors import DataError, Problem
from data_partitions.exams import Box, Cohort, Exam, Lesion
from data_partitions.patch_dataset import PatchDataset
from data_partitions.patches import PatchTask
from data_partitions.source import DataSource
from data_partitions.sources import WHOLE_SOURCES, is_source
from data_partitions.split import SPLITS, SplitRule

# Every source that a scenario may name by its field `source`.
SOURCES: Table[type[DataSource]] = Table("sources", WHOLE_SOURCES.builtin | {"dealt": DealtSource}, is_source)

__all__ = [
    "SOURCES", "SPLITS", "Box", "Cohort", "DataError", "DataSource", "DealtSource", "Exam", "Lesion", "PartitionRule",
    "PatchDataset", "PatchTask", "Problem", "SplitRule", "build_patches",
]  # fmt: skip
