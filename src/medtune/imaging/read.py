"""A picture file becomes an upright 8-bit RGB picture, or an error that names it: PNG, JPEG and their like, DICOM, NIfTI.

Files are untrusted: only listed formats reach a decoder, the limits are checked on the header, and whatever a decoder throws
becomes :class:`~medtune.errors.UnreadableImageError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medtune.errors import UnreadableImageError, system_reason
from medtune.imaging.config import Limits
from medtune.imaging.part import read_part
from medtune.language import Text, msg
from medtune.types import FilePart, StoredPicture, TransformRecord, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMATS", "Header", "Limits", "check_size", "open_picture", "read_header", "read_size", "readable", "scale_grey"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read. Pillow knows forty more; each is attack surface (EPS starts Ghostscript)."""

_EXIF_ORIENTATION = 0x0112
"""Tag 274 of TIFF 6.0 and Exif 2.32; 1 = upright, 5 to 8 swap width and height."""

_HEAD_SIZE = 4096
"""Bytes from which the kind of a file is told: more than the magic words of DICOM and NIfTI need, and one page of the disk."""
_COMMON_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""How PNG and JPEG files begin."""

_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says of itself before it is decoded.

    Attributes:
        format: Pillow's name, one of :data:`FORMATS`, or ``MPO``, a JPEG file with more pictures behind the first; ``DICOM``;
            ``NIFTI``.
        mode: Pillow's mode as stored (``L``, ``RGB``, ``I;16``, ...); of DICOM the Photometric Interpretation.
        width: Pixels, upright.
        height: Pixels, upright.
        orientation: Exif orientation, 1 to 8.
        steps: What is done to the values of a DICOM or NIfTI file.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    steps: tuple[TransformRecord, ...] = ()

    @property
    def reading(self) -> tuple[TransformRecord, ...]:
        """What :func:`open_picture` does to the pixels of this file, for the record of a stored picture."""
        done = list(self.steps)
        if self.orientation != 1:
            done.append(TransformRecord(name="exif-turn", parameters={"orientation": self.orientation}))
        if self.deep:
            done.append(TransformRecord(name="scale-grey"))
        return tuple(done)

    @property
    def deep(self) -> bool:
        """The greys have more than 8 bits and must be scaled."""
        return self.mode in _DEEP_MODES

    @property
    def plain_suffix(self) -> str | None:
        """``.jpg`` or ``.png`` when every reader shows the file's bytes as :func:`open_picture` does, else None."""
        if self.orientation != 1 or self.mode not in ("L", "RGB"):
            return None
        return {"JPEG": ".jpg", "PNG": ".png"}.get(self.format)


def read_header(picture: StoredPicture, *, name: str = "", view: View | None = None, limits: Limits | None = None) -> Header:
    """Read a picture's header and check it against the limits. Decodes no pixel.

    Args:
        picture: A file, the bytes of one, or where they lie in a larger one.
        name: How messages call it; the file's path when empty.
        view: Which part of a DICOM or NIfTI file, and through which windows; other pictures have only one view.
        limits: See :class:`Limits`.

    Raises:
        UnreadableImageError: Missing, not a picture of a known format, several frames, or beyond a limit.
    """
    called, limits = name or _called(picture), limits or Limits()
    if isinstance(picture, FilePart):
        picture = read_part(picture)
    match _kind(picture, called, limits):
        case "dicom":
            from medtune.imaging.dicom import read_dicom_header

            return read_dicom_header(picture, called, view, limits)
        case "nifti":
            from medtune.imaging.nifti import read_nifti_header

            return read_nifti_header(picture, name=called, view=view, limits=limits)
    with _opened(picture, called, limits) as image:
        return _header(image)


def read_size(picture: StoredPicture, *, name: str = "", limits: Limits | None = None) -> tuple[int, int]:
    """(width, height) in pixels after the Exif turn, from the header alone.

    Raises:
        UnreadableImageError: As :func:`read_header`.
    """
    header = read_header(picture, name=name, limits=limits)
    return header.width, header.height


def open_picture(
    picture: StoredPicture,
    *,
    name: str = "",
    view: View | None = None,
    limits: Limits | None = None,
) -> Image.Image:
    """Decode a picture: upright, RGB, 8 bits a channel. Arguments as of :func:`read_header`.

    Greys of more than 8 bits are scaled from their own minimum and maximum (:func:`scale_grey`): Pillow's ``convert`` would
    clip them at 255 and leave a white picture. Transparent parts become black, the background of radiology.

    Raises:
        UnreadableImageError: As :func:`read_header`, or the pixels are damaged or cut short.
    """
    called, limits = name or _called(picture), limits or Limits()
    if isinstance(picture, FilePart):
        picture = read_part(picture)
    match _kind(picture, called, limits):
        case "dicom":
            from medtune.imaging.dicom import open_dicom

            return open_dicom(picture, called, view, limits)
        case "nifti":
            from medtune.imaging.nifti import open_nifti

            return open_nifti(picture, name=called, view=view, limits=limits)
    with _opened(picture, called, limits) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode in _DEEP_MODES:
                return Image.fromarray(scale_grey(np.asarray(upright))).convert("RGB")
            if upright.has_transparency_data:
                layer = upright.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
            return upright.convert("RGB")
        except Exception as error:  # decoders raise whatever a damaged file leads them to: struct.error, SyntaxError, KeyError, ...
            raise _damaged(called, error) from error


