"""The part of vLLM's documented interface that medtune uses, on transformers: for machines without vLLM.

Names and behaviour as in vLLM 0.32 (docs.vllm.ai): ``LLM``, ``SamplingParams``, ``LoRARequest``, and the engine's ``add_request``,
``step`` and ``abort_request``. Placeholders of pictures are widened and pictures resized here, from the model's own files, so
that a prompt which was prepared wrongly gives other tokens. ``deaf`` names parts of modules on which adapters are left out in
silence.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@dataclass
class SamplingParams:
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    stop_token_ids: list[int] = field(default_factory=list)
    detokenize: bool = True
    logprob_token_ids: list[int] | None = None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class _Row:
    number: str
    model: Any
    inputs: dict[str, Any]
    params: SamplingParams
    ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Any]] = field(default_factory=list)


class Engine:
    def __init__(self, folder: Path, options: dict[str, Any], deaf: tuple[str, ...]) -> None:
        import transformers

        self._folder, self._options, self._deaf = folder, options, deaf
        self._models: dict[str | None, Any] = {}
        self._rows: list[_Row] = []
        self._config = transformers.AutoConfig.from_pretrained(folder)
        self.engine_core = SimpleNamespace(shutdown=self._models.clear)
        self.aborted: list[str] = []

    def add_request(self, number: str, prompt: dict[str, Any], params: SamplingParams, lora_request: Any = None) -> str:
        assert params.temperature == 0, "the stand-in only knows the most probable token"
        assert len(params.logprob_token_ids or ()) <= self._options["max_logprobs"]
        assert lora_request is None or self._options["enable_lora"]
        ids, inputs = self._widened(prompt["prompt_token_ids"], prompt.get("multi_modal_data", {}).get("image", []))
        assert len(ids) + params.max_tokens <= self._options["max_model_len"]
        self._rows.append(_Row(number, self._model(None if lora_request is None else lora_request.lora_path), inputs, params))
        self._rows[-1].inputs["prompt"] = ids
        return number

    def step(self) -> list[Any]:
        import torch

        outputs = []
        for row in self._rows[: self._options["max_num_seqs"]]:
            prompt = row.inputs["prompt"]
            given = {name: value for name, value in row.inputs.items() if name != "prompt"}
            ids = torch.tensor([prompt + row.ids])
            if "image_grid_thw" in given:
                given["mm_token_type_ids"] = (ids == self._config.image_token_id).long()
            with torch.inference_mode():
                logprobs = row.model(input_ids=ids, **given).logits[0, -1].log_softmax(-1)
            token = int(logprobs.argmax())
            row.ids.append(token)
            row.logprobs.append(
                {i: SimpleNamespace(logprob=float(logprobs[i])) for i in {token, *(row.params.logprob_token_ids or ())}}
            )
            stopped = token in row.params.stop_token_ids
            reason = "stop" if stopped else "length" if len(row.ids) == row.params.max_tokens else None
            completion = SimpleNamespace(token_ids=list(row.ids), finish_reason=reason, logprobs=row.logprobs)
            finished = reason is not None
            outputs.append(SimpleNamespace(request_id=row.number, finished=finished, outputs=[completion], prompt_token_ids=prompt))
        done = {output.request_id for output in outputs if output.finished}
        self._rows = [row for row in self._rows if row.number not in done]
        return outputs

    def abort_request(self, numbers: list[str]) -> None:
        self.aborted += numbers
        self._rows = [row for row in self._rows if row.number not in numbers]

    def _widened(self, ids: list[int], pictures: list[Any]) -> tuple[list[int], dict[str, Any]]:
        if not pictures:
            return list(ids), {}
        import json

        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        own = json.loads((self._folder / "preprocessor_config.json").read_text())
        own = {name: own[name] for name in ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")}
        processor = Qwen2VLImageProcessorPil(**own, **self._options["mm_processor_kwargs"])
        features = processor(images=pictures, return_tensors="pt")
        counts = [int(grid.prod()) // processor.merge_size**2 for grid in features["image_grid_thw"]]
        wide: list[int] = []
        for token in ids:
            wide += [token] * (counts.pop(0) if token == self._config.image_token_id else 1)
        assert not counts
        return wide, {name: features[name] for name in ("pixel_values", "image_grid_thw")}

    def _model(self, adapter: str | None) -> Any:
        if adapter not in self._models:
            import torch
            import transformers

            loader = getattr(transformers, self._config.architectures[0])
            model = loader.from_pretrained(self._folder, dtype=self._options["dtype"]).eval()
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, adapter).eval()
                for name, parameter in model.named_parameters():
                    if ".lora_B." in name and any(part in name for part in self._deaf):
                        torch.nn.init.zeros_(parameter)
            self._models[adapter] = model
        return self._models[adapter]


def install(monkeypatch: pytest.MonkeyPatch, *, deaf: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Make ``import vllm`` find the stand-in; returns the options of every ``LLM`` that is made."""
    made: list[dict[str, Any]] = []

    class LLM:
        def __init__(self, *, model: str, **options: Any) -> None:
            made.append(options)
            self.llm_engine = Engine(Path(model), options, deaf)

    vllm, lora, request, distributed = (
        types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request", "vllm.distributed")
    )
    vars(vllm).update(LLM=LLM, SamplingParams=SamplingParams, __version__="0.32.0 (stand-in)")
    vars(request).update(LoRARequest=LoRARequest)
    vars(distributed).update(cleanup_dist_env_and_memory=lambda: None)
    for module in (vllm, lora, request, distributed):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made
