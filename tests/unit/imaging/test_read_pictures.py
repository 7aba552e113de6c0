"""Pictures are read upright, in 8-bit RGB, within limits; damage is named."""

from __future__ import annotations

import contextlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtune.errors import UnreadableImageError
from medtune.imaging.read import Limits, open_picture, read_header, read_size, scale_grey


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rotated(kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(64, 48), kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_ordinary_formats(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(noise(), kind))
    image = open_picture(path, name="a")
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert read_size(path) == (64, 48)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turn(kind: str) -> None:
    data = rotated(kind)
    assert read_size(data) == (48, 64)
    assert open_picture(data, name="a").size == (48, 64)
    assert read_header(data).plain_suffix is None


def test_header_of_a_png_decodes_no_pixels() -> None:
    data = encoded(noise(256, 256))
    assert read_size(data[: len(data) // 2]) == (256, 256)


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
def test_deep_greys_are_scaled_not_clipped(mode: str, dtype: type) -> None:
    grey = np.linspace(1000, 4095, 64 * 64).reshape(64, 64).astype(dtype)
    image = Image.fromarray(grey)
    assert image.mode == mode
    pixels = np.asarray(open_picture(encoded(image, "TIFF"), name="deep"))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (pixels == 255).mean() < 0.02


def test_sixteen_bit_png() -> None:
    data = encoded(Image.fromarray(np.linspace(0, 4095, 4096).reshape(64, 64).astype(np.uint16)))
    assert read_header(data).deep
    assert read_header(data).plain_suffix is None
    assert np.median(np.asarray(open_picture(data, name="deep"))) == pytest.approx(127, abs=1)


def test_scale_grey_with_values_that_are_not_finite() -> None:
    assert scale_grey(np.array([[np.nan, 0.0, 1.0, np.inf]])).tolist() == [[0, 0, 255, 0]]
    assert scale_grey(np.full((1, 2), np.nan)).tolist() == [[0, 0]]
    assert scale_grey(np.full((1, 2), 7)).tolist() == [[0, 0]]


def test_transparent_parts_become_black() -> None:
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    image.putpixel((1, 0), (255, 255, 255, 255))
    assert np.asarray(open_picture(encoded(image), name="a")).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(kind: str, share: float, tmp_path: Path) -> None:
    data = encoded(noise(200, 200), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableImageError) as caught:
        open_picture(path)
    assert caught.value.file == str(path)
    assert caught.value.remedy is not None


def test_a_jpeg_without_its_last_bytes_is_truncated() -> None:
    data = encoded(noise(200, 200), "JPEG")
    with pytest.raises(UnreadableImageError, match="cut short"):
        open_picture(data[:-2], name="a")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello" * 50, "not a picture"),
        (b"\0" * 128 + b"DICM" + b"\0" * 100, "DICOM"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture"),
    ],
)
def test_not_a_picture(data: bytes, says: str) -> None:
    with pytest.raises(UnreadableImageError, match=says):
        open_picture(data, name="a")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="missing"):
        open_picture(tmp_path / "nobody.png")


@pytest.mark.parametrize(
    ("limits", "says"),
    [(Limits(max_bytes=100), "bytes"), (Limits(max_pixels=100), "pixels"), (Limits(max_ratio=1.1), "aspect ratio")],
)
def test_limits(limits: Limits, says: str) -> None:
    with pytest.raises(UnreadableImageError, match=says):
        open_picture(encoded(noise()), name="a", limits=limits)


def test_a_decompression_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImageError, match="too large"):
        read_size(encoded(noise(100, 100)))


def test_several_frames_are_refused() -> None:
    data = encoded(noise(), "GIF", save_all=True, append_images=[noise(32, 48)])
    with pytest.raises(UnreadableImageError, match="frames"):
        open_picture(data, name="a")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on torn TIFF tags before it raises
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_damaged_files_raise_only_the_typed_error(kind: str) -> None:
    data = encoded(noise(32, 32), kind)
    random = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(damaged), 8):
            damaged[place] = int(random.integers(0, 256))
        with contextlib.suppress(UnreadableImageError):
            assert open_picture(bytes(damaged), name="damaged").mode == "RGB"
