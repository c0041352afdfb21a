"""Readers and seeds for inputs that are nearly right: what a mutation of a good file may do to a reader."""

import io
import json
import plistlib
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from archives import cesm_polygon, ddsm_abnormality, ddsm_overlay, ddsm_square, inbreast_region, omi_mark, square
from dicom_files import write_dicom
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from data_partitions.archives import cdd_cesm, ddsm, inbreast, medmnist, mini_mias, omi_db
from data_partitions.archives.account import Account
from data_partitions.archives.exclusions import read_exclusions
from data_partitions.errors import BadFile, DataError
from data_partitions.exams import Box
from data_partitions.reading.image_files import open_image, shape_of
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import inspect
from data_partitions.reading.masks import MaskRule, mask_looks
from data_partitions.reading.tables import read_records

LIMITS = Limits(megapixels=0.2, megabytes=2)
SHAPE = (24, 20)


@dataclass(frozen=True)
class Reader:
    """How mutated bytes are read. ending: of the file; read(path) returns, or raises DataError or BadFile."""

    seeds: Callable[[], list[bytes]]
    ending: str
    read: Callable[[Path], Any]


def pixels(seed: int = 0, *more: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, *more), dtype=np.uint8)


def saved(kind: str, picture: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def pictures() -> list[bytes]:
    grey, colour = Image.fromarray(pixels()), Image.fromarray(pixels(0, 3))
    deep, clear = Image.fromarray(pixels().astype(np.uint16) * 250), Image.fromarray(pixels(0, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        saved("PNG", grey), saved("PNG", deep), saved("PNG", clear), saved("JPEG", colour, exif=exif), saved("JPEG", grey),
        saved("TIFF", deep), saved("TIFF", colour, compression="tiff_lzw"), saved("TIFF", grey, save_all=True, append_images=[grey]),
        saved("GIF", grey), saved("BMP", colour), saved("PPM", grey), saved("WEBP", colour), saved("JPEG2000", grey),
        saved("PNG", colour.convert("P")),
    ]  # fmt: skip


def dicoms() -> list[bytes]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        for tags in (
            {},
            {"WindowCenter": 90, "WindowWidth": 100},
            {"PixelPaddingValue": 3, "RescaleSlope": 2, "RescaleIntercept": 1},
        ):
            write_dicom(path, pixels().astype(np.uint16), BitsStored=12, HighBit=11, **tags)
            found.append(path.read_bytes())
        for syntax in (RLELossless, JPEG2000Lossless):
            wide = np.kron(
                pixels().astype(np.uint16), np.ones((3, 4), np.uint16)
            )  # room for all resolutions of JPEG 2000
            dataset = pydicom.dcmread(write_dicom(path, wide, BitsStored=12, HighBit=11))
            dataset.compress(syntax)
            dataset.save_as(path)
            found.append(path.read_bytes())
        write_dicom(path, pixels())
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
        found.append(path.read_bytes())
    return found


def arrays() -> list[bytes]:
    out = []
    for array in (pixels(), pixels(0, 3).astype(np.float32), pixels().astype(np.uint16), pixels() > 99):
        file = io.BytesIO()
        np.save(file, array)
        out.append(file.getvalue())
    return out


def npz() -> list[bytes]:
    content = {}
    for split in ("train", "val", "test"):
        content[f"{split}_images"] = np.stack([pixels(i) for i in range(3)])
        content[f"{split}_labels"] = np.array([[0], [1], [1]])
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **content)
    np.savez_compressed(packed, **content)
    return [plain.getvalue(), packed.getvalue()]


def tables() -> list[bytes]:
    text = 'image_id,lesion_id,dx\nISIC_1,HAM_1,mel\n"ISIC_2","HAM_2",nv\nISIC_3,HAM_3,"b ""c"""\n'
    return [text.encode(), text.replace(",", ";").encode("utf-16"), b"\xef\xbb\xbf" + text.replace(",", "\t").encode(),
            "image,reason\nümlaut.png,clip\n".encode("cp1252"), b"sep=;\r\nimage;reason\r\na.png;x\r\n"]  # fmt: skip


def sheets() -> list[bytes]:
    import openpyxl

    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in (["image", "reason"], ["a.png", 3.0], ["b.png", None]):
        book.active.append(row)
    book.save(out)
    return [out.getvalue()]


def outlines() -> list[bytes]:
    regions = [inbreast_region("Mass", square(4, 5, 9)), inbreast_region("Calcification", [(6.5, 6.25)])]
    return [plistlib.dumps({"Images": [{"ImageIndex": 0, "NumberOfROIs": 2, "ROIs": regions}]})]


def ics() -> list[bytes]:
    return [b"ics_version 1.0\nfilename A-1000-1\nPATIENT_AGE 50\nDENSITY 2\nDIGITIZER HOWTEK\nSEQUENCE\n"
            b"LEFT_CC LINES 240 PIXELS_PER_LINE 200 BITS_PER_PIXEL 12 RESOLUTION 50 OVERLAY\n"
            b"RIGHT_ML LINES 240 PIXELS_PER_LINE 200 BITS_PER_PIXEL 12 RESOLUTION 50 NON_OVERLAY\n"]  # fmt: skip


def overlays() -> list[bytes]:
    return [ddsm_overlay(ddsm_abnormality(ddsm_square(6, 10, 20), core=ddsm_square(7, 11, 4))).encode()]


def databases() -> list[bytes]:
    image = {"1.2.3": {"1": omi_mark(1, (4, 5, 9, 9))}}
    imagedb = {"Site": "adde", "STUDIES": {"1.2": {"EpisodeID": "7", "1.2.9": image}}}
    nbss = {"7": {"EpisodeType": "R", "SURGERY": {"R": {"1": {"Opinion": "OM"}}}}}
    return [json.dumps(imagedb).encode(), json.dumps(nbss).encode()]


def info() -> list[bytes]:
    return [b"MIAS\n\nmdb001 G CIRC B 100 40 15\nmdb002 G NORM\nmdb004 D CALC M *NOTE 3*\nmdb006 F ARCH B\n"]


def shapes() -> list[bytes]:
    rows = ["filename,region_shape_attributes"]
    for shape in (cesm_polygon(square(4, 5, 9)), {"name": "ellipse", "cx": 5, "cy": 6, "rx": 2, "ry": 3, "theta": 1},
                  {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}, {"name": "point", "cx": 3, "cy": 4}, {}):  # fmt: skip
        cell = json.dumps(shape).replace('"', '""')
        rows.append(f'P1_L_DM_CC.jpg,"{cell}"')
    return ["\n".join(rows).encode()]


def read_any_image(path: Path) -> None:
    (look,) = inspect([path], None, LIMITS)
    if look.code:
        assert 0 < len(look.text) < 600 and "\n" not in look.text
        return
    assert look.height * look.width <= LIMITS.megapixels * 1e6
    image, box = open_image(path, LIMITS, dark_background=True), Box(0, 0, *look.shape)
    window = image.window(box)
    assert window.dtype == np.uint8 and window.shape[:2] == look.shape
    image.tissue(8)
    assert shape_of(path, LIMITS) == look.shape


def read_mask(path: Path) -> None:
    (look,) = mask_looks([path], None, MaskRule(), LIMITS)
    assert look.code or all(box.height > 0 and box.width > 0 for box, *_ in look.found)


def read_npz(path: Path) -> None:
    source = medmnist.MedmnistSource(path=path, positive=[1], limits=LIMITS, max_bad_fraction=1)
    for exam in source.load("A", 0).exams:
        exam.open().window(Box(0, 0, *exam.shape))


def account_of(path: Path) -> Account:
    return Account(path.parent, None, None, LIMITS)


def read_outlines(path: Path) -> None:
    inbreast._outlines(account_of(path), path.parent, {path.stem})


def read_ics(path: Path) -> None:
    ddsm._case(account_of(path), path)


def read_overlay(path: Path) -> None:
    picture = ddsm.Picture("a", "L", "CC", SHAPE, None, True, path.with_suffix(""))
    ddsm._overlay(account_of(path), "a", picture)


def read_database(path: Path) -> None:
    source = omi_db.OmiDbSource(path=path.parent, limits=LIMITS)
    folder = path.parent / "data" / "client"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("imagedb", "nbss"):
        (folder / f"{kind}_client.json").write_bytes(path.read_bytes())
    account = account_of(path)
    entries = list(source._client(account, folder, path.parent, set(), []))
    for _, entry in entries:
        for mark in entry.marks.values():
            omi_db._box(mark)
            omi_db._has(mark.get("Mass"))
            omi_db._opinion(account, "a", mark, entry.episode, "R")


def read_shapes(path: Path) -> None:
    cdd_cesm.CddCesmSource(path=path.parent)._outlines(account_of(path), path, {"P1_L_DM_CC"})


READERS = {
    "pictures": Reader(pictures, ".png", read_any_image),
    "dicom": Reader(dicoms, ".dcm", read_any_image),
    "npy": Reader(arrays, ".npy", read_any_image),
    "masks": Reader(lambda: [*pictures(), *arrays()], ".png", read_mask),
    "npz": Reader(npz, ".npz", read_npz),
    "csv": Reader(tables, ".csv", lambda path: read_records(path, (), None, LIMITS)),
    "exclusions": Reader(tables, ".csv", lambda path: read_exclusions(path, None, LIMITS)),
    "xlsx": Reader(sheets, ".xlsx", lambda path: read_records(path, (), None, LIMITS)),
    "plist": Reader(outlines, ".xml", read_outlines),
    "ics": Reader(ics, ".ics", read_ics),
    "overlay": Reader(overlays, ".OVERLAY", read_overlay),
    "json": Reader(databases, ".json", read_database),
    "info": Reader(info, ".txt", lambda path: mini_mias._lines(account_of(path), path)),
    "shapes": Reader(shapes, ".csv", read_shapes),
}
WORDS = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b'"', b",", b"\n", b"\r", b"-1", b"1e999", b"nan",
         "²".encode(), b"{", b"[" * 2000, b"9" * 5000, struct.pack("<d", float("inf")))  # fmt: skip


def mutated(data: bytes, moves: list[tuple[int, int, int, int]]) -> bytes:
    """The bytes after each move (what, where, how much, which)."""
    out = bytearray(data)
    for what, where, much, which in moves:
        at = where % (len(out) + 1)
        end = min(len(out), at + 1 + much)
        if what == 0 and at < len(out):
            out[at] = which % 256
        elif what == 1:
            out[at:end] = b""
        elif what == 2:
            out[at:at] = WORDS[which % len(WORDS)]
        elif what == 3:
            word = WORDS[which % len(WORDS)]
            out[at : at + len(word)] = word
        elif what == 4:
            out[at:at] = out[at:end]
        elif what == 5:
            out[at:] = b""
    return bytes(out)


def survives(reader: Reader, data: bytes, path: Path) -> None:
    """The reader takes these bytes or names what is wrong with them; anything else it raises is a bug."""
    path.write_bytes(data)
    try:
        reader.read(path)
    except (DataError, BadFile) as error:
        assert str(error) and "\n" not in str(error)