def scale_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map grey values (H, W) of any depth linearly from their finite minimum and maximum to 0..255; a constant becomes 0.

    Values that are not finite become 0.
    """
    grey = values.astype(np.float64)
    finite = np.isfinite(grey)
    if not finite.any():
        return np.zeros(grey.shape, np.uint8)
    low, high = float(grey[finite].min()), float(grey[finite].max())
    if high <= low:
        return np.zeros(grey.shape, np.uint8)
    scaled = (np.where(finite, grey, low) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def _kind(picture: Path | bytes, called: str, limits: Limits) -> Literal["dicom", "nifti", "ordinary"]:
    """Which reader a file is for, by its first bytes; its name does not matter."""
    size = _size_of(picture, called) if isinstance(picture, Path) else len(picture)
    if size > limits.max_bytes:
        raise UnreadableImageError(
            msg("The picture file has {size} bytes; the limit is {limit}.", size=size, limit=limits.max_bytes),
            file=called,
            remedy=_limit_remedy("max_bytes"),
        )
    if isinstance(picture, Path):
        with readable(called), picture.open("rb", buffering=0) as file:
            head = file.read(_HEAD_SIZE)
    else:
        head = picture[:_HEAD_SIZE]
    if head.startswith(_COMMON_STARTS):  # spares the common case two imports
        return "ordinary"
    from medtune.imaging.dicom_file import is_dicom
    from medtune.imaging.nifti_header import is_nifti

    if is_dicom(head):
        return "dicom"
    return "nifti" if is_nifti(head) else "ordinary"


def _size_of(picture: Path, called: str) -> int:
    with readable(called):
        if picture.is_file():
            return picture.stat().st_size
    raise UnreadableImageError(
        msg("The picture is missing."),
        file=called,
        remedy=msg("Check the path, or the folder that the pictures are looked for in."),
    )


@contextlib.contextmanager
def readable(called: str) -> Iterator[None]:
    """What the system says of a file becomes an error of the picture: no permission, a name too long or of no encoding, ...

    Raises:
        UnreadableImageError: The block raised OSError, or the ValueError of a path that no system takes.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(system_reason(error)) if isinstance(error, OSError) else _one_line(error)
        raise UnreadableImageError(
            msg("The picture file cannot be read: {error}", error=reason),
            file=called,
            remedy=msg("Check the path, or the folder that the pictures are looked for in."),
        ) from error


def _opened(picture: Path | bytes, called: str, limits: Limits) -> Image.Image:
    try:
        image = Image.open(picture if isinstance(picture, Path) else BytesIO(picture), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(
            msg("The picture is too large: {error}", error=_one_line(error)), file=called, remedy=_limit_remedy("max_pixels")
        ) from error
    except UnidentifiedImageError as error:
        raise _not_a_picture(picture, called) from error
    except Exception as error:  # as in open_picture
        raise _damaged(called, error) from error
    try:
        _check(image, called, limits)
    except UnreadableImageError:
        image.close()
        raise
    except Exception as error:  # counting the frames of a damaged file already decodes a part of it
        image.close()
        raise _damaged(called, error) from error
    return image


def check_size(width: int, height: int, called: str, limits: Limits) -> None:
    """Check the size that a header states.

    Raises:
        UnreadableImageError: Too many pixels, or too long a picture.
    """
    if width * height > limits.max_pixels:
        raise UnreadableImageError(
            msg(
                "The picture has {width} x {height} pixels; the limit is {limit}.",
                width=width,
                height=height,
                limit=limits.max_pixels,
            ),
            file=called,
            remedy=_limit_remedy("max_pixels"),
        )
    if max(width, height) > limits.max_ratio * min(width, height):
        raise UnreadableImageError(
            msg(
                "The picture has {width} x {height} pixels, an aspect ratio above {limit}.",
                width=width,
                height=height,
                limit=limits.max_ratio,
            ),
            file=called,
            remedy=msg("Crop the picture to the part that matters."),
        )


def _check(image: Image.Image, called: str, limits: Limits) -> None:
    check_size(*image.size, called, limits)
    # An MPO file is a JPEG photograph with a preview or a second view behind it: the first frame is the picture.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UnreadableImageError(
            msg("The file holds {frames} frames; one picture is expected.", frames=frames),
            file=called,
            remedy=msg("Save the frame that matters as a file of its own."),
        )


def _header(image: Image.Image) -> Header:
    # The base class's getexif on purpose: PngImageFile's own decodes all pixels to look for a chunk behind them.
    orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    width, height = image.size
    if orientation >= 5:
        width, height = height, width
    return Header(format=image.format or "", mode=image.mode, width=width, height=height, orientation=orientation)


def _damaged(called: str, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(
        msg("The picture is damaged or cut short: {error}", error=_one_line(error)),
        file=called,
        remedy=msg("Fetch the file again from where it came, or leave the sample out."),
    )


def _not_a_picture(picture: Path | bytes, called: str) -> UnreadableImageError:
    if isinstance(picture, Path):
        with picture.open("rb") as file:
            head = file.read(1)
    else:
        head = picture[:1]
    if not head:
        return UnreadableImageError(
            msg("The picture file is empty."),
            file=called,
            remedy=msg("Fetch the file again from where it came, or leave the sample out."),
        )
    return UnreadableImageError(
        msg("This is not a picture in a format that is read ({formats}).", formats=", ".join((*FORMATS, "DICOM", "NIfTI"))),
        file=called,
        remedy=msg("Convert it to PNG or JPEG."),
    )


def _limit_remedy(field: str) -> Text:
    return msg("Make the picture smaller, or raise data.limits.{field}.", field=field)


def _called(picture: StoredPicture) -> str:
    if isinstance(picture, FilePart):
        return f"{picture.file}[{picture.offset}:{picture.offset + picture.num_bytes}]"
    return str(picture) if isinstance(picture, Path) else "<bytes>"


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
