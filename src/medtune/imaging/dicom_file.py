"""A DICOM file's header, read within limits. Nothing of its text reaches a message: any tag may hold a name.

Only the part before the pixels is read. pydicom's ``force`` is used for files without the 128-byte preamble, and they are taken
for DICOM only when what was read has a SOP Class UID.
"""

from __future__ import annotations

import functools
import os
import zlib
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medtune.errors import UnreadableImageError
from medtune.imaging.config import Limits
from medtune.imaging.quiet import quiet
from medtune.language import msg

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

__all__ = ["HEAD_SIZE", "DicomFile", "functional_group", "is_dicom", "open_pixels", "read_dicom", "syntax_name", "uid_name"]

HEAD_SIZE = 132
"""Bytes that :func:`is_dicom` wants to see: 128 free ones, then DICM (PS3.10, 7.1)."""

_BARE_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
"""Group of the first element of a file without preamble: 0002 or 0008, little or big endian."""
_DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE, _EXPLICIT_BIG, _IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True, eq=False)
class DicomFile:
    """What stands before the pixels.

    Attributes:
        dataset: The elements before the pixel data.
        syntax: Transfer Syntax UID of what ``content`` holds; of a deflated file that of the inflated bytes.
        content: Where the pixels are read from: the file, its bytes, or the inflated bytes.
        pixels: Offset of the pixel data element in ``content``.
    """

    dataset: Dataset
    syntax: UID
    content: Path | bytes
    pixels: int


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with these bytes (:data:`HEAD_SIZE` or more) is DICOM, or may be DICOM without a preamble."""
    return head[128:132] == b"DICM" or (head[:2] in _BARE_STARTS and len(head) >= HEAD_SIZE)


def read_dicom(picture: Path | bytes, called: str, limits: Limits) -> DicomFile:
    """Read what stands before the pixels.

    Args:
        picture: A file, or the bytes of one.
        called: How messages call it.
        limits: ``max_bytes`` (of a deflated file also of what it inflates to) and ``max_depth`` are checked.

    Raises:
        UnreadableImageError: Not DICOM, damaged, or beyond a limit.
    """
    if isinstance(picture, bytes):
        return _read(picture, called, limits)
    status = os.stat(picture)
    return _remembered(picture, status.st_size, status.st_mtime_ns, called, limits)


@functools.lru_cache(maxsize=2)
def _remembered(picture: Path, size: int, modified: int, called: str, limits: Limits) -> DicomFile:  # noqa: ARG001
    # The frames of an enhanced multi-frame file are opened one after the other, and its header may take a second to parse.
    return _read(picture, called, limits)


def _read(picture: Path | bytes, called: str, limits: Limits) -> DicomFile:
    # Each parser's faults are an open set (struct.error, AttributeError, RecursionError, ...), and their words quote the file.
    try:
        with quiet():
            file = _parsed(picture, called, limits)
            deep = _is_deeper(file.dataset, limits.max_depth)
    except UnreadableImageError:
        raise
    except RecursionError:
        deep = True
    except Exception as error:
        raise _damaged(called, error) from None
    if deep:
        raise UnreadableImageError(
            msg("The DICOM file nests sequences more than {limit} deep.", limit=limits.max_depth),
            file=called,
            remedy=msg("Export it again, or raise data.limits.{field}.", field="max_depth"),
        )
    return file


def open_pixels(content: Path | bytes) -> BinaryIO:
    """The file or bytes, open for reading."""
    return content.open("rb") if isinstance(content, Path) else BytesIO(content)


def syntax_name(syntax: UID) -> str:
    """The registered name of a transfer syntax, for messages; a UID that is not registered is not repeated."""
    return uid_name(syntax) or "unknown"


def uid_name(uid: object) -> str:
    """The registered name (PS3.6, table A-1) of a UID; empty when it is not registered."""
    from pydicom._uid_dict import UID_dictionary

    entry = UID_dictionary.get(str(uid))
    return str(entry[0]) if entry else ""


def functional_group(dataset: Dataset, frame: int, sequence: str) -> Dataset | None:
    """The item of a functional group that applies to a frame (PS3.3, C.7.6.16): its own, else the shared one, else None."""
    for keyword, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups: Any = dataset.get(keyword)
        if groups and index < len(groups):
            items = groups[index].get(sequence)
            if items:
                found: Dataset = items[0]
                return found
    return None


def _parsed(picture: Path | bytes, called: str, limits: Limits) -> DicomFile:
    from pydicom import dcmread
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import UID

    content = picture
    with closing(open_pixels(picture)) as stream:
        has_preamble = read_preamble(stream, force=True) is not None
        meta: Any = {}
        start = stream.tell()
        if stream.read(2) == b"\x02\x00":  # file meta information is always explicit, little endian (PS3.10, 7.1)
            stream.seek(start)
            meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)  # noqa: ARG005
        named = meta.get("TransferSyntaxUID")
        if named == _DEFLATED:
            content = _inflated(stream.read(), called, limits)
            named = UID(_EXPLICIT_LITTLE)
    # pydicom guesses the encoding of a data set without meta information from its first element, as it is meant to.
    with closing(open_pixels(content)) as stream:
        dataset = dcmread(stream, stop_before_pixels=True, force=True)
        pixels = stream.tell()
    if not has_preamble and not dataset.get("SOPClassUID"):
        raise UnreadableImageError(
            msg("This is not a DICOM file, nor a picture in another format that is read."),
            file=called,
            remedy=msg("Convert it to PNG or JPEG."),
        )
    if not named:
        implicit, little = dataset.original_encoding
        named = UID(_IMPLICIT_LITTLE if implicit else _EXPLICIT_LITTLE if little else _EXPLICIT_BIG)
    return DicomFile(dataset, UID(named), content, pixels)


def _inflated(deflated: bytes, called: str, limits: Limits) -> bytes:
    # PS3.5, A.5: a raw deflate stream (RFC 1951). A kilobyte of it can stand for a megabyte.
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(deflated, limits.max_bytes + 1)
    if len(inflated) > limits.max_bytes:
        raise UnreadableImageError(
            msg("The DICOM file inflates to more than {limit} bytes.", limit=limits.max_bytes),
            file=called,
            remedy=msg("Make the picture smaller, or raise data.limits.{field}.", field="max_bytes"),
        )
    return inflated


def _is_deeper(dataset: Dataset, limit: int) -> bool:
    level: list[Dataset] = [dataset]
    for _ in range(limit):
        level = [item for outer in level for element in _sequences(outer) for item in element]
        if not level:
            return False
    return any(_sequences(outer) for outer in level)


def _sequences(dataset: Dataset) -> list[Any]:
    # get_item leaves other elements as they were read: converting every value costs more than reading the file.
    return [dataset[tag].value or [] for tag in dataset.keys() if dataset.get_item(tag).VR == "SQ"]  # noqa: SIM118


def _damaged(called: str, error: BaseException) -> UnreadableImageError:
    return UnreadableImageError(
        msg("The header of the DICOM file is damaged ({kind}).", kind=type(error).__name__),
        file=called,
        remedy=msg("Fetch the file again from where it came, or leave the sample out."),
    )
