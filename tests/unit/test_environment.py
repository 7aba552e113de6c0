"""What ``medtune doctor`` says of the parts of the engine."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from medtune.environment import Finding, examine
from medtune.models.compiler import c_compiler, missing_for_compiling


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    """The findings on a machine with a GPU that lacks what is named."""
    there = importlib.util.find_spec

    def found(*lacks: str, capability: tuple[int, int] = (9, 0)) -> dict[str, Finding]:
        def spec(name: str) -> ModuleSpec | None:
            if name in lacks:
                return None
            return there("json") if name == "triton" else there(name)

        (tmp_path / "Python.h").touch()
        monkeypatch.setattr(importlib.util, "find_spec", spec)
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: None if name in lacks else f"/usr/bin/{name}")
        monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / ("none" if "Python.h" in lacks else "")))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        return {finding.subject: finding for finding in examine()}

    return found


def test_a_machine_with_all_of_it_is_sound(machine: Callable[..., dict[str, Finding]]) -> None:
    findings = machine()
    assert findings["torch.compile"].status == "ok"
    assert "/usr/bin/gcc" in findings["torch.compile"].detail.render("en")
    assert findings["packed attention"].status == "ok"
    assert machine("gcc")["torch.compile"].status == "ok", "clang will do"


@pytest.mark.parametrize(
    ("lacks", "remedy"),
    [(("triton",), "pytorch.org"), (("gcc", "clang"), "apt install gcc"), (("Python.h",), "apt install python3-dev")],
)
def test_what_compiling_lacks_is_named_with_its_remedy(
    machine: Callable[..., dict[str, Finding]], lacks: tuple[str, ...], remedy: str
) -> None:
    finding = machine(*lacks)["torch.compile"]
    assert finding.status == "note"
    assert finding.remedy is not None
    assert remedy in finding.remedy.render("en")
    assert finding.remedy.render("zh") != finding.remedy.render("en")


def test_a_kernel_that_torch_or_the_gpu_has_not_is_named(machine: Callable[..., dict[str, Finding]]) -> None:
    assert machine("torch.nn.attention.varlen")["packed attention"].status == "note"
    assert machine(capability=(7, 0))["packed attention"].status == "note"


def test_without_a_gpu_nothing_of_it_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    findings = {finding.subject: finding for finding in examine()}
    assert findings["torch.compile"].status == findings["packed attention"].status == "ok"
    assert findings["torch.compile"].remedy is None


def test_packages_that_settings_need_are_listed(machine: Callable[..., dict[str, Finding]]) -> None:
    findings = machine("bitsandbytes", "deepspeed", "optuna")
    for package in ("bitsandbytes", "deepspeed", "optuna"):
        assert findings[package].status == "note"
        assert findings[package].remedy is not None


def test_the_compiler_that_cc_names_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}" if name in ("cc-13", "gcc") else None)
    monkeypatch.setenv("CC", "cc-13 -O2")
    assert c_compiler() == "/opt/cc-13"
    monkeypatch.setenv("CC", "none-such")
    assert c_compiler() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    missing = missing_for_compiling()
    assert missing is not None
    assert missing.what.render("en") == "there is no C compiler"
