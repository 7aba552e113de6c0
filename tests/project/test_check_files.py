"""The file check of ``make check`` and of the commit hooks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check_files() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_files", ROOT / ".ci" / "check_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sound_files_pass(check_files: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("learning_rate: 2e-4\n", encoding="utf-8")
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe\x00")
    assert check_files.main([str(path) for path in tmp_path.iterdir()]) == 0


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.yaml", "key: [1, 2\n", "cannot be parsed"),
        ("a.json", '{"key": }', "cannot be parsed"),
        ("a.py", "<" * 7 + " ours\n", "line 1 is a conflict mark"),
    ],
)
def test_an_unsound_file_is_named_with_the_reason(
    check_files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, reason: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert check_files.main([str(tmp_path / name)]) == 1
    message = capsys.readouterr().err
    assert name in message
    assert reason in message


def test_a_large_file_is_refused(check_files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "weights.safetensors").open("wb") as file:
        file.truncate(check_files.MAX_BYTES + 1)
    assert check_files.main([str(tmp_path / "weights.safetensors")]) == 1
    assert "the limit is" in capsys.readouterr().err


def test_the_hooks_fetch_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    named = {hook["id"] for hook in hooks["repos"][0]["hooks"]}
    assert {"ruff", "ruff-format", "mypy", "files"} <= named
