"""LLaMA-Factory itself, of the package index and unchanged, reads what medtune prepared and trains on it.

`make llamafactory` makes the environment and runs this file; without it the tests are skipped.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.export.export import export_dataset
from medtune.data.prepare import prepare

HERE = Path(__file__).parent
PYTHON = os.environ.get("MEDTUNE_LLAMAFACTORY_PYTHON")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="needs LLaMA-Factory in an environment of its own: make llamafactory"),
]

STEPS = 2


def made(folder: Path, *, num_text: int, text_length: int = 1, **settings: Any) -> Dataset:
    """Text rows, then rows with pictures; all of them train."""
    folder.mkdir(parents=True)
    words = "What does this slice of a synthetic head show? " * text_length
    text = [{"instruction": f"{number}: {words}", "input": "", "output": f"Number {number}."} for number in range(num_text)]
    (folder / "text.json").write_text(json.dumps(text), encoding="utf-8")
    data = {
        "sources": [
            {"source": "alpaca", "options": {"path": str(folder / "text.json")}},
            {"source": "phantom", "options": {"num_patients": 4, "image_size": 64}, "max_samples": 12},
        ],
        "split": {"fractions": {"train": 1.0, "validation": 0.0, "test": 0.0}},
        **settings,
    }
    prepare(DataSettings.model_validate(data), name="mixed", folder=folder / "mixed")
    return Dataset.open(folder / "mixed")


def llamafactory(family: str, template: str, folder: Path, out: Path, steps: int) -> subprocess.CompletedProcess[str]:
    assert PYTHON is not None
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PYTHONPATH": str(HERE.parent),
        "HF_HOME": str(out / "cache"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [PYTHON, str(HERE / "llamafactory_train.py"), family, template, str(folder), "mixed_train", str(out), str(steps)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def result_of(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert run.returncode == 0, run.stderr[-3000:]
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(("family", "template"), [("qwen2-vl", "qwen2_vl"), ("qwen3-vl", "qwen3_vl_nothink")])
def test_it_trains_on_a_prepared_folder_as_it_stands(family: str, template: str, tmp_path: Path) -> None:
    dataset = made(tmp_path / "data", num_text=8)
    result = result_of(llamafactory(family, template, dataset.folder, tmp_path / "out", STEPS))
    wanted = list(dataset.rows("train"))
    assert result["rows"] == len(wanted) == 20, "LLaMA-Factory drops rows that it cannot use, with a warning"
    assert result["rows_with_pictures"] == result["pictures"] == sum(bool(sample.images) for sample in wanted) == 12
    assert result["picture_tokens"] >= result["pictures"]
    assert len(result["losses"]) == STEPS
    assert all(math.isfinite(loss) and loss > 0 for loss in result["losses"])
    assert (tmp_path / "out" / "run" / "adapter_model.safetensors").stat().st_size > 0


def test_it_reads_a_prepared_folder_with_much_text_before_the_first_picture(tmp_path: Path) -> None:
    """``prepare`` puts one row with a picture at the head; without it LLaMA-Factory reads nothing."""
    dataset = made(tmp_path / "data", num_text=3000, text_length=100)
    rows = dataset.folder / "train.jsonl"
    assert rows.stat().st_size > 11_000_000
    first = result_of(llamafactory("qwen2-vl", "qwen2_vl", dataset.folder, tmp_path / "out", 0))
    assert (first["rows"], first["rows_with_pictures"]) == (100, 1)  # max_samples
    head, _, rest = rows.read_text(encoding="utf-8").partition("\n")
    rows.write_text(f"{rest}{head}\n", encoding="utf-8")
    refused = llamafactory("qwen2-vl", "qwen2_vl", dataset.folder, tmp_path / "refused", 0)
    assert refused.returncode != 0
    assert "string to null" in refused.stderr


def test_it_reads_an_export_of_shards(tmp_path: Path) -> None:
    dataset = made(tmp_path / "data", num_text=3000, text_length=100, storage="shards")
    export_dataset(dataset, tmp_path / "exported", "llamafactory")
    result = result_of(llamafactory("qwen2-vl", "qwen2_vl", tmp_path / "exported", tmp_path / "out", 0))
    assert result["rows"] == 100  # max_samples
    assert result["rows_with_pictures"] == 12
