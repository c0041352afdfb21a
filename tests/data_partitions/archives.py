"""Small archives in the true layout of each public collection, with invented pixels: one function per archive.

Each returns the folder to name as `path` in a scenario. File names, columns and codes are those of the real archives;
sizes, numbers and pictures are made up. `breast` is bright on dark, so that healthy boxes find a place.
"""

import csv
import json
import plistlib
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from dicom_files import write_dicom
from PIL import Image

SHAPE = (240, 200)


@lru_cache(maxsize=512)  # tests write the same archives again and again
def breast(seed: int, shape: tuple[int, int] = SHAPE, top: int = 4095, right: bool = False) -> np.ndarray:
    """uint16: a half disc of noisy tissue at the left (or right) edge on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    body = np.hypot((y - shape[0] / 2) / (0.45 * shape[0]), x / (0.8 * shape[1])) < 1
    grey = np.where(body, 0.5 + 0.1 * rng.standard_normal(shape), 0.01)
    pixels = np.clip(grey * top, 0, top).astype(np.uint16)
    pixels = np.ascontiguousarray(pixels[:, ::-1]) if right else pixels
    pixels.flags.writeable = False
    return pixels


def square(top: float, left: float, side: float, points: int = 5) -> list[tuple[float, float]]:
    """(x, y) points along the outline of a square, corners first."""
    corners = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
    return (corners * points)[: max(4, points)]


def write_csv(path: Path, rows: list[dict], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


# --- INbreast


def inbreast_region(name: str, points: list[tuple[float, float]], **changes) -> dict:
    """One outline as OsiriX writes it: Point_mm is all zeros in the archive."""
    return {
        "Area": 0.7, "Center": "(0.000000, 0.000000, 0.000000)", "IndexInImage": 0, "Name": name,
        "NumberOfPoints": len(points), "Point_mm": ["(0.000000, 0.000000, 0.000000)"] * len(points),
        "Point_px": [f"({x:f}, {y:f})" for x, y in points], "Type": 15,
    } | changes  # fmt: skip


def write_inbreast_outlines(folder: Path, name: str, regions: list[dict]) -> None:
    (folder / "AllXML").mkdir(parents=True, exist_ok=True)
    images = [{"ImageIndex": 0, "NumberOfROIs": len(regions), "ROIs": regions}]
    (folder / "AllXML" / f"{name}.xml").write_bytes(plistlib.dumps({"Images": images}))


def inbreast_row(number: int, laterality: str, view: str, acr: str, birads: str) -> dict:
    return {
        "Patient ID": "removed", "Patient age": "removed", "Laterality": laterality, "View": view,
        "Acquisition date": "201001", "File Name": str(number), "ACR": acr, "Bi-Rads": birads, "Mass ": "", "Micros": "",
    }  # fmt: skip


def write_inbreast(folder: Path, patients: int = 8, table: bool = True) -> Path:
    """Patients with two breasts, CC and MLO; every second has a mass with a calcification, the others are BI-RADS 1."""
    root = folder / "INbreast Release 1.0"
    rows = []
    for patient in range(patients):
        sick = patient % 2
        for place, (side, view) in enumerate((s, v) for s in "LR" for v in ("CC", "MLO")):
            number = 20586900 + 10 * patient + place
            found = sick and side == "L"
            rows.append(
                inbreast_row(
                    number, side, view, str(1 + patient % 4), ("5" if patient % 4 == 1 else "2") if found else "1"
                )
            )
            code = f"{0x6C613A14B80A8591 + patient:x}"
            write_dicom(
                root / "AllDICOMs" / f"{number}_{code}_MG_{side}_{'ML' if view == 'MLO' else view}_ANON.dcm",
                breast(number, right=side == "R"), BitsStored=14, HighBit=13, ImagerPixelSpacing=[0.07, 0.07],
                Manufacturer="SIEMENS", ManufacturerModelName="MammoNovation", WindowCenter=2048, WindowWidth=4096,
            )  # fmt: skip
            if found:
                regions = [
                    inbreast_region("Mass", square(100.25, 40.5, 30)), inbreast_region("Calcification", [(60.5, 60.25)]),
                    inbreast_region("Cluster", square(150.5, 60.5, 12)),
                ]  # fmt: skip
                write_inbreast_outlines(root, str(number), regions)
    if table:
        write_csv(root / "INbreast.csv", rows, delimiter=";")
    return root


# --- BCDR

BCDR_NAMES = {"RCC": ("1", "R"), "LCC": ("2", "L"), "RO": ("3", "R"), "LO": ("4", "L")}


def bcdr_outline(patient: int, number: int, ending: str, points: list[tuple[float, float]], **changes) -> dict:
    """One row of an outlines table, before the spaces that its rows have after each comma."""
    x, y = (" ".join(f"{point[axis]:g}" for point in points) for axis in (0, 1))
    return {
        "patient_id": patient, "study_id": patient, "series": 1, "lesion_id": number, "segmentation_id": number,
        "image_view": BCDR_NAMES[ending][0], "image_filename": bcdr_image(patient, ending), "lw_x_points": x,
        "lw_y_points": y, "mammography_type": 1, "mammography_nodule": 1, "mammography_calcification": 0,
        "mammography_microcalcification": 0, "mammography_axillary_adenopathy": 0,
        "mammography_architectural_distortion": 0, "mammography_stroma_distortion": 0, "age": 62, "density": 2,
        "classification": "Benign" if patient % 2 else "Malign",
    } | changes  # fmt: skip


def bcdr_image(patient: int, ending: str) -> str:
    return f"patient_{patient}/study_{patient}/img_{patient}_{patient}_1_{ending}.tif"


def write_bcdr_table(path: Path, rows: list[dict]) -> None:
    """As in the archive: no space after a comma in the header, one in the rows."""
    lines = [",".join(rows[0])] + [", ".join(str(value) for value in row.values()) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_bcdr(folder: Path, sets: tuple[str, ...] = ("d01", "dn01", "f01"), patients: int = 6) -> Path:
    """Sets of patients with four images each; in all but DN01 the left breast has a lesion, seen in both views."""
    for name in sets:
        root = folder / f"BCDR-{name.upper()}_dataset"
        images, outlines = [], []
        first = 100 if name == "dn01" else 1
        for patient in range(first, first + patients):
            for ending, (code, side) in BCDR_NAMES.items():
                file = root / bcdr_image(patient, ending)
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = breast(zlib.crc32(f"{name}{patient}{ending}".encode()), top=255, right=side == "R").astype(
                    np.uint8
                )
                Image.fromarray(pixels).save(file)
                images.append({
                    "patient_id": patient, "study_id": patient, "series": 1, "image_filename": bcdr_image(patient, ending),
                    "image_type_name": ending, "image_type_id": int(code) - 1, "age": 62, "density": 2,
                })  # fmt: skip
                if name != "dn01" and side == "L":
                    number = len(outlines) + 1
                    outlines.append(bcdr_outline(patient, number, ending, square(90 + patient, 40, 30, 24)))
        write_bcdr_table(root / f"bcdr_{name}_img.csv", images)
        if outlines:
            write_bcdr_table(root / f"bcdr_{name}_outlines.csv", outlines)
    return folder


# --- CBIS-DDSM

CBIS_TABLES = {
    ("mass", "train"): "Mass-Training", ("mass", "test"): "Mass-Test", ("calc", "train"): "Calc-Training",
    ("calc", "test"): "Calc-Test",
}  # fmt: skip


def cbis_row(
    kind: str, split: str, patient: int, side: str, view: str, number: int, pathology: str, swapped: bool = False
) -> dict:
    """One row of a description table; `swapped`: the names of mask and crop are those of each other's file."""
    image = f"{CBIS_TABLES[kind, split]}_P_{patient:05d}_{side}_{view}"
    uid = "1.3.6.1.4.1.9590.100.1.2." + str(zlib.crc32(image.encode()))
    of_mask = f"{image}_{number}/{uid}{number}1/{uid}{number}2"
    names = ("000000.dcm", "000001.dcm") if swapped else ("000001.dcm", "000000.dcm")
    own = (
        {"mass shape": "OVAL", "mass margins": "SPICULATED"}
        if kind == "mass"
        else {"calc type": "N/A", "calc distribution": "CLUSTERED"}
    )
    return {
        "patient_id": f"P_{patient:05d}", "breast_density" if kind == "mass" else "breast density": 1 + patient % 4,
        "left or right breast": side, "image view": view, "abnormality id": number,
        "abnormality type": "mass" if kind == "mass" else "calcification", **own, "assessment": 4,
        "pathology": pathology, "subtlety": 3, "image file path": f"{image}/{uid}/{uid}9/000000.dcm",
        "cropped image file path": f"{of_mask}/{names[1]}", "ROI mask file path": f"{of_mask}/{names[0]}\n",
    }  # fmt: skip


