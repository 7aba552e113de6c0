"""Text that is burned into pixels: which pictures are suspected, what is known about where it stands, and how it is blanked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

__all__ = ["Rectangle", "blank", "has_comments", "outside_regions", "suspicions", "write_pixels"]

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

_PLAIN = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose original images are reconstructed from measurements: nothing writes into their pixels."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_ULTRASOUND = ("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1")
"""Ultrasound Image and Ultrasound Multi-frame Image Storage (PS3.4, B.5)."""


def suspicions(dataset: Dataset) -> list[str]:
    """Why a picture may hold text, from its header; empty for plain images of :data:`_PLAIN` modalities.

    ``BurnedInAnnotation`` (PS3.3, C.7.6.1.1.3) counts only when it is YES: devices write NO without looking.
    """
    found = []
    if str(dataset.get("BurnedInAnnotation") or "").strip() == "YES":
        found.append("burned-in-annotation")
    if str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE) or "ConversionType" in dataset:
        found.append("secondary-capture")
    if str(dataset.get("Modality") or "").strip() not in _PLAIN:
        found.append("modality")
    # Value 1 says whether pixels are original, value 2 whether they come from the examination itself (C.7.6.1.1.2).
    image_type = [str(part).strip().upper() for part in dataset.get("ImageType") or ()]
    if image_type[:2] != ["ORIGINAL", "PRIMARY"]:
        found.append("image-type")
    if str(dataset.get("PhotometricInterpretation") or "").strip() not in ("MONOCHROME1", "MONOCHROME2"):
        found.append("colour")
    return found


def outside_regions(dataset: Dataset) -> list[Rectangle] | None:
    """Ultrasound: the rectangles that hold no calibrated region, to be blanked; None where the file states no regions.

    Sequence of Ultrasound Regions (PS3.3, C.8.5.5.1.1) says where image data lie; names and numbers stand around them.
    """
    if str(dataset.get("SOPClassUID") or "") not in _ULTRASOUND:
        return None
    width, height = int(dataset.Columns), int(dataset.Rows)
    regions: list[Rectangle] = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or ():
        try:
            left, top = int(item.RegionLocationMinX0), int(item.RegionLocationMinY0)
            right, bottom = int(item.RegionLocationMaxX1) + 1, int(item.RegionLocationMaxY1) + 1
        except (AttributeError, TypeError, ValueError):
            return None
        regions.append((max(0, left), max(0, top), min(width, right), min(height, bottom)))
    regions = [region for region in regions if region[0] < region[2] and region[1] < region[3]]
    if not regions:
        return None
    outside: list[Rectangle] = []
    # Between any two neighbouring edges the set of covering regions does not change.
    rows = sorted({0, height, *(edge for region in regions for edge in (region[1], region[3]))})
    columns = sorted({0, width, *(edge for region in regions for edge in (region[0], region[2]))})
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            if not any(r[0] <= left and right <= r[2] and r[1] <= top and bottom <= r[3] for r in regions):
                outside.append((left, top, right, bottom))
    return outside


def has_comments(dataset: Dataset) -> bool:
    """Whether a compressed frame carries text of its own: a JPEG's COM or APPn segment other than JFIF's and Adobe's.

    ITU-T T.81, B.2.4.5 and B.2.4.6. The segments stand before the first scan.
    """
    from pydicom.encaps import generate_fragments

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return False
    return any(_jpeg_comments(fragment) for fragment in generate_fragments(dataset.PixelData))


def _jpeg_comments(frame: bytes) -> bool:
    place = 2
    if frame[:2] != b"\xff\xd8":
        return False
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0xDA:  # SOS
            return False
        if marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in (0xE0, 0xE8, 0xEE)):  # E8: the JPEG-LS colour transform
            return True
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return False


def darkest(dataset: Dataset, pixels: NDArray[Any]) -> Any:
    """The stored value that is shown black."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "MONOCHROME1":
        return pixels.max()
    if photometric == "MONOCHROME2":
        return pixels.min()
    if photometric == "PALETTE COLOR":
        import numpy as np
        from pydicom.pixels.processing import apply_color_lut

        values = np.unique(pixels)
        shown = apply_color_lut(values.reshape(1, -1), dataset).astype(np.int64)[..., :3].sum(axis=-1)
        return values[int(shown[0].argmin())]
    return 0


def blank(pixels: NDArray[Any], rectangles: Sequence[Rectangle], value: Any, *, frames: bool) -> None:
    """Write ``value`` into rectangles of (frames, rows, columns[, samples]) or (rows, columns[, samples]), in place."""
    for left, top, right, bottom in rectangles:
        if frames:
            pixels[:, top:bottom, left:right] = value
        else:
            pixels[top:bottom, left:right] = value


def without_unused_bits(dataset: Dataset, pixels: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Set the bits above ``BitsStored`` to what the value alone says: retired overlays were kept there (PS3.5, 8.1.2)."""
    unused = pixels.dtype.itemsize * 8 - int(dataset.BitsStored)
    if unused <= 0 or int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        return pixels
    # Shifted up and down again: zeros come in for unsigned values, copies of the sign for signed ones.
    return (pixels << unused) >> unused


def write_pixels(dataset: Dataset, pixels: NDArray[Any]) -> None:
    """Put decoded pixels back, uncompressed in Explicit VR Little Endian."""
    from pydicom.uid import ExplicitVRLittleEndian

    photometric = str(dataset.PhotometricInterpretation)
    if int(dataset.SamplesPerPixel) == 3:
        dataset.PlanarConfiguration = 0
        # pydicom hands colour over as RGB, whatever it was compressed as.
        if photometric.startswith("YBR"):
            dataset.PhotometricInterpretation = "RGB"
    content = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    element = dataset["PixelData"]
    element.VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    element.is_undefined_length = False
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
