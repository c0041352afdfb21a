"""Where the files of CBIS-DDSM are, and which of them is the mask.

Files are sought in the archive's own folders (as DICOM, or converted with the folders kept) and in the folders of the
JPEG edition, which are named by series UID. The table does not show which of an abnormality's two files is the mask: in
some rows mask and crop are swapped. The mask is the file that has the size of the image.
"""

from __future__ import annotations

from pathlib import Path

from data_partitions.archives.account import Account
from data_partitions.errors import BadFile
from data_partitions.reading.folders import files_below, folders_in
from data_partitions.reading.image_files import is_image, shape_of
from data_partitions.reading.limits import Limits


class Places:
    """The files behind a cell of the table: below the folder that it starts with, or in the folder of its series."""

    def __init__(self, path: Path) -> None:
        self.roots = [path, *folders_in(path)]

    def files(self, cell: str) -> list[Path]:
        parts = cell.strip().split("/")
        for root in self.roots:
            for name in (parts[0], parts[2] if len(parts) > 3 else ""):
                if name and (root / name).is_dir():
                    return [file for file in files_below(root / name) if is_image(file)]
        return []

    def named(self, prefix: str) -> list[str]:
        return sorted(
            {folder.name for root in self.roots for folder in folders_in(root) if folder.name.startswith(prefix)}
        )


def mask_file(
    account: Account, where: str, cells: tuple[str, str], shape: tuple[int, int], places: Places
) -> Path | None:
    """The file of the image's own `shape` among those of an abnormality. cells: of its mask and of its crop."""
    candidates = list(dict.fromkeys(file for cell in cells for file in places.files(cell)))
    sizes = {file: _size(file, account.limits) for file in candidates}
    fitting = [file for file, size in sizes.items() if size == shape]
    if len(fitting) == 1:
        return fitting[0]
    if not candidates:
        account.fault("row_without_file", f"{where}: no mask for {cells[0].split('/')[0]}; add it or drop the row")
        return None
    found = ", ".join(f"{file.name} {size or 'unreadable'}" for file, size in sizes.items())
    account.fault(
        "mask_size", f"{where}: exactly one of its files ({found}) must have the image's size {shape}; copy them again"
    )
    return None


def _size(file: Path, limits: Limits) -> tuple[int, int] | None:
    """(height, width) from a file's header."""
    try:
        return shape_of(file, limits)
    except BadFile:
        return None
