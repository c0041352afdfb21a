"""Medical image data of one centre: sources, patches, patient-disjoint splits.

`SOURCES` names every source a scenario may choose by its field `source`. A new one is a frozen pydantic model with that
field and the methods of `build.Source`, in a file of its own, and a name in `Source` and `SOURCES` here.
"""

from data_partitions.archives.bcdr import BcdrSource
from data_partitions.archives.cbis_ddsm import CbisDdsmSource
from data_partitions.archives.cdd_cesm import CddCesmSource
from data_partitions.archives.ddsm import DdsmSource
from data_partitions.archives.folder import FolderSource
from data_partitions.archives.inbreast import InbreastSource
from data_partitions.archives.isic import IsicSource
from data_partitions.archives.medmnist import MedmnistSource
from data_partitions.archives.mini_mias import MiniMiasSource
from data_partitions.archives.omi_db import OmiDbSource
from data_partitions.build import build_patches
from data_partitions.dealing.dealt import DealtSource
from data_partitions.dealing.partition import PartitionRule
from data_partitions.errors import DataError, Problem
from data_partitions.exams import Box, Cohort, Exam, Lesion
from data_partitions.patch_dataset import PatchDataset
from data_partitions.patches import PatchTask
from data_partitions.phantom.phantom import PhantomSource
from data_partitions.split import SPLITS, SplitRule

Source = (
    PhantomSource
    | FolderSource
    | InbreastSource
    | BcdrSource
    | CbisDdsmSource
    | DdsmSource
    | OmiDbSource
    | CddCesmSource
    | IsicSource
    | MiniMiasSource
    | MedmnistSource
    | DealtSource
)
SOURCES: dict[str, type] = {
    "phantom": PhantomSource, "folder": FolderSource, "inbreast": InbreastSource, "bcdr": BcdrSource,
    "cbis_ddsm": CbisDdsmSource, "ddsm": DdsmSource, "omi_db": OmiDbSource, "cdd_cesm": CddCesmSource,
    "isic": IsicSource, "mini_mias": MiniMiasSource, "medmnist": MedmnistSource, "dealt": DealtSource,
}  # fmt: skip

__all__ = [
    "SOURCES", "SPLITS", "BcdrSource", "Box", "CbisDdsmSource", "CddCesmSource", "Cohort", "DataError", "DdsmSource",
    "DealtSource", "Exam", "FolderSource", "InbreastSource", "IsicSource", "Lesion", "MedmnistSource", "MiniMiasSource",
    "OmiDbSource", "PartitionRule", "PatchDataset", "PatchTask", "PhantomSource", "Problem", "Source", "SplitRule",
    "build_patches",
]  # fmt: skip
