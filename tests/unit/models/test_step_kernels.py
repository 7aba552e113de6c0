"""The kernels of a decoding step beside torch's operations. Triton interprets them on a CPU (``TRITON_INTERPRET=1``), in a process
of its own because it reads that variable when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.models.step_operations import TorchOperations

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = torch.cuda.is_available()

if not INTERPRETED and not CUDA:

    def test_interpreted() -> None:
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        files = [__file__, Path(__file__).with_name("test_product_kernels.py")]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert " passed" in ended.stdout
        assert "skipped" not in ended.stdout

else:
    from medtune.models import step_kernels
    from medtune.models.step_kernels import TritonOperations, can_run, serves

    DEVICE = torch.device("cuda" if CUDA else "cpu")
    TYPES = [torch.float32, torch.bfloat16] if CUDA else [torch.float32]

    class Norm(torch.nn.Module):
        """As transformers' are."""

        def __init__(self, width: int, dtype: torch.dtype, eps: float = 1e-6) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(width, device=DEVICE, dtype=dtype) + 0.5)
            self.variance_epsilon = eps

    def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
        loose = {} if found.dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        torch.testing.assert_close(found, wanted, **loose)

    def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE, dtype=dtype)

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("width", [48, 64, 2048])
    def test_add_norm(width: int, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        hidden, added, norm = drawn(2, 3, width, dtype=dtype), drawn(2, 3, width, dtype=dtype), Norm(width, dtype)
        with torch.inference_mode():
            for more in (None, added):
                wanted = TorchOperations().add_norm(hidden, more, norm)
                found = TritonOperations(DEVICE, dtype).add_norm(hidden.clone(), more, norm)
                close(found[0], wanted[0])
                close(found[1], wanted[1])

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("normed", [False, True])
    def test_rotate_and_keep(normed: bool, dtype: torch.dtype) -> None:
        """Of a part of a wider matrix, as side by side projections give it."""
        torch.manual_seed(0)
        tokens, heads, key_heads, width = 5, 4, 2, 16
        wide = drawn(tokens, (heads + 2 * key_heads) * width, dtype=dtype)
        norms = (Norm(width, dtype), Norm(width, dtype, 1e-2)) if normed else (None, None)
        angles = torch.rand(tokens, width, device=DEVICE, dtype=dtype)
        rows = torch.tensor([0, 0, 0, 2, 2], device=DEVICE)
        slots = torch.tensor([0, 1, 2, 0, 7], device=DEVICE)

        def run(operations: TorchOperations | TritonOperations) -> list[torch.Tensor]:
            parts = torch.split(wide.clone(), [heads * width, key_heads * width, key_heads * width], dim=-1)
            query, key, value = (part.view(tokens, -1, width) for part in parts)
            kept = torch.zeros(3, key_heads, 8, width, device=DEVICE, dtype=dtype)
            also = torch.zeros_like(kept)
            turned = operations.rotate_and_keep(query, key, value, norms, angles.cos(), angles.sin(), kept, also, rows, slots)
            return [*turned, kept, also]

        with torch.inference_mode():
            for found, wanted in zip(run(TritonOperations(DEVICE, dtype)), run(TorchOperations()), strict=True):
                close(found, wanted)

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("split", [True, False])
    @pytest.mark.parametrize(("rows", "heads", "key_heads", "width"), [(4, 8, 2, 16), (1, 2, 2, 32)])
    def test_attend(
        rows: int, heads: int, key_heads: int, width: int, split: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows of very different length; over several parts, and as where there are so many rows that none is split."""
        torch.manual_seed(0)
        if not split:
            monkeypatch.setattr(step_kernels, "_PROGRAMS", 1)
        slots = 320
        keys, values = drawn(rows + 1, key_heads, slots, width, dtype=dtype), drawn(rows + 1, key_heads, slots, width, dtype=dtype)
        query = drawn(rows, heads, width, dtype=dtype)
        last = torch.tensor([[0, 63, 64, slots - 1][row % 4] % slots for row in reversed(range(rows))], device=DEVICE)
        for row, slot in enumerate(last.tolist()):
            keys[row, :, slot + 1 :] = float("nan")  # what lies behind a row's last token is anything
        with torch.inference_mode():
            plain, fused = TorchOperations(), TritonOperations(DEVICE, dtype)
            wanted = plain.attend(query, keys.nan_to_num(), values, plain.seen(last, slots, dtype), 0.3)
            found = fused.attend(query, keys, values, fused.seen(last, slots, dtype), 0.3)
        close(found, wanted)

    @pytest.mark.parametrize("dtype", TYPES)
    def test_gated(dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        gate, up = torch.split(drawn(2, 3, 2 * 1500, dtype=dtype), 1500, dim=-1)
        with torch.inference_mode():
            close(TritonOperations(DEVICE, dtype).gated(gate, up), torch.nn.functional.silu(gate) * up)

    @pytest.mark.parametrize("dtype", TYPES)
    def test_gated_of_one_token_a_row(dtype: torch.dtype) -> None:
        """The stride of a dimension of one says nothing about where the next row begins."""
        torch.manual_seed(0)
        gate, up = (part.view(4, 1, -1) for part in torch.split(drawn(4, 2 * 48, dtype=dtype), 48, dim=-1))
        with torch.inference_mode():
            close(TritonOperations(DEVICE, dtype).gated(gate, up), torch.nn.functional.silu(gate) * up)

    @pytest.mark.parametrize(("width", "dtype"), [*((48, dtype) for dtype in TYPES), (128, torch.float16)])
    @pytest.mark.parametrize("copied", [False, True])
    def test_a_decoder_with_an_adapter(copied: bool, width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two prompts of different length and two steps of both, with what layers hand to each other as it really lies; 128 wide
        in 16 bits also the products are the kernels'."""
        from medtune.models import decoder as decoders

        monkeypatch.setattr(decoders, "_room_for_copies", lambda layers: copied)  # noqa: ARG005
        model = adapted(width, dtype)
        lengths = [5, 3]
        rows = torch.tensor(lengths, device=DEVICE)
        ids = torch.randint(0, 50, (1, sum(lengths)), device=DEVICE)
        places = torch.cat([torch.arange(length) for length in lengths]).to(DEVICE)
        borders = torch.tensor([0, 5, 8], dtype=torch.int32, device=DEVICE)

        def run(operations: TorchOperations | TritonOperations) -> list[torch.Tensor]:
            decoder = decoders.Decoder(model)
            decoder.operations = operations
            cache = decoder.cache(3, 128)
            found = [
                decoder.prefill(
                    cache,
                    input_ids=ids,
                    position_ids=places[None],
                    borders=borders,
                    longest=5,
                    rows=torch.arange(2, device=DEVICE).repeat_interleave(rows),
                    slots=places,
                )
            ]
            for step in range(2):
                slots = torch.tensor([5 + step, 3 + step, 0], device=DEVICE)
                found.append(decoder.step(cache, torch.tensor([7, 8, 9], device=DEVICE), slots, slots, 128))
            return found

        fused = TritonOperations(DEVICE, dtype)
        assert fused._multiplies == (dtype != torch.float32)
        with torch.inference_mode():
            few = [projections.few for layer in decoders.Decoder(model)._layers for projections in (layer.qkv, layer.output)]
            assert [each is not None for each in few] == ([copied, True] if width == 128 else [False, False]) * 2
            for found, wanted in zip(run(fused), run(TorchOperations()), strict=True):
                close(found.to(dtype), wanted.to(dtype))  # scores are float32 whatever they were computed from

    def adapted(width: int, dtype: torch.dtype) -> torch.nn.Module:
        """Two layers of Qwen3 with LoRA on every matrix."""
        from peft import LoraConfig, get_peft_model
        from transformers import Qwen3Config, Qwen3ForCausalLM

        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=50,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32 if width == 128 else 16,
        )
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        base: Any = Qwen3ForCausalLM(config)
        model = get_peft_model(base.to(DEVICE, dtype), LoraConfig(r=4, target_modules=targets))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()

    def test_which_layers_are_served() -> None:
        from types import SimpleNamespace

        norm = Norm(16, torch.float32)
        attention = SimpleNamespace(q_norm=norm, k_norm=norm)
        mlp = SimpleNamespace(gate_proj=None, act_fn=torch.nn.SiLU())
        layer = SimpleNamespace(input_layernorm=norm, post_attention_layernorm=norm, self_attn=attention, mlp=mlp)
        text = SimpleNamespace(layers=[layer], norm=norm)
        assert serves(text, head_dim=16, dtype=torch.float32)
        assert not serves(text, head_dim=24, dtype=torch.float32)
        assert not serves(text, head_dim=16, dtype=torch.bfloat16)
        mlp.act_fn = torch.nn.GELU()
        assert not serves(text, head_dim=16, dtype=torch.float32)
        mlp.act_fn = torch.nn.SiLU()
        text.norm = torch.nn.LayerNorm(16)
        assert not serves(text, head_dim=16, dtype=torch.float32)

    def test_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
        assert can_run(DEVICE, torch.float32, heads=4, key_heads=2, head_dim=16)

        def scarce(*_: object) -> None:
            raise RuntimeError("out of resource: shared memory\nmore")

        monkeypatch.setattr(TritonOperations, "attend", scarce)
        assert not can_run(DEVICE, torch.float32, heads=4, key_heads=2, head_dim=32)
