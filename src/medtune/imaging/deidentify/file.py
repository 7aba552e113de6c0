"""One file: read, cleaned, written, read again and searched. Runs in a child process.

Nothing here raises for what a file holds: the result says where the file goes and why, in codes of :mod:`.verdict`.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.imaging.deidentify import pixels as burned
from medtune.imaging.deidentify.apply import Cleaning, patient_of
from medtune.imaging.deidentify.identifiers import is_well_known
from medtune.imaging.deidentify.settings import DeidentifySettings
from medtune.imaging.deidentify.text import find_text, has_ocr
from medtune.imaging.pseudonym import Pseudonyms

if TYPE_CHECKING:
    from pydicom import FileDataset

__all__ = ["IMPLEMENTATION_UID", "clean_file"]

IMPLEMENTATION_UID = "2.25.211437012530129483284604174716029381733"
"""Says in the file's head that medtune wrote it (PS3.10, 7.1): a UUID, drawn once."""

_DICOMDIR = "1.2.840.10008.1.3.10"
_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
"""Encapsulated PDF, CDA, STL, OBJ and MTL Storage: documents in a format of their own."""

_TEXT_OBJECTS = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.9.")
"""Structured reports, presentation states, waveforms with annotations: made of words or of graphics that people drew."""

_CLEANING_ROUNDS = 3
"""Text is searched for, blanked and searched for again: a line can hide the one beside it from the detector."""


class _Refused(Exception):
    """The file cannot be passed on. The one argument is the reason."""


