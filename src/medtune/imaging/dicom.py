"""A DICOM file becomes a picture: one frame, through the windows of a view or the file's own.

Pixels are not resampled: where a pixel is not square (Pixel Spacing, Pixel Aspect Ratio), the picture is as stretched as the
stored frame, and boxes in stored pixels stay true. Overlays and shutters are not drawn.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from medtune.errors import UnreadableImageError
from medtune.imaging import dicom_pixels
from medtune.imaging.child import in_child
from medtune.imaging.config import Limits
from medtune.imaging.dicom_file import DicomFile, functional_group, is_dicom, read_dicom, uid_name
from medtune.imaging.grayscale import Grayscale, LookupTable, WindowFunction, apply_table, show_greys
from medtune.imaging.quiet import quiet
from medtune.imaging.read import Header, check_size
from medtune.language import msg
from medtune.types import TransformRecord, View

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from pydicom.dataset import Dataset

__all__ = ["is_dicom", "open_dicom", "read_dicom_header"]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"


def read_dicom_header(picture: Path | bytes, name: str, view: View | None, limits: Limits) -> Header:
    """The header of one frame, checked against the limits. ``mode`` is the Photometric Interpretation.

    Raises:
        UnreadableImageError: The file is damaged, holds no picture or not this frame, is beyond a limit, or a window is asked of
            a picture in colour.
    """
    view = view or View()
    file = read_dicom(picture, name, limits)
    try:
        with quiet():
            return _header(file, name, view, limits)
    except UnreadableImageError:
        raise
    except Exception as error:  # values of the wrong kind or number, in any of the tags
        raise _damaged(name, error) from None


def open_dicom(picture: Path | bytes, name: str, view: View | None, limits: Limits) -> Image:
    """Decode one frame: RGB, 8 bits a channel.

    A frame that only python-gdcm can decode is decoded in the kept child process of :mod:`medtune.imaging.untrusted`.

    Raises:
        UnreadableImageError: As :func:`read_dicom_header`; no decoder is installed; or the pixels are damaged.
    """
    from PIL import Image

    view = view or View()
    header = read_dicom_header(picture, name, view, limits)
    file = read_dicom(picture, name, limits)
    inside = in_child()
    try:
        with quiet():
            outside = not inside and dicom_pixels.needs_child(file)
    except Exception as error:  # as in read_dicom_header
        raise _damaged(name, error) from None
    if outside:
        from medtune.imaging.untrusted import open_untrusted

        return open_untrusted(picture, name=name, view=view, limits=limits)
    stored = dicom_pixels.decode_frame(file, view.index, name, safe=not inside)
    try:
        with quiet():
            return Image.fromarray(_shown(file.dataset, stored, header.mode, view)).convert("RGB")
    except Exception as error:  # as above; a lookup table is only read here
        raise _damaged(name, error) from None


def _header(file: DicomFile, name: str, view: View, limits: Limits) -> Header:
    dataset = file.dataset
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise UnreadableImageError(
            msg("The DICOM file holds no picture ({kind}).", kind=uid_name(dataset.get("SOPClassUID")) or "unknown"),
            file=name,
            remedy=msg("Leave the file out."),
        )
    check_size(int(columns), int(rows), name, limits)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > limits.max_frames:
        raise UnreadableImageError(
            msg("The file has {frames} frames; the limit is {limit}.", frames=frames, limit=limits.max_frames),
            file=name,
            remedy=msg("Make the picture smaller, or raise data.limits.{field}.", field="max_frames"),
        )
    if not 0 <= view.index < frames:
        raise UnreadableImageError(
            msg("The file has {frames} frames; there is no frame {index} (counted from 0).", frames=frames, index=view.index),
            file=name,
            remedy=msg("Ask for a frame that the file has."),
        )
    kind = str(dataset.get("PhotometricInterpretation", "")).upper()
    if kind not in (*_GREY, *_COLOUR, _PALETTE):
        raise UnreadableImageError(
            msg("The DICOM file has pixels of a kind that is not read (Photometric Interpretation)."),
            file=name,
            remedy=msg("Export it as MONOCHROME2 or RGB."),
        )
    if view.windows and kind not in _GREY:
        raise UnreadableImageError(
            msg("A window is for measured values; this DICOM file holds a picture in colour."),
            file=name,
            remedy=msg("Leave the window out for this file."),
        )
    steps = [TransformRecord(name="frame", parameters={"index": view.index, "frames": frames})] if frames > 1 else []
    if kind in _GREY:
        steps += _grayscale(dataset, view, inverted=kind == "MONOCHROME1").records
    elif kind == _PALETTE:
        steps.append(TransformRecord(name="palette"))
    elif kind != "RGB":
        steps.append(TransformRecord(name="ybr-to-rgb"))
    return Header(format="DICOM", mode=kind, width=int(columns), height=int(rows), orientation=1, steps=tuple(steps))


def _shown(dataset: Dataset, stored: NDArray[np.generic], kind: str, view: View) -> NDArray[np.uint8]:
    if kind in _GREY:
        return show_greys(stored, _grayscale(dataset, view, inverted=kind == "MONOCHROME1"))
    if kind == _PALETTE:
        return _through_palette(dataset, stored)
    bits = int(dataset.BitsStored)
    if bits == 8:
        return stored.astype(np.uint8)
    top = float(2**bits - 1)
    return np.rint(np.clip(stored.astype(np.float64) / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def _grayscale(dataset: Dataset, view: View, *, inverted: bool) -> Grayscale:
    transformation = functional_group(dataset, view.index, "PixelValueTransformationSequence") or dataset
    slope, intercept = _number(transformation.get("RescaleSlope")), _number(transformation.get("RescaleIntercept"))
    voi = functional_group(dataset, view.index, "FrameVOILUTSequence") or dataset
    windows, function, from_view = view.windows, "LINEAR", bool(view.windows)
    if not windows:
        windows, function = _own_window(voi)
    return Grayscale(
        # A slope of 0 would make every value the same; such files mean that there is nothing to rescale.
        slope=slope if slope else 1.0,
        intercept=intercept or 0.0,
        modality=_table(dataset, "ModalityLUTSequence"),
        windows=windows,
        function=function,  # type: ignore[arg-type]  # one of WindowFunction: looked up in it
        from_view=from_view,
        voi=None if windows else _table(voi, "VOILUTSequence"),
        padding=_padding(dataset),
        inverted=inverted,
    )


def _own_window(voi: Dataset) -> tuple[tuple[tuple[float, float], ...], str]:
    """The first window that the file states, and its function; none where it makes no sense (a width of 0 is seen in files)."""
    center, width = _number(voi.get("WindowCenter")), _number(voi.get("WindowWidth"))
    function = str(voi.get("VOILUTFunction") or "LINEAR").upper()
    if function not in get_args(WindowFunction):
        function = "LINEAR"
    if center is None or width is None or not width >= (1.0 if function == "LINEAR" else 1e-9):
        return (), "LINEAR"
    return ((center, width),), function


def _number(value: Any) -> float | None:
    """The first of one or several numbers; None when there is none."""
    if value is not None and not isinstance(value, (str, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _padding(dataset: Dataset) -> tuple[float, float] | None:
    """The stored values of pixels without a measurement (PS3.3, C.7.5.1.1.2): Pixel Padding Value, up to its Range Limit."""
    for keyword in ("FloatPixelPaddingValue", "DoubleFloatPixelPaddingValue"):
        value = _number(dataset.get(keyword))
        if value is not None:
            limit = _number(dataset.get(keyword.replace("Value", "RangeLimit")))
            return min(value, value if limit is None else limit), max(value, value if limit is None else limit)
    value = _number(dataset.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = _number(dataset.get("PixelPaddingRangeLimit"))
    bits, signed = int(dataset.BitsStored), int(dataset.get("PixelRepresentation") or 0) == 1
    edges = [_as_stored(int(edge), bits, signed) for edge in (value, value if limit is None else limit)]
    return float(min(edges)), float(max(edges))


def _as_stored(value: int, bits: int, signed: bool) -> int:
    """The decoded pixel that a padding value of 16 bits speaks of; a number that no pixel has, where it does not fit them.

    Files write -2000 as 63536, and a negative number of Bits Stored without its sign. But -32768 beside 12 bits is no pixel: its
    lowest 12 bits are those of 0, which is water.
    """
    negative = value - 2**16 if value >= 2**15 else value
    if signed:
        return value - 2**bits if 2 ** (bits - 1) <= value < 2**bits else negative
    return negative % 2**bits if value >= 2**bits and -(2 ** (bits - 1)) <= negative < 0 else value


def _table(dataset: Dataset, sequence: str) -> LookupTable | None:
    items = dataset.get(sequence)
    if not items:
        return None
    count, first, bits = (int(number) for number in items[0].LUTDescriptor)
    return _lookup_table(items[0].LUTData, count or 2**16, first, bits, little=_is_little(dataset))


def _lookup_table(data: Any, count: int, first: int, bits: int, *, little: bool) -> LookupTable:
    if not isinstance(data, (bytes, bytearray)):  # US: one or several 16-bit words, already read
        words = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        data, little = words.astype("<u2").tobytes(), True
    if len(data) >= 2 * count:
        entries: NDArray[np.generic] = np.frombuffer(data, "<u2" if little else ">u2", count)
    else:  # 8-bit entries, packed
        entries = np.frombuffer(data, np.uint8, count)
    return LookupTable(first, entries, bits)


def _is_little(dataset: Dataset) -> bool:
    return bool(getattr(dataset, "original_encoding", (None, True))[1] is not False)


def _through_palette(dataset: Dataset, stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Colours of a palette (PS3.3, C.7.6.3.1.5 and C.7.6.3.1.6); a segmented one (C.7.9.2) is expanded by pydicom."""
    if "RedPaletteColorLookupTableData" not in dataset:
        from pydicom.pixels.processing import apply_color_lut

        low, high = int(stored.min()), int(stored.max())
        colours = np.asarray(apply_color_lut(np.arange(low, high + 1), dataset))[stored.astype(np.intp) - low]
        return _eight_bits(colours[..., :3])
    channels = []
    for colour in ("Red", "Green", "Blue"):
        count, first, bits = (int(number) for number in dataset[f"{colour}PaletteColorLookupTableDescriptor"].value)
        data = dataset[f"{colour}PaletteColorLookupTableData"].value
        channels.append(apply_table(stored, _lookup_table(data, count or 2**16, first, bits, little=_is_little(dataset))))
    return _eight_bits(np.stack(channels, axis=-1))


def _eight_bits(colours: NDArray[np.generic]) -> NDArray[np.uint8]:
    # Entries of 16 bits use all of them (C.7.6.3.1.5); old files keep 8 bits in 16.
    if colours.dtype.itemsize == 1 or int(colours.max()) < 256:
        return colours.astype(np.uint8)
    eight: NDArray[np.uint8] = (colours.astype(np.uint32) >> 8).astype(np.uint8)
    return eight


def _damaged(name: str, error: BaseException) -> UnreadableImageError:
    return UnreadableImageError(
        msg("The header of the DICOM file is damaged ({kind}).", kind=type(error).__name__),
        file=name,
        remedy=msg("Fetch the file again from where it came, or leave the sample out."),
    )
