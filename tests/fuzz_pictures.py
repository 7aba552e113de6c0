"""Damaged picture files for the fuzz test: seeds made or bundled, mutations drawn by a seed, and the work of the child process.

Synthetic throughout, but for pydicom's bundled test files. The child imports this module by its name: it stays in ``tests``.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_SEED_BYTES = 100_000
"""Larger bundled files only make the run longer: their headers are of the kinds that the small ones have."""

_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


# ------------------------------------------------------------------------------------------------------------------ seeds


def seeds() -> dict[str, bytes]:
    """Sound (or, of pydicom's, deliberately odd) files by name, in a stable order."""
    return {**_ordinary(), **_nifti(), **_dicom()}


def _ordinary() -> dict[str, bytes]:
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    colour = Image.fromarray(values)
    deep = Image.fromarray(values[..., 0].astype(np.uint16) * 16)
    found = {}
    for name, image, options in (
        ("baseline.jpeg", colour, {"quality": 80}),
        ("progressive.jpeg", colour, {"progressive": True, "exif": _exif()}),
        ("grey.jpeg", colour.convert("L"), {}),
        ("cmyk.jpeg", colour.convert("CMYK"), {}),
        ("colour.png", colour, {}),
        ("deep.png", deep, {}),
        ("palette.png", colour.convert("P"), {"transparency": 3}),
        ("lzw.tiff", colour, {"compression": "tiff_lzw"}),
        ("jpeg.tiff", colour, {"compression": "jpeg"}),
        ("deep.tiff", deep, {"compression": "tiff_adobe_deflate"}),
        ("colour.gif", colour, {}),
        ("lossy.webp", colour, {}),
        ("lossless.webp", colour, {"lossless": True}),
        ("colour.bmp", colour, {}),
        ("colour.ppm", colour, {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, name.rpartition(".")[2], **options)
        found[name] = buffer.getvalue()
    return found


def _exif() -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _nifti() -> dict[str, bytes]:
    import gzip

    import nibabel

    values = np.random.default_rng(1).integers(-1000, 1000, (12, 10, 6))
    found = {}
    for name, kind, shape in (
        ("int16.nii", np.int16, (12, 10, 6)),
        ("float32.nii", np.float32, (12, 10, 6)),
        ("four.nii", np.uint8, (12, 10, 3, 2)),
    ):
        image = nibabel.Nifti1Image(values.reshape(shape).astype(kind), np.diag([-2.0, 2.0, 3.0, 1.0]))
        image.header.set_slope_inter(2.0, -5.0)
        found[name] = image.to_bytes()
    found["int16.nii.gz"] = gzip.compress(found["int16.nii"], mtime=0)
    found["second.nii"] = nibabel.Nifti2Image(values.astype(np.int16), np.eye(4)).to_bytes()
    return found


def _dicom() -> dict[str, bytes]:
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [file for file in sorted(folder.rglob("*.dcm")) if file.stat().st_size <= MAX_SEED_BYTES]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# -------------------------------------------------------------------------------------------------------------- mutations


def mutate(data: bytes, seed: int, *, dicom: bool) -> bytes:
    """One damaged copy; the same for the same seed. A PNG's checksums are made right again half of the time: else few get past."""
    draw = random.Random(seed)
    kinds: list[Callable[[bytearray, random.Random], None]] = [_flip, _cut, _field, _field, _length, _append, _repeat]
    if dicom:
        kinds += [_element, _element, _nest]
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        draw.choice(kinds)(changed, draw)
    if changed.startswith(b"\x89PNG") and draw.random() < 0.5:
        _mend_png(changed)
    return bytes(changed)


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 16)):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _put(data: bytearray, place: int, size: int, draw: random.Random) -> None:
    if 0 <= place <= len(data) - size:
        order = draw.choice(("little", "big"))
        data[place : place + size] = (draw.choice(_EXTREMES) & (256**size - 1)).to_bytes(size, order)


def _field(data: bytearray, draw: random.Random) -> None:
    """A field of the header becomes an extreme: width, height, depth, dimension, offset."""
    size = draw.choice((2, 4, 8))
    _put(data, draw.randrange(0, 512, 2), size, draw)


_LENGTHS = {
    b"\x89PNG": (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"IEND"),
    b"\xff\xd8": (b"\xff\xe0", b"\xff\xe1", b"\xff\xdb", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda"),
    b"RIFF": (b"RIFF", b"VP8 ", b"VP8L"),
}


def _length(data: bytearray, draw: random.Random) -> None:
    """A chunk, segment or element lies about its length."""
    for start, marks in _LENGTHS.items():
        if data.startswith(start):
            mark = draw.choice(marks)
            place = data.find(mark)
            if place >= 0:
                after = {b"\x89PNG": place - 4, b"\xff\xd8": place + 2, b"RIFF": place + 4}[start]
                _put(data, after, 2 if start == b"\xff\xd8" else 4, draw)
            return
    _field(data, draw)


def _append(data: bytearray, draw: random.Random) -> None:
    data += draw.randbytes(draw.randint(1, 2000)) if draw.random() < 0.5 else bytes(data[: draw.randint(0, len(data))])


def _repeat(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    data[start:start] = data[start : start + draw.randint(1, 200)]


_ELEMENTS = (
    (0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0008), (0x0028, 0x0100), (0x0028, 0x0101), (0x0028, 0x0102), (0x0028, 0x0002),
    (0x0028, 0x0006), (0x0028, 0x0103), (0x0028, 0x0004), (0x0028, 0x1050), (0x0028, 0x1101), (0x7FE0, 0x0010), (0x0002, 0x0010),
)  # fmt: skip
"""Rows, Columns, Number of Frames, Bits Allocated and Stored, High Bit, Samples, Planar Configuration, Pixel Representation,
Photometric Interpretation, Window Center, Red Palette descriptor, Pixel Data, Transfer Syntax."""


def _element(data: bytearray, draw: random.Random) -> None:
    """A DICOM element that decides how much is decoded gets another length or value."""
    group, element = draw.choice(_ELEMENTS)
    place = data.find(struct.pack("<HH", group, element), 128)
    if place < 0:
        _field(data, draw)
    elif draw.random() < 0.4:
        _put(data, place + draw.choice((4, 6, 8)), draw.choice((2, 4)), draw)
    else:
        _put(data, place + draw.choice((8, 12)), draw.choice((2, 4)), draw)


def _nest(data: bytearray, draw: random.Random) -> None:
    """Sequences within sequences before the pixels: each opens with an element and an item of undefined length."""
    place = data.find(struct.pack("<HH", 0x0028, 0x0002), 128)
    if place >= 0:
        data[place:place] = struct.pack(
            "<HH2sHIHHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF
        ) * draw.choice((5, 40, 300, 3000))


def _mend_png(data: bytearray) -> None:
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


# --------------------------------------------------------------------------------------------------------------- the child


def read_damaged(data: bytes, dicom: bool, start: int, stop: int) -> Iterator[tuple[int, str, str]]:
    """(seed, outcome, detail) of each mutation of a file: ``picture``, ``refused``, or ``defect`` with the exception.

    Each is read twice, as ``prepare`` does: the header, then the pixels. Last comes (-1, ``kibibytes``, the most memory in use).
    """
    import resource

    from medtune.errors import UnreadableImageError
    from medtune.imaging.read import open_picture, read_header

    for seed in range(start, stop):
        damaged = mutate(data, seed, dicom=dicom)
        try:
            header = read_header(damaged, name="damaged")
            image = open_picture(damaged, name="damaged")
        except UnreadableImageError as error:
            yield seed, "refused", error.what.template
        except BaseException as error:
            yield seed, "defect", f"{type(error).__name__}: {error}"[:300]
        else:
            upright = (header.width, header.height) == image.size and image.mode == "RGB"
            yield (seed, "picture", "") if upright else (seed, "defect", f"header says {header}, picture is {image}")
    yield -1, "kibibytes", str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def decode_with_gdcm(data: bytes) -> list[int]:
    """The shape of the pixels as pydicom reads them through python-gdcm, without any check of medtune's."""
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.pixel_array_options(decoding_plugin="gdcm")
    return list(dataset.pixel_array.shape)