def clean_file(source: str, target: str, key: bytes, settings: dict[str, Any]) -> dict[str, Any]:
    """De-identify ``source`` into ``target``.

    Args:
        source: The original; only read.
        target: Where the result is written, when there is one; the caller moves it on.
        key: Of the pseudonyms.
        settings: :class:`DeidentifySettings` as JSON.

    Returns:
        ``verdict`` (``pass``, ``review``, ``quarantine``, ``ignored``), ``reasons``, and for a written file ``names`` (patient,
        study, series and instance pseudonyms), ``counts``, ``blanked`` (rectangles), ``num_short``.
    """
    with _quiet():
        try:
            return _clean(Path(source), Path(target), Pseudonyms(key), DeidentifySettings.model_validate(settings))
        except _Refused as refused:
            Path(target).unlink(missing_ok=True)
            reason = str(refused)
            return {"verdict": "ignored" if reason in ("not-dicom", "dicomdir") else "quarantine", "reasons": [reason]}
        except MemoryError:
            raise
        except Exception as error:  # a defect of medtune: told by its place, because its words may be the file's
            Path(target).unlink(missing_ok=True)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__}, {Path(frame.filename).name}:{frame.lineno}"
            return {"verdict": "quarantine", "reasons": ["defect"], "place": place}


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom warns and logs with values in its words, and refuses to write what it dislikes; neither may happen here."""
    from pydicom import config

    logger = logging.getLogger("pydicom")
    level, disabled = logger.level, logger.disabled
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
        try:
            yield
        finally:
            config.settings.reading_validation_mode, config.settings.writing_validation_mode = before
            logger.disabled = disabled
            logger.setLevel(level)


def _clean(source: Path, target: Path, pseudonyms: Pseudonyms, settings: DeidentifySettings) -> dict[str, Any]:
    dataset = _read(source)
    reasons = _of_kind(dataset)
    names = {
        "patient": pseudonyms.name("patient", patient_of(dataset)),
        "study": pseudonyms.name("study", str(dataset.get("StudyInstanceUID") or "")),
        "series": pseudonyms.name("series", str(dataset.get("SeriesInstanceUID") or "")),
        "instance": pseudonyms.name("instance", str(dataset.get("SOPInstanceUID") or "")),
    }
    blanked, cleaned_pixels, of_pixels = _clean_pixels(dataset, settings)
    cleaning = Cleaning(dataset, settings, pseudonyms)
    cleaning.run()
    cleaning.state_methods(pixels_cleaned=cleaned_pixels)
    if cleaned_pixels and "PixelData" in dataset:
        dataset.BurnedInAnnotation = "NO"
    _write(dataset, target)
    left = _search(target, cleaning)
    if left:
        raise _Refused(f"identifier-left-{min(left)}")
    reasons += of_pixels
    counts: Counter[str] = cleaning.counts
    return {
        "verdict": "review" if reasons else "pass",
        "reasons": reasons,
        "names": names,
        "counts": {name: number for name, number in sorted(counts.items()) if number},
        "blanked": len(blanked),
        "num_short": cleaning.identifiers.num_short,
    }


# ---------------------------------------------------------------------------------------------------------------- reading


def _read(source: Path) -> FileDataset:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        dataset = dcmread(source)
    except InvalidDicomError:
        # Old archives hold data sets without the head of PS3.10. Anything else can be read as one; then it has no UIDs.
        try:
            dataset = dcmread(source, force=True)
            headless = bool(dataset.get("SOPClassUID")) and bool(dataset.get("SOPInstanceUID"))
        except Exception as error:
            raise _Refused("not-dicom") from error
        if not headless:
            raise _Refused("not-dicom") from None
    except Exception as error:
        raise _Refused("unreadable") from error
    if not dataset:
        # Where compressed pixels end too early, pydicom warns and gives a data set without elements.
        raise _Refused("unreadable")
    if str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == _DICOMDIR or "DirectoryRecordSequence" in dataset:
        raise _Refused("dicomdir")
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    if not dataset.get("SOPClassUID"):
        dataset.SOPClassUID = dataset.file_meta.get("MediaStorageSOPClassUID", "")
    if not dataset.get("SOPInstanceUID"):
        dataset.SOPInstanceUID = dataset.file_meta.get("MediaStorageSOPInstanceUID", "")
    if not dataset.SOPClassUID or not dataset.SOPInstanceUID:
        raise _Refused("no-instance")
    if _is_cut_short(dataset):
        raise _Refused("pixels-cut")
    return dataset


def _is_cut_short(dataset: FileDataset) -> bool:
    """Whether pixels are missing, in part or all. pydicom takes what there is; a result in ``pass`` would look sound.

    Uncompressed, the header says how long they are (PS3.5, 8.1.1). A file cut within compressed ones
    has no elements left (:func:`_read`).
    """
    from pydicom.pixels.utils import get_expected_length

    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        return "BitsAllocated" in dataset  # a header alone, as some archives give, has no description of pixels either
    data = dataset.get("PixelData")
    if data is None or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return False
    try:
        return len(data) < get_expected_length(dataset)
    except (AttributeError, TypeError, ValueError):
        return False  # what the pixels are is not stated: who decodes them finds out


_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL")


def _of_kind(dataset: FileDataset) -> list[str]:
    """What speaks for a look by a person, from the kind of object alone."""
    kind = str(dataset.SOPClassUID)
    if kind.startswith(_ENCAPSULATED) or "EncapsulatedDocument" in dataset:
        raise _Refused("encapsulated-document")
    if not is_well_known(kind):
        return ["unknown-class"]
    if kind.startswith(_TEXT_OBJECTS):
        return ["text-object"]
    if "GraphicAnnotationSequence" in dataset:
        return ["graphics"]
    return []


# ----------------------------------------------------------------------------------------------------------------- pixels


def _clean_pixels(dataset: FileDataset, settings: DeidentifySettings) -> tuple[list[burned.Rectangle], bool, list[str]]:
    """Blank what is burned in. Returns the rectangles, whether the pixels were cleaned or found clean, and reasons for a review."""
    if "PixelData" not in dataset:
        return [], False, []
    suspected = burned.suspicions(dataset)
    if "SCREEN SAVE" in {str(part).strip().upper() for part in dataset.get("ImageType") or ()}:
        raise _Refused("picture-of-text")  # GE's dose reports and saved screens: a page of names and numbers
    outside = burned.outside_regions(dataset)
    wanted = settings.ocr == "all" or (settings.ocr == "suspected" and bool(suspected))
    ocr = wanted and has_ocr()
    reasons = ["no-ocr"] if (wanted or suspected) and not ocr else []
    overlaid = any(dataset.get((group, 0x0102)) is not None and dataset[group, 0x0102].value for group in range(0x6000, 0x6020, 2))
    if not (outside or ocr or overlaid or burned.has_comments(dataset)):
        return [], False, reasons
    values = _decoded(dataset)
    frames, colour = int(dataset.get("NumberOfFrames") or 1) > 1, int(dataset.SamplesPerPixel) == 3
    rectangles = list(outside or ())
    value = burned.darkest(dataset, values)
    burned.blank(values, rectangles, value, frames=frames)
    if ocr:
        for _ in range(_CLEANING_ROUNDS):
            found = find_text(_shown(dataset, values), frames=frames, colour=colour or _is_palette(dataset))
            if not found.boxes:
                break
            burned.blank(values, found.boxes, value, frames=frames)
            rectangles += found.boxes
        else:
            raise _Refused("text-remains")
        if len(rectangles) > len(outside or ()):
            reasons.append("text-blanked")
        if found.num_uncertain:
            reasons.append("text-uncertain")
    if rectangles or overlaid or burned.has_comments(dataset):
        burned.write_pixels(dataset, values)
    return rectangles, ocr or bool(outside), reasons


def _decoded(dataset: FileDataset) -> Any:
    """Pixels with unused bits set; ([frames,] rows, columns[, 3])."""
    from pydicom.pixels.utils import pixel_array

    try:
        values = burned.without_unused_bits(dataset, pixel_array(dataset).copy())
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise _Refused("pixels-unreadable") from error
    return values


def _is_palette(dataset: FileDataset) -> bool:
    return str(dataset.PhotometricInterpretation) == "PALETTE COLOR"


def _shown(dataset: FileDataset, values: Any) -> Any:
    if not _is_palette(dataset):
        return values
    from pydicom.pixels.processing import apply_color_lut

    shown = apply_color_lut(values, dataset)
    return (shown >> 8).astype("uint8") if shown.dtype.itemsize == 2 else shown


# ---------------------------------------------------------------------------------------------------------------- writing


def _write(dataset: FileDataset, target: Path) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    from medtune import __version__

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        syntax = ExplicitVRLittleEndian  # what is deflated cannot be searched
    # A head of its own: the old one names the application entities that sent the file, and private information.
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"MEDTUNE {__version__}"[:16]
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
    try:
        dataset.save_as(target, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    except MemoryError:
        raise
    except Exception as error:  # values of a damaged file that fit no representation
        raise _Refused("unwritable") from error


def _search(target: Path, cleaning: Cleaning) -> set[str]:
    """Kinds of original values that the written file still holds."""
    from pydicom import dcmread

    content = target.read_bytes()
    pixels = (len(content), len(content))
    written = dcmread(BytesIO(content))
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        value = written.get(keyword)
        if isinstance(value, bytes) and value:
            start = content.rfind(value)
            if start >= 0:
                pixels = (start, start + len(value))
    return cleaning.identifiers.in_bytes(content, pixels=pixels, allowed_dates=frozenset(cleaning.dates))
