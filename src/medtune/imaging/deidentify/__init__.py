"""De-identification of DICOM files: PS3.15, Annex E, and the text that is burned into pixels."""
