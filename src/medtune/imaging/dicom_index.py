"""What a DICOM file is and where it belongs, from its header alone: to find the series of a folder and the order of their slices.

The headers are read in a child process: a folder from a hospital or a stranger holds files that nobody vouches for.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import UnreadableImageError
from medtune.imaging.child import Child, ChildDiedError
from medtune.imaging.config import Limits
from medtune.imaging.dicom_file import HEAD_SIZE, functional_group, is_dicom, read_dicom
from medtune.imaging.dicom_terms import BODY_PARTS, MODALITIES, VIEW_POSITIONS, known
from medtune.imaging.geometry import Plane, normal_of
from medtune.imaging.quiet import quiet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Instance", "ObjectKind", "Unread", "index_files"]

ObjectKind = Literal[
    "image",
    "localizer",
    "derived",
    "secondary-capture",
    "segmentation",
    "structured-report",
    "key-object-selection",
    "presentation-state",
    "radiotherapy",
    "directory",
    "no-picture",
]
"""What an object is. ``image`` is an original one; a directory is a DICOMDIR."""

UnreadReason = Literal["not-dicom", "unreadable", "decoder-crash", "decoder-timeout", "decoder-memory"]

_BATCH = 64
"""Files that one call of a child reads."""
_MAX_PROCESSES = 8
_WORTH_A_CHILD = 500
"""Files for which one more child is started."""
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PROJECTIONS = frozenset({"1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1"})
"""Storage classes of CR, DX, mammography and intra-oral pictures (PS3.4, B.5)."""
_NOT_SQUARE = 0.01
"""Pixels whose sides differ by more than this share are not square."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP instance. The four identifiers are those of the file: they are never shown, only pseudonyms of them.

    Attributes:
        path: The file.
        patient: Patient ID; empty when the file has none. So are ``study``, ``series`` and ``uid``.
        kind: What it is.
        modality: A code of the standard, or empty. So are ``body_part`` and ``view_position``.
        frames: Number of frames.
        number: Instance Number, 0 when there is none.
        planes: For each frame where it lies; None where the file does not say.
        aspect: Height of a pixel over its width; 1.0 when it is square or nothing is said.
        colour: The pixels are not measured values: windows do not apply.
        tilt: Gantry/Detector Tilt (0018,1120) in degrees; 0.0 when there is none.
        burned_in: Burned In Annotation (0028,0301) is YES.
    """

    path: Path
    patient: str
    study: str
    series: str
    uid: str
    kind: ObjectKind
    modality: str
    body_part: str
    view_position: str
    frames: int
    number: int
    planes: tuple[Plane | None, ...]
    aspect: float
    colour: bool
    tilt: float
    burned_in: bool


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that gave no instance, and why."""

    path: Path
    reason: UnreadReason


