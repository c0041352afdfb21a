"""Reading files: DICOM, pictures, masks, outlines, tables."""
