"""Under which terms the sources of MedTrinity-25M were published, as far as that is known.

MedTrinity-25M puts its captions under terms of its own; the pictures keep those of their source. None of these entries was
checked against the licence text: they say where to look.
"""

from __future__ import annotations

__all__ = ["KNOWN_SOURCES", "licence_of"]

_LICENCES = {
    "ct_rate": "CC-BY-NC-SA-4.0 (not verified; huggingface.co/datasets/ibrahimhamamci/CT-RATE)",
    "nct-crc-he-100k": "CC-BY-4.0 (not verified; doi.org/10.5281/zenodo.1214456)",
}
KNOWN_SOURCES = (
    "2u1-data5-nature",
    "4u8_data2_nature",
    "CISC",
    "MAMA-MIA",
    "NCT-CRC-HE-100K",
    "PTCGA",
    "TCGA",
    "VALSET",
    "adc22",
    "bhx",
    "brats",
    "brats24",
    "brats_24",
    "breast_histo",
    "chexpert",
    "ct_rate",
    "deeplesion",
    "flare23",
    "ihc4bc",
    "kipa22_kits23_cervix",
    "llava_med_data",
    "nih_chest",
    "padchest",
    "pmc_oa",
    "pmc_vqa",
    "quilt_1m",
    "quilt_llava",
    "sammed",
    "uls23",
)
"""Values of the ``source`` column that were seen. There may be others."""


def licence_of(source: str) -> str:
    """The licence of a source's pictures, or ``unknown``: then its publisher must be asked."""
    return _LICENCES.get(source.lower(), "unknown")
