from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from medtune.generation.config import EchoSettings, GenerationSettings, HfSettings, OpenAiSettings, VllmSettings


def test_default_is_greedy_and_local() -> None:
    settings = GenerationSettings()
    assert isinstance(settings.generator, HfSettings)
    assert settings.sampling.temperature == 0


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"kind": "hf"}, HfSettings),
        ({"kind": "vllm", "dtype": "bfloat16", "max_model_len": 4096}, VllmSettings),
        ({"kind": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "tiny"}, OpenAiSettings),
        ({"kind": "echo", "answers": ["yes"]}, EchoSettings),
    ],
)
def test_kinds(raw: dict[str, object], kind: type) -> None:
    assert isinstance(GenerationSettings.model_validate({"generator": raw}).generator, kind)


@pytest.mark.parametrize(
    "raw",
    [
        {"generator": {"kind": "sglang"}},
        {"generator": {"kind": "openai", "model": "tiny"}},
        {"generator": {"kind": "openai", "base_url": "localhost:8000", "model": "tiny"}},
        {"generator": {"kind": "hf", "answers": ["yes"]}},
        {"batch_size": 0},
        {"num_processes": 0},
        {"generator": {"kind": "vllm", "gpu_memory_utilization": 1.1}},
        {"generator": {"kind": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "tiny", "requests_per_minute": 0}},
        {"sampling": {"temperature": -1}},
    ],
)
def test_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerationSettings.model_validate(raw)


def test_reading_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys, medtune.generation.config\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'PIL', 'httpx', 'httpx2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