def index_files(
    paths: Sequence[Path], limits: Limits | None = None, *, processes: int | None = None
) -> Iterator[Instance | Unread]:
    """One result for each file, in their order. Each limit applies to each file.

    The files are read by child processes. One that a file ended is started again.

    Args:
        processes: At most so many at once. None: one for each core, up to eight, and no more than one for 500 files: to start one
            costs as much as to read some 200 headers.
    """
    limits = limits or Limits()
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    count = processes or max(1, min(_cores(), _MAX_PROCESSES, len(paths) // _WORTH_A_CHILD))
    with ExitStack() as stack:
        idle: SimpleQueue[Child] = SimpleQueue()
        for _ in range(count):
            idle.put(stack.enter_context(Child(max_memory=limits.max_memory * 1024**2, seconds=limits.seconds)))

        def read(batch: Sequence[Path]) -> list[Instance | Unread]:
            child = idle.get()
            try:
                return list(_read_batch(child, batch, limits))
            finally:
                idle.put(child)

        # Threads only wait for their children. The pool ends before these, and what it has not begun when nobody listens any
        # longer is not begun.
        pool = ThreadPoolExecutor(count)
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting: deque[Future[list[Instance | Unread]]] = deque()
        for batch in batches:
            waiting.append(pool.submit(read, batch))
            if len(waiting) > 2 * count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_batch(child: Child, paths: Sequence[Path], limits: Limits) -> Iterator[Instance | Unread]:
    done = 0
    while done < len(paths):
        try:
            for fields in child.run(
                "medtune.imaging.dicom_index:read_headers", [str(path.absolute()) for path in paths[done:]], limits
            ):
                yield _result(paths[done], fields)
                done += 1
        except ChildDiedError as error:
            reasons: dict[str, UnreadReason] = {"crash": "decoder-crash", "timeout": "decoder-timeout", "memory": "decoder-memory"}
            yield Unread(paths[done], reasons[error.death])
            done += 1


def read_headers(paths: Iterable[str], limits: Limits) -> Iterator[dict[str, Any]]:
    """For each file the fields of its :class:`Instance`, or ``{"reason": ...}``. Runs in the child."""
    for path in paths:
        yield _fields(Path(path), limits)


def _fields(path: Path, limits: Limits) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(HEAD_SIZE)):
                return {"reason": "not-dicom"}
        if path.stat().st_size > limits.max_bytes:
            return {"reason": "unreadable"}
        dataset = read_dicom(path, "", limits).dataset
        with quiet():
            return _described(dataset, limits)
    except UnreadableImageError:
        return {"reason": "unreadable"}
    except MemoryError:
        raise
    except Exception:  # a value of the wrong kind in one of the tags
        return {"reason": "unreadable"}


def _described(dataset: Dataset, limits: Limits) -> dict[str, Any]:
    kind = _kind(dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    cut_short = kind == "no-picture" and not dataset.get("SOPClassUID")
    if cut_short or not 0 < frames <= limits.max_frames:
        return {"reason": "unreadable"}
    return {
        "patient": _text(dataset.get("PatientID")),
        "study": _text(dataset.get("StudyInstanceUID")),
        "series": _text(dataset.get("SeriesInstanceUID")),
        "uid": _text(dataset.get("SOPInstanceUID")),
        "kind": kind,
        "modality": known(dataset.get("Modality"), MODALITIES),
        "body_part": known(dataset.get("BodyPartExamined"), BODY_PARTS),
        "view_position": known(dataset.get("ViewPosition"), VIEW_POSITIONS),
        "frames": frames,
        "number": _whole(dataset.get("InstanceNumber")),
        "planes": [_plane(dataset, frame) for frame in range(frames)] if kind not in ("directory", "no-picture") else [],
        "aspect": _aspect(dataset),
        "colour": int(dataset.get("SamplesPerPixel") or 1) > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR",
        "tilt": _finite(dataset.get("GantryDetectorTilt")),
        "burned_in": _text(dataset.get("BurnedInAnnotation")).upper() == "YES",
    }


def _result(path: Path, fields: dict[str, Any]) -> Instance | Unread:
    if "reason" in fields:
        return Unread(path, fields["reason"])
    planes = tuple(None if plane is None else Plane(*(tuple(part) for part in plane)) for plane in fields.pop("planes"))
    return Instance(path=path, planes=planes, **fields)


def _kind(dataset: Dataset) -> ObjectKind:
    """By SOP Class (PS3.4, B.5), and of pictures by Image Type (PS3.3, C.7.6.1.1.2)."""
    sop_class = str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    storage = sop_class.removeprefix(_STORAGE)
    if sop_class == "1.2.840.10008.1.3.10":
        return "directory"
    if storage in ("66.4", "66.7"):  # Segmentation, Label Map Segmentation
        return "segmentation"
    if storage == "88.59":
        return "key-object-selection"
    if storage.startswith("88."):
        return "structured-report"
    if storage.startswith("11."):
        return "presentation-state"
    if storage.startswith("481.") and storage != "481.1":  # RT Image is a picture
        return "radiotherapy"
    if not dataset.get("Rows") or not dataset.get("Columns"):
        return "no-picture"
    image_type = dataset.get("ImageType") or []
    values = [str(value).upper() for value in ([image_type] if isinstance(image_type, str) else image_type)]
    if "LOCALIZER" in values[2:]:
        return "localizer"
    if storage == "7" or storage.startswith("7."):
        return "secondary-capture"
    if storage in _PROJECTIONS and "PRIMARY" in values[1:2]:
        # What a detector makes for presentation is derived from what it measured, and is the picture that was reported. PRIMARY:
        # "a direct result of the patient examination" (C.7.6.1.1.2).
        return "image"
    if "DERIVED" in values[:1] or "SECONDARY" in values[1:2]:
        return "derived"
    return "image"


def _plane(dataset: Dataset, frame: int) -> list[list[float]] | None:
    position = (functional_group(dataset, frame, "PlanePositionSequence") or dataset).get("ImagePositionPatient")
    orientation = (functional_group(dataset, frame, "PlaneOrientationSequence") or dataset).get("ImageOrientationPatient")
    if not position or not orientation or len(position) != 3 or len(orientation) != 6:
        return None
    x, y, z = (float(value) for value in position)
    row, column = [float(value) for value in orientation[:3]], [float(value) for value in orientation[3:]]
    try:
        normal_of(Plane((x, y, z), (row[0], row[1], row[2]), (column[0], column[1], column[2])))
    except ValueError:
        return None
    return [[x, y, z], row, column] if all(map(math.isfinite, (x, y, z))) else None


def _aspect(dataset: Dataset) -> float:
    """From Pixel Spacing, else Imager Pixel Spacing, else Pixel Aspect Ratio: vertical before horizontal (PS3.3, 10.7.1.3)."""
    measures = functional_group(dataset, 0, "PixelMeasuresSequence") or dataset
    sides = measures.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or dataset.get("PixelAspectRatio")
    if not sides or len(sides) != 2:
        return 1.0
    vertical, horizontal = float(sides[0]), float(sides[1])
    if not (vertical > 0 and horizontal > 0 and math.isfinite(vertical / horizontal)):
        return 1.0
    ratio = vertical / horizontal
    return ratio if abs(ratio - 1) > _NOT_SQUARE else 1.0


def _text(value: object) -> str:
    return "" if value is None else str(value).strip(" \0")


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _finite(value: Any) -> float:
    number = float(value) if isinstance(value, (int, float)) else 0.0
    return number if math.isfinite(number) else 0.0
