"""One frame of a DICOM file, decoded. Only decoders that fail with an exception run in this process.

python-gdcm aborts the process on some damaged files, and pylibjpeg-rle panics; what only they (or pylibjpeg-libjpeg, a native
decoder of the same kind) can read is decoded in a child process.
"""

from __future__ import annotations

import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO

from medtune.errors import UnreadableImageError
from medtune.imaging.codestream import stated_size
from medtune.imaging.dicom_file import DicomFile, open_pixels, syntax_name
from medtune.imaging.quiet import quiet
from medtune.language import Text, msg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["decode_frame", "needs_child"]

_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_JPEG2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_PIXEL_KEYWORDS = {
    (0x7FE0, 0x0010): "PixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0008): "FloatPixelData",
}


def needs_child(file: DicomFile) -> bool:
    """Whether only a decoder that may end its process can read the file."""
    decoder = _decoder(file)
    if decoder is None or decoder.is_native:
        return False
    return not _plugins(file, decoder, safe=True) and bool(_plugins(file, decoder, safe=False))


def decode_frame(file: DicomFile, index: int, called: str, *, safe: bool = True) -> NDArray[np.generic]:
    """Decode one frame.

    Args:
        file: The file.
        index: Of the frame, from 0.
        called: How messages call the file.
        safe: Use only decoders that cannot end the process.

    Returns:
        (rows, columns) stored values, or (rows, columns, 3) RGB: YBR has been converted. Integers are as wide as Bits Allocated,
        with the bits above Bits Stored cleared or filled with the sign.

    Raises:
        UnreadableImageError: No decoder is installed for the transfer syntax, or the pixels are damaged.
    """
    try:
        with quiet():
            return _decoded_by_any(file, index, called, safe=safe)
    except (UnreadableImageError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # pylibjpeg's Rust decoders panic with an exception that is no Exception
        failure = type(error).__name__
    raise UnreadableImageError(  # outside of the handler: the decoder's words, which may quote the file, do not come along
        msg(
            "The pixels of the DICOM file ({syntax}) are damaged or cut short ({kind}).",
            syntax=syntax_name(file.syntax),
            kind=failure,
        ),
        file=called,
        remedy=msg("Fetch the file again from where it came, or leave the sample out."),
    )


def _decoded_by_any(file: DicomFile, index: int, called: str, *, safe: bool) -> NDArray[np.generic]:
    decoder = _decoder(file)
    if decoder is None:
        raise _no_decoder(file, called)
    plugins = [""] if decoder.is_native else _plugins(file, decoder, safe=safe)
    if not plugins:
        raise _no_decoder(file, called)
    for plugin in plugins[:-1]:
        try:
            with closing(open_pixels(file.content)) as stream:
                return _decoded(file, decoder, stream, index, plugin, called)
        except (UnreadableImageError, MemoryError):
            raise
        except Exception:  # what one decoder does not take, the next may
            continue
    with closing(open_pixels(file.content)) as stream:
        return _decoded(file, decoder, stream, index, plugins[-1], called)


def _decoder(file: DicomFile) -> Any:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return get_decoder(file.syntax)
    except NotImplementedError:
        return None


def _plugins(file: DicomFile, decoder: Any, *, safe: bool) -> list[str]:
    unfit: set[str] = set()
    if _is_twelve_bit_jpeg(file):
        unfit |= {"gdcm", "pillow"}  # read 8 bits only
    if safe:
        unfit |= {"gdcm"} if file.syntax in _JPEG2000 else {"gdcm", "pylibjpeg"}
    return [plugin for plugin in decoder.available_plugins if plugin not in unfit]


def _is_twelve_bit_jpeg(file: DicomFile) -> bool:
    stored = file.dataset.get("BitsStored")  # a list, when the file gives several
    return file.syntax == _JPEG_EXTENDED and isinstance(stored, int) and stored > 8


def _decoded(file: DicomFile, decoder: Any, stream: BinaryIO, index: int, plugin: str, called: str) -> NDArray[np.generic]:
    from pydicom.pixels.utils import as_pixel_options

    dataset = file.dataset
    keyword, vr, length = _element(file, stream, called)
    options = as_pixel_options(dataset, transfer_syntax_uid=file.syntax, pixel_keyword=keyword, pixel_vr=vr)
    if decoder.is_encapsulated:
        _check_codestream(file, stream, index, options, called)
    else:
        _check_length(options, stream, length)
    array: NDArray[np.generic]
    allocated = options["bits_allocated"]
    stored, high = options.get("bits_stored", allocated), dataset.get("HighBit")  # of floating-point pixels neither is stated
    # PS3.5, 8.1.1 wants the stored bits lowest; in old archives they lie higher, and pydicom would take the wrong ones.
    shifted = decoder.is_native and high is not None and stored - 1 < high < allocated
    if shifted:
        options["bits_stored"] = allocated
    array, _ = decoder.as_array(stream, index=index, decoding_plugin=plugin, **options)
    # Up and down again: what lies above goes, and the sign comes along.
    return (array << (allocated - 1 - high)) >> (allocated - stored) if shifted else array


def _element(file: DicomFile, stream: BinaryIO, called: str) -> tuple[str, str | None, int]:
    """Keyword, VR and length of the pixel data element; the stream stands behind its head (PS3.5, 7.1)."""
    stream.seek(file.pixels)
    # What pydicom found, and not what the syntax says: files are seen that contradict themselves.
    _, little = file.dataset.original_encoding
    order = "<" if little else ">"
    head = stream.read(8)
    if len(head) < 8:
        raise UnreadableImageError(
            msg("The DICOM file ends before its pixels."),
            file=called,
            remedy=msg("Fetch the file again from where it came, or leave the sample out."),
        )
    group, element = struct.unpack(f"{order}HH", head[:4])
    keyword = _PIXEL_KEYWORDS[group, element]
    if head[4:6] not in (b"OB", b"OW", b"OF", b"OD", b"UN"):  # no VR: implicit, in some files only this element
        return keyword, None, int(struct.unpack(f"{order}L", head[4:])[0])
    return keyword, head[4:6].decode("ascii"), int(struct.unpack(f"{order}L", stream.read(4))[0])


def _check_length(options: dict[str, Any], stream: BinaryIO, length: int) -> None:
    # YBR_FULL_422 stores two bytes a pixel. As 8-bit RGB of that name is seen in files, the length decides what it is.
    if options.get("photometric_interpretation") != "YBR_FULL_422":
        return
    start = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(start)
    pixels = options["rows"] * options["columns"] * options["number_of_frames"] * options["bits_allocated"] // 8
    if min(length, end - start) >= 3 * pixels:
        options["photometric_interpretation"] = "YBR_FULL"


def _check_codestream(file: DicomFile, stream: BinaryIO, index: int, options: dict[str, Any], called: str) -> None:
    from pydicom.encaps import get_frame

    start = stream.tell()
    frame = get_frame(stream, index, number_of_frames=options["number_of_frames"], extended_offsets=options.get("extended_offsets"))
    stream.seek(start)
    stated, expected = stated_size(frame), (options["columns"], options["rows"])
    if stated is not None and stated != expected:
        raise UnreadableImageError(
            msg(
                "The compressed pixels ({syntax}) are of {width} x {height}, but the DICOM header says {columns} x {rows}.",
                syntax=syntax_name(file.syntax),
                width=stated[0],
                height=stated[1],
                columns=expected[0],
                rows=expected[1],
            ),
            file=called,
            remedy=msg("Fetch the file again from where it came, or leave the sample out."),
        )


def _no_decoder(file: DicomFile, called: str) -> UnreadableImageError:
    if _is_twelve_bit_jpeg(file):
        remedy: Text = msg(
            "Export it uncompressed, or pip install {package} (its licence is the GPL).", package="pylibjpeg-libjpeg"
        )
    elif file.syntax in _JPEG_LOSSLESS:
        remedy = msg("pip install {package}", package="'medtune[dicom-lossless]'")
    elif file.syntax in _JPEG2000:
        remedy = msg("pip install {package}", package="pylibjpeg pylibjpeg-openjpeg")
    else:
        remedy = msg("Export it uncompressed (Explicit VR Little Endian).")
    return UnreadableImageError(
        msg("No decoder is installed for the transfer syntax of the DICOM file ({syntax}).", syntax=syntax_name(file.syntax)),
        file=called,
        remedy=remedy,
    )
