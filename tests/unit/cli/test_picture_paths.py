"""Lines as people paste and drag them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from medtune.cli.picture_paths import read_path, split_pictures

NAMES = [
    "plain.png",
    "my scan 1.png",
    "头部 CT 平扫（左）.PNG",
    "it's.jpg",
    'a "quoted" one.jpeg',
    "100%.png",
    "back\\slash.png",
    "a&b;c$d.webp",
    "a.png copy.png",
    "question?.png",
    "hash#1.png",
    "two.dots.tiff",
    " leading.bmp",
]


def shell_escaped(path: str) -> str:
    """As macOS terminals and readline write a dragged file."""
    return "".join(char if char.isalnum() or char in "/._-" else f"\\{char}" for char in path)


def single_quoted(path: str) -> str:
    """As GNOME Terminal and VTE write it."""
    return "'" + path.replace("'", "'\\''") + "'"


def double_quoted(path: str) -> str:
    """As Windows Terminal and many hands write it."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def address(path: str) -> str:
    return "file://" + quote(path)


def address_of_localhost(path: str) -> str:
    return "file://localhost" + quote(path)


WAYS = [str, shell_escaped, single_quoted, double_quoted, address, address_of_localhost]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "病人 数据" / "it's here"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).touch()
    (folder / "IM0001").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "form", ["{}", " {} ", "{} What is this?", "What is this? {}", "{} 这是什么？", "{}这是什么？", "请看{}", "这是：{}"]
)
def test_a_picture_and_a_question(form: str, name: str, way: object, folder: Path) -> None:
    path = folder / name
    pictures, text = split_pictures(form.format(way(str(path))))  # type: ignore[operator]
    assert pictures == [path]
    assert text == form.format("").strip().rstrip("：")


@pytest.mark.parametrize(
    ("line", "names", "text"),
    [
        ("", [], ""),
        ("What is this?", [], "What is this?"),
        ("plain.png", ["plain.png"], ""),
        ("./plain.png", ["plain.png"], ""),
        ("../it's here/plain.png and?", ["plain.png"], "and?"),
        ("~/plain.png what?", ["plain.png"], "what?"),
        ("“~/my scan 1.png” 这是什么", ["my scan 1.png"], "这是什么"),
        ("my scan 1.png what?", ["my scan 1.png"], "what?"),
        ("plain.png, what is this?", ["plain.png"], "what is this?"),
        ("plain.png. What is this?", ["plain.png"], "What is this?"),
        ("plain.png：这是什么？", ["plain.png"], "这是什么？"),
        ("Is there a lesion in plain.png?", ["plain.png"], "Is there a lesion in?"),
        ("描述这张图片：plain.png。", ["plain.png"], "描述这张图片。"),
        ("plain.png it's.jpg", ["plain.png", "it's.jpg"], ""),
        ("'plain.png' \"my scan 1.png\" 'it'\\''s.jpg' compare", ["plain.png", "my scan 1.png", "it's.jpg"], "compare"),
        ("plain.png compare with my\\ scan\\ 1.png", ["plain.png", "my scan 1.png"], "compare with"),
        ("compare plain.png it's.jpg", ["plain.png", "it's.jpg"], "compare"),
        ("plain.png plain.png same?", ["plain.png", "plain.png"], "same?"),
        ("a.png copy.png", ["a.png copy.png"], ""),
        # A name inside a sentence is a picture only where it exists and stands at an end.
        ("is none.png a good name?", [], "is none.png a good name?"),
        ("what is in none.png", [], "what is in none.png"),
        ("is plain.png sharp enough", [], "is plain.png sharp enough"),
        ("PNG", [], "PNG"),
        ("what's a .png", [], "what's a .png"),
        ("w/o contrast, 3.5 mm / 4 mm?", [], "w/o contrast, 3.5 mm / 4 mm?"),
        ("plain.pngs", [], "plain.pngs"),
        ("see https://example.org/a.png", [], "see https://example.org/a.png"),
        ("https://example.org/a.png what is this", [], "https://example.org/a.png what is this"),
    ],
)
def test_lines(line: str, names: list[str], text: str, folder: Path) -> None:
    pictures, rest = split_pictures(line)
    assert [picture.resolve() for picture in pictures] == [folder / name for name in names]
    assert rest == text


@pytest.mark.parametrize(
    ("line", "path", "text"),
    [
        ("/data/none.png", "/data/none.png", ""),
        ("/data/none.png what is this?", "/data/none.png", "what is this?"),
        ("what is this? /data/none.png", "/data/none.png", "what is this?"),
        ("这是什么 /data/没有.png", "/data/没有.png", "这是什么"),
        ("'/data/my none.png' what?", "/data/my none.png", "what?"),
        ("/data/my\\ none.png what?", "/data/my none.png", "what?"),
        ("file:///data/%E6%B2%A1%E6%9C%89.png what?", "/data/没有.png", "what?"),
        ("~nobody-here/none.png", "~nobody-here/none.png", ""),
        ("./none.png", "none.png", ""),
        ("none.png", "none.png", ""),
        ("none.png what is this?", "none.png", "what is this?"),
        ("none.PNG, what is this?", "none.PNG", "what is this?"),
        ("scans/none.png 这是什么？", "scans/none.png", "这是什么？"),
        ("what is this? scans/none.png", "scans/none.png", "what is this?"),
        ("C:\\Users\\zhang\\none.png what?", "C:\\Users\\zhang\\none.png", "what?"),
        ('"C:\\Users\\li si\\none.png"', "C:\\Users\\li si\\none.png", ""),
        ("\\\\server\\share\\none.png", "\\\\server\\share\\none.png", ""),
        ("/data/study.dcm", "/data/study.dcm", ""),
    ],
)
def test_a_path_that_names_no_file_is_not_taken_for_words(line: str, path: str, text: str, folder: Path) -> None:  # noqa: ARG001
    assert split_pictures(line) == ([Path(path)], text)


def test_a_file_without_suffix_alone_on_the_line(folder: Path) -> None:
    assert split_pictures(f"{folder}/IM0001") == ([folder / "IM0001"], "")
    assert split_pictures("IM0001") == ([], "IM0001")


def test_a_windows_drive_is_found_where_wsl_mounts_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(Path, "is_file", lambda path: str(path) == "/mnt/d/scans/a b.png")
    assert split_pictures('"D:\\scans\\a b.png" what?') == ([Path("/mnt/d/scans/a b.png")], "what?")


@pytest.mark.parametrize(
    "line", ["/" + "x" * 5000 + ".png", "/a\0b.png", "'unclosed.png", "\\", "'", "file://", "file://[::1/a.png", "~.png"]
)
def test_odd_lines_do_no_harm(line: str, folder: Path) -> None:  # noqa: ARG001
    split_pictures(line)
    split_pictures(f"what {line}")
    read_path(line)


def test_a_long_text_is_quick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    looked: list[str] = []
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(str(path)) or False)
    split_pictures("描述这张图片" * 200)
    assert looked == []
    split_pictures("describe " * 200 + "x.png")
    assert len(looked) < 2000
