"""What may have happened to a thing on its way in: the one list of what readers count besides faults.

left out    not used, and no fault
changed     used otherwise than it lies in its file
doubted     used as it is, though something in the file speaks against it
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["left out", "changed", "doubted"]


class Fact(NamedTuple):
    """kind, and what is said after a count: "12 images turned as their EXIF orientation says"."""

    kind: Kind
    text: str


FACTS: dict[str, Fact] = {
    # --- left out
    "blank_images": Fact("left out", "images of one grey value, left out"),
    "raw_images": Fact("left out", "images are raw (for processing), left out"),
    "magnified_images": Fact("left out", "magnification views, left out"),
    "other_views": Fact("left out", "images are of a projection that is not used, left out"),
    "identical_files": Fact("left out", "files lie in two folders under one name with the same bytes, read once"),
    "files_without_row": Fact("left out", "image files without a usable row, not used"),
    "system_files": Fact("left out", "files of operating systems (._*, .DS_Store, Thumbs.db, __MACOSX), passed over"),
    "further_sheets": Fact("left out", "spreadsheets have further sheets, of which the first is read"),
    # --- changed
    "turned": Fact("changed", "images turned or mirrored as their EXIF orientation says"),
    "transparent": Fact("changed", "images with transparent parts, which are black"),
    "deep_colours": Fact("changed", "colour images of 16 bits a channel, of which the upper 8 are used"),
    "further_pages": Fact("changed", "files have further frames or pages, of which the first is used"),
    "unused_bits": Fact("changed", "DICOM images with bits set that hold no values, which are dropped"),
    "shifted_bits": Fact("changed", "DICOM images whose values lie in the upper bits of their words (HighBit), moved down"),
    "padding": Fact("changed", "DICOM images with padding, which is black and kept out of the range of values"),
    "lut_bits": Fact("changed", "DICOM images whose VOI LUT holds other bits than it announces, scaled by what it holds"),
    "spacing_magnified": Fact("changed", "DICOM images whose pixel size on the detector was divided by the magnification"),
    "noisy_masks": Fact("changed", "masks with noise of compression, cut at 127"),
    "soft_masks": Fact("changed", "soft masks, cut at their threshold"),
    "outlines_cut": Fact("changed", "findings reach beyond their image, cut at its border"),
    "trailing_separators": Fact("changed", "rows of tables end with separators that their header lacks, dropped"),
    # --- doubted
    "encoding_guessed": Fact("doubted", "tables are not UTF-8 and were read as cp1252; set `encoding` where that is wrong"),
    "photometric_missing": Fact("doubted", "DICOM images do not say whether low values are dark, and are taken as MONOCHROME2"),
    "rescale_incomplete": Fact("doubted", "DICOM images give a rescale slope without an intercept or the reverse; it is not applied"),
    "no_window": Fact("doubted", "DICOM images say no window and are shown from their smallest to their largest value"),
    "padding_impossible": Fact("doubted", "DICOM images name a padding value that their bits cannot hold; none is taken as padding"),
    "spacing_uncalibrated": Fact("doubted", "DICOM images give two sizes of a pixel and do not say which is calibrated; that of "
                                 "PixelSpacing is used"),
    "spacing_unusable": Fact("doubted", "DICOM images give a size of a pixel that is not square, or none above 0; it is not used"),
    "orientation_unreadable": Fact("doubted", "images have EXIF data that cannot be read, and were not turned"),
    "burnt_in": Fact("doubted", "DICOM images say that text is burnt into their pixels"),
    "without_outlines": Fact("doubted", "images with a finding by their BI-RADS have no file of outlines; none of their lesions is known"),
    "malignant_in_benign": Fact("doubted", "images labelled benign have a lesion labelled malignant; each label is used where it stands"),
    "raw_alone": Fact("doubted", "images are raw (for processing) and have no image for presentation beside them; used"),
}  # fmt: skip