def write_cbis_picture(folder: Path, cell: str, layout: str, name: str, pixels: np.ndarray) -> None:
    """One file of a cell: below the cell's own folders, or in the series' folder of the JPEG edition."""
    parts = cell.strip().split("/")
    if layout == "dicom":
        write_dicom(folder / "CBIS-DDSM" / Path(*parts[:3]) / f"{name}.dcm", pixels)
        return
    target = folder / (
        Path("jpeg") / parts[2] / f"{name}.jpg" if layout == "jpeg" else Path(*parts[:3]) / f"{name}.png"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    grey = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    Image.fromarray(grey).save(target, **({"quality": 95} if layout == "jpeg" else {}))


def write_cbis_ddsm(
    folder: Path, layout: str = "dicom", patients: int = 4, kinds: tuple[str, ...] = ("mass", "calc")
) -> Path:
    """Patients with one view each per table; the second patient of each table has two abnormalities on one image."""
    for kind, split in CBIS_TABLES:
        rows = []
        for place in range(patients):
            patient = 10 * list(CBIS_TABLES).index((kind, split)) + place
            for number in (1, 2) if place == 1 else (1,):
                pathology = ("MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK")[(place + number) % 3]
                rows.append(cbis_row(kind, split, patient, ("LEFT", "RIGHT")[place % 2], ("CC", "MLO")[place // 2 % 2],
                                     number, pathology, swapped=place % 3 == 2))  # fmt: skip
        if kind not in kinds:
            continue
        for row in rows:
            number = row["abnormality id"]
            seed = zlib.crc32(row["image file path"].encode())
            image = breast(seed, top=65535, right=row["left or right breast"] == "RIGHT")
            mask = np.zeros(SHAPE, np.uint8)
            mask[60 * number : 60 * number + 30, 60:90] = 255
            write_cbis_picture(folder, row["image file path"], layout, "000000", image)
            swapped = row["ROI mask file path"].strip().endswith("000000.dcm")
            for name, pixels in (
                ("000000" if swapped else "000001", mask),
                ("000001" if swapped else "000000", mask[50:100, 50:100]),
            ):
                write_cbis_picture(folder, row["ROI mask file path"], layout, name, pixels)
        write_csv(folder / f"{kind}_case_description_{split}_set.csv", rows)
    return folder


# --- DDSM

DDSM_VIEWS = ("LEFT_CC", "LEFT_MLO", "RIGHT_CC", "RIGHT_MLO")


def ddsm_overlay(*abnormalities: str) -> str:
    entries = "".join(f"ABNORMALITY {number}\n{text}" for number, text in enumerate(abnormalities, start=1))
    return f"TOTAL_ABNORMALITIES {len(abnormalities)}\n{entries}"


def ddsm_abnormality(boundary: str, types: tuple[str, ...] = ("MASS SHAPE OVAL MARGINS ILL_DEFINED",), pathology: str = "MALIGNANT",
                     core: str = "") -> str:  # fmt: skip
    kinds = "".join(f"LESION_TYPE {kind}\n" for kind in types)
    cores = f"\tCORE\n{core} # \n" if core else ""
    return f"{kinds}ASSESSMENT 5\nSUBTLETY 3\nPATHOLOGY {pathology}\nTOTAL_OUTLINES {2 if core else 1}\nBOUNDARY\n{boundary} # \n{cores}"


def ddsm_square(x: int, y: int, side: int) -> str:
    """Chain code around a square, clockwise from its upper left corner."""
    return " ".join([str(x), str(y)] + [code for code in "2460" for _ in range(side)])


def write_ddsm(folder: Path, cancers: int = 4, normals: int = 4) -> Path:
    """Cases of four converted images; each cancer case has a mass in the left breast, seen in both views."""
    for number in range(cancers + normals):
        sick = number < cancers
        name = f"{'AB'[number % 2]}-{1000 + number}-1"
        case = folder / "cases" / ("cancers/cancer_01" if sick else "normals/normal_01") / f"case{1000 + number}"
        case.mkdir(parents=True)
        lines = [
            "ics_version 1.0", f"filename {name}", "DATE_OF_STUDY 2 7 1995", f"PATIENT_AGE {50 + number}", "FILM ",
            "FILM_TYPE REGULAR", f"DENSITY {1 + number % 4}", "DATE_DIGITIZED 7 22 1997 ",
            f"DIGITIZER {('LUMISYS LASER', 'HOWTEK')[number % 2]}", "SEQUENCE",
        ]  # fmt: skip
        for view in DDSM_VIEWS:
            marked = sick and view.startswith("LEFT")
            lines.append(
                f"{view} LINES {SHAPE[0]} PIXELS_PER_LINE {SHAPE[1]} BITS_PER_PIXEL 12 RESOLUTION 50 "
                f"{'OVERLAY' if marked else 'NON_OVERLAY'}"
            )
            stem = f"{name.replace('-', '_')}.{view}"
            Image.fromarray(breast(zlib.crc32(stem.encode()), right=view.startswith("RIGHT"))).save(
                case / f"{stem}.png"
            )
            if marked:
                pathology = ("BENIGN", "MALIGNANT")[number % 2]
                boundary, core = ddsm_square(60, 100, 20), ddsm_square(65, 105, 4)
                text = ddsm_overlay(ddsm_abnormality(boundary, pathology=pathology, core=core))
                (case / f"{stem}.OVERLAY").write_text(text)
        (case / f"{name}.ics").write_text("\n".join(lines) + "\n")
    return folder


# --- OMI-DB

OMI_ROOT = "1.2.826.0.1.3680043.9.3218.1.1."


def omi_mark(number: int, box: tuple[int, int, int, int], linked: str | None = "1", **changes) -> dict:
    """One mark; box: X1, Y1, X2, Y2, written as text as in the database."""
    x1, y1, x2, y2 = box
    return {
        "MarkID": number, "LesionID": number, "LinkedNBSSLesionNumber": linked, "Conspicuity": "Subtle", "Mass": 1,
        "X1": str(x1), "Y1": str(y1), "X2": str(x2), "Y2": str(y2), "Width": str(x2 - x1), "Height": str(y2 - y1),
    } | changes  # fmt: skip


def write_omi_db(folder: Path, clients: int = 6) -> Path:
    """Clients with one study of four views; every second has a marked mass in the right breast, seen in both views.

    The first image of a client is there raw as well, and an odd client has a spot view.
    """
    for client in range(clients):
        name, sick = f"optm{client + 1}", client % 2
        study = f"{OMI_ROOT}{1000 + client}.1"
        series: dict[str, dict] = {}
        views = [(side, view, "FOR PRESENTATION") for side in "LR" for view in ("CC", "MLO")] + [
            ("L", "CC", "FOR PROCESSING")
        ]
        if sick:
            views.append(("R", "ML", "FOR PRESENTATION"))
        for place, (side, view, intent) in enumerate(views):
            image = f"{OMI_ROOT}{1000 + client}.{10 + place}"
            marked = sick and side == "R" and view != "ML"
            series[f"{OMI_ROOT}{1000 + client}.{5 + place}"] = {
                image: {"77": omi_mark(77, (120, 90, 150, 130))} if marked else {}
            }
            write_dicom(
                folder / "images" / name / study / f"{image}.dcm", breast(zlib.crc32(image.encode()), right=side == "R"),
                BitsStored=12, HighBit=11, ImagerPixelSpacing=[0.07, 0.07], Manufacturer="HOLOGIC, Inc.",
                ManufacturerModelName="Lorad Selenia", ImageLaterality=side, ViewPosition=view, PatientAge="059Y",
                PresentationIntentType=intent, WindowCenter=2048, WindowWidth=4096,
            )  # fmt: skip
        imagedb = {
            "Site": ("jarv", "stge")[client // 2 % 2],
            "STUDIES": {study: {"StudyDate": "2014-03-02", "EpisodeID": "3", **series}},
        }
        episode: dict = {"EpisodeType": "R", "SCREENING": {"L": {"Opinion": "RN"}, "left_opinion": "Normal"}}
        if sick:
            episode["LESION"] = {"R": {"1": {"LesionDescription": "Mass", "LesionPosition": "RB3"}}}
            episode["BIOPSYWIDE"] = {
                "R": {"1": {"Opinion": ("B5", "B2")[client // 2 % 2]}},
                "right_opinion": "Malignant",
            }
        data = folder / "data" / name
        data.mkdir(parents=True, exist_ok=True)
        (data / f"imagedb_{name}.json").write_text(json.dumps(imagedb))
        (data / f"nbss_{name}.json").write_text(json.dumps({"ClientID": name, "3": episode}))
    return folder


# --- CDD-CESM


def cesm_region(name: str, shape: dict) -> dict:
    """One row as the browser tool exports it; some file names hold a space before their ending."""
    return {
        "#filename": f"{name} .jpg", "file_size": 1, "file_attributes": "{}", "region_count": 1, "region_id": 0,
        "region_shape_attributes": json.dumps(shape), "region_attributes": "{}",
    }  # fmt: skip


def cesm_polygon(points: list[tuple[float, float]]) -> dict:
    return {"name": "polygon", "all_points_x": [x for x, _ in points], "all_points_y": [y for _, y in points]}


def write_cdd_cesm(folder: Path, patients: int = 6) -> Path:
    """Patients with both breasts, both views, low-energy and subtracted; a third of the left breasts each normal, benign, malignant."""
    rows, regions = [], []
    for patient in range(1, patients + 1):
        for side in "LR":
            for kind, place in (("DM", "Low energy"), ("CM", "Subtracted")):
                for view in ("CC", "MLO"):
                    name = f"P{patient}_{side}_{kind}_{view}"
                    pathology = ("Normal", "Benign", "Malignant")[patient % 3] if side == "L" else "Normal"
                    rows.append({
                        "Patient_ID": patient, "Side": side, "Type": "DM" if kind == "DM" else "CESM", "Image_name": f"{name} ",
                        "Age": 50, "Breast density (ACR)": "B", "BIRADS": "1" if pathology == "Normal" else "4",
                        "Findings": "Normal" if pathology == "Normal" else "Mass", "View": view, "Tags": "",
                        "Pathology Classification/ Follow up": pathology,
                    })  # fmt: skip
                    images = folder / f"{place} images of CDD-CESM"
                    images.mkdir(parents=True, exist_ok=True)
                    pixels = breast(zlib.crc32(name.encode()), top=255, right=side == "R").astype(np.uint8)
                    Image.fromarray(pixels).save(images / f"{name}.jpg", quality=95)
                    shape = {} if pathology == "Normal" else cesm_polygon(square(100, 40, 30))
                    regions.append(cesm_region(name, shape))
    write_csv(folder / "Radiology-manual-annotations.csv", rows)
    write_csv(folder / "Radiology_hand_drawn_segmentations_v2.csv", regions)
    return folder
