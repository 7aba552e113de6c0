"""Pictures from outside are decoded in a process of their own."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtune.errors import UnreadableImageError
from medtune.imaging import untrusted
from medtune.imaging.child import Child
from medtune.imaging.config import Limits
from medtune.imaging.read import open_picture
from medtune.imaging.untrusted import DecoderDiedError, open_untrusted


def png(width: int = 24, height: int = 16, seed: int = 0) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_pixels_are_those_of_open_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    Image.open(BytesIO(png())).save(file, exif=exif)
    for picture in (file, file.read_bytes()):
        image = open_untrusted(picture)
        assert (image.mode, image.size) == ("RGB", (16, 24))
        assert image.tobytes() == open_picture(picture).tobytes()
    monkeypatch.chdir(tmp_path)  # a relative path is this process's, not the child's
    assert open_untrusted(Path("turned.jpg")).size == (16, 24)


def test_faults_are_named_as_by_open_picture(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="missing") as caught:
        open_untrusted(tmp_path / "nobody.png", name="upload 3")
    assert caught.value.file == "upload 3"
    with pytest.raises(UnreadableImageError, match="damaged"):
        open_untrusted(png()[:-40])
    with pytest.raises(UnreadableImageError, match="max_pixels"):
        open_untrusted(png(), limits=Limits(max_pixels=100))


@pytest.mark.parametrize(
    ("death", "function", "argument"),
    [("crash", "os:_exit", 3), ("timeout", "time:sleep", 60), ("memory", "builtins:bytearray", 1 << 33)],
)
def test_a_death_costs_one_picture(death: str, function: str, argument: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Child, "call", lambda child, *_: list(child.run(function, argument)))
        with pytest.raises(DecoderDiedError) as caught:
            open_untrusted(png(), name="upload", limits=Limits(seconds=0.5 if death == "timeout" else 60))
    assert caught.value.reason == f"decoder-{death}"
    assert caught.value.file == "upload"
    assert caught.value.remedy is not None
    assert open_untrusted(png()).size == (24, 16)


@pytest.mark.parametrize("answer", [None, [2, 2, b"123"], [-1, -4, b""], [10**6, 10**6, b""], ["2", "2", bytes(12)]])
def test_an_answer_that_is_no_picture_is_not_believed(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "call", lambda *_: answer)
    with pytest.raises(DecoderDiedError, match="no picture"):
        open_untrusted(png())


def test_threads_wait_for_one_another_and_other_limits_are_another_child() -> None:
    pictures = [png(20 + number, 10, number) for number in range(8)]
    found: dict[int, tuple[int, int]] = {}

    def read(number: int) -> None:
        found[number] = open_untrusted(pictures[number]).size

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (20 + number, 10) for number in range(8)}
    first = untrusted._kept
    assert first is not None
    open_untrusted(png(), limits=Limits(max_memory=2048))
    assert untrusted._kept is not None
    assert untrusted._kept is not first
    assert untrusted._kept.max_memory == 2 * 1024**3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_child_of_its_own() -> None:
    open_untrusted(png())
    process = untrusted._kept
    assert process is not None
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"own" if untrusted._kept is None else b"ours")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"own"
    os.close(reader)
    os.close(writer)
    assert untrusted._kept is process


def test_the_child_says_a_panic_is_a_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panics(*_: object, **__: object) -> None:
        raise Panic("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr("medtune.imaging.read.open_picture", panics)
    with pytest.raises(UnreadableImageError, match="unwrap"):
        untrusted.decode(png(), "upload", None, Limits())
