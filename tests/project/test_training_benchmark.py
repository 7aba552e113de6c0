"""What ``benchmarks/train.py`` computes from what it measures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("speed", "material", "stages"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def log(step: int, seconds: float, waited: float) -> dict[str, Any]:
    values = {"tokens_per_second": 1.0, "loss": 2.0, "data_wait_share": waited}
    return {"kind": "log", "done": step, "seconds": seconds, **values}


def test_the_first_steps_do_not_count() -> None:
    from speed import marks_of, window

    marks = marks_of([log(1, 30, 0.9), log(5, 40, 0.9), {"kind": "progress", "done": 6}, log(10, 45, 0.1), log(20, 65, 0.2)])
    found = window(marks, 5, None, rows_a_step=16)
    assert found["steps"] == [6, 20]
    assert found["samples_per_second"] == pytest.approx(15 * 16 / 25)
    assert (found["fastest_step"], found["slowest_step"]) == (1.0, 2.0)
    assert found["data_wait_share"] == pytest.approx((5 * 0.1 + 20 * 0.2) / 25)
    assert window(marks, 5, 9, rows_a_step=16) == {}


def test_ratios_are_to_the_peers_best_and_to_its_reference() -> None:
    from speed import table

    machine: dict[str, Any] = {"model": "m", "machine": {}, "ceiling": None, "fault": None, "losses": [3.0, 2.0]}
    rates = {"steps": [6, 20], "seconds_a_step": 1.0, "fastest_step": 1.0, "slowest_step": 1.0}
    rows = [
        {**machine, **rates, "program": "medtune", "setting": "vision cached", "samples_per_second": 30.0},
        {**machine, **rates, "program": "LLaMA-Factory", "setting": "8 x 2, checkpointing off", "samples_per_second": 12.0},
        {**machine, **rates, "program": "LLaMA-Factory", "setting": "2 x 8, checkpointing on", "samples_per_second": 4.0},
        {**machine, "program": "LLaMA-Factory", "setting": "8 x 2, checkpointing on", "fault": "cut after 1 s"},
    ]
    lines = table(rows).splitlines()
    assert next(line for line in lines if "vision cached" in line).endswith("| 2.50 | 7.50 |")
    assert next(line for line in lines if "8 x 2, checkpointing on" in line).endswith("| - | - |")


def test_useful_work_counts_chosen_experts_only_and_no_gradient_of_frozen_weights() -> None:
    import torch
    from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

    from material import shape_of

    text = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    text |= {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "vocab_size": 50, "pad_token_id": None}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    vision = {"depth": 1, "hidden_size": 8, "num_heads": 2, "intermediate_size": 4, "out_hidden_size": 16}
    config = Qwen3VLMoeConfig(text_config=text, vision_config={**vision, "deepstack_visual_indexes": []})
    with torch.device("meta"):
        shape = shape_of(Qwen3VLMoeForConditionalGeneration(config), config)
    attention, router, experts = 16 * (16 + 8 + 8 + 16), 4 * 16, 4 * 3 * 16 * 8
    assert shape.text_weights == attention + router + experts // 4
    assert shape.head_weights == 50 * 16
    patches = 32 * 32
    block = 4 * 8 * 8 + 2 * 8 * 4
    embedding, merger = 3 * 2 * 16 * 16 * 8, 32 * 32 + 32 * 16
    wanted = 2 * patches * (block + embedding) + 2 * merger * patches // 4 + 4 * patches**2 * 8
    assert shape.vision_flops == wanted
    assert shape.useful_flops(10) == 40 * (shape.text_weights + 800) + wanted


def test_results_replace_those_of_the_same_stage(tmp_path: Path) -> None:
    from stages import append_results, read_results

    file = tmp_path / "out.json"
    append_results(file, [{"stage": "a", "value": 1}, {"stage": "b", "value": 2}], names=("stage",))
    append_results(file, [{"stage": "a", "value": 3}], names=("stage",))
    assert [row["value"] for row in read_results(file)] == [2, 3]


def test_a_stage_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    from stages import run

    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    assert run([sys.executable, "-c", code], tmp_path / "log", limit=1.0, environment={}) == "cut after 1 s"
    state = Path(f"/proc/{(tmp_path / 'log').read_text().strip()}/stat")
    assert not state.exists() or ") Z " in state.read_text()
