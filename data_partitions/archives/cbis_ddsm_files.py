"""Where the files of CBIS-DDSM are, and which of them is the mask.

Files are sought in the archive's own folders (as DICOM, or converted with the folders kept) and in the folders of the
JPEG edition, which are named by series UID. The table does not show which of an abnormality's two files is the mask: in
some rows mask and crop are swapped. The mask is the file that has the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from basics.file_hash import sha256_of
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
        """All of them: a second copy of an image is told from it by its bytes."""
        folders = (root / name for root in self.roots for name in names_in(cell))
        return [file for folder in folders if folder.is_dir() for file in files_below(folder) if is_image(file)]

    def named(self, prefix: str) -> list[str]:
        return sorted(
            {folder.name for root in self.roots for folder in folders_in(root) if folder.name.startswith(prefix)}
        )


def names_in(cell: str) -> list[str]:
    """The folders that a cell names: the one that it starts with, and that of its series."""
    parts = cell.strip().split("/")
    return [name for name in (parts[0], parts[2] if len(parts) > 3 else "") if name]


def image_file(account: Account, wheres: Sequence[str], cell: str, places: Places) -> Path | None:
    """The file of an image; a second one with the same bytes is counted. wheres: the rows that name it."""
    found = places.files(cell)
    if len({sha256_of(file) for file in found}) == 1:
        account.fact("identical_files", *map(account.below, found[1:]))
        return found[0]
    name = names_in(cell)[0]
    for where in wheres:
        if found:
            shown = " and ".join(map(account.below, found[:3])) + (
                f" and {len(found) - 3} more" if len(found) > 3 else ""
            )
            account.fault(
                "duplicate_image", f"{where}: {shown} are there for {name} and are not the same; keep one of them"
            )
        else:
            account.fault("row_without_file", f"{where}: no image for {name}; add it or drop the row")
    return None


def mask_file(
    account: Account, where: str, cells: tuple[str, str], shape: tuple[int, int], places: Places
) -> Path | None:
    """The file of the image's own `shape` among those of an abnormality. cells: of its mask and of its crop."""
    candidates = list(dict.fromkeys(file for cell in cells for file in places.files(cell)))
    sizes = {file: _size(file, account.limits) for file in candidates}
    fitting = [file for file, size in sizes.items() if size == shape]
    if len({sha256_of(file) for file in fitting}) == 1:
        account.fact("identical_files", *map(account.below, fitting[1:]))
        others = [file for file in candidates if file not in fitting]
        account.fact("files_without_row", *map(account.below, others[1:]))  # the first is taken for the crop
        return fitting[0]
    if not candidates:
        account.fault("row_without_file", f"{where}: no mask for {cells[0].split('/')[0]}; add it or drop the row")
        return None
    found = ", ".join(f"{file.name} {size or 'unreadable'}" for file, size in sizes.items())
    account.fault(
        "mask_size",
        f"{where}: exactly one of its files ({found}) must have the image's size {shape}; "
        + ("keep one of them" if fitting else "copy them again"),
    )
    return None


def _size(file: Path, limits: Limits) -> tuple[int, int] | None:
    """(height, width) from a file's header."""
    try:
        return shape_of(file, limits)
    except BadFile:
        return None
