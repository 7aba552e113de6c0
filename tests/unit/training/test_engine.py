"""What the engine switches on, and that a model comes out of it as it went in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.models.config import FullSettings, LoraSettings
from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.data import EncodedRows, StepCollator
from medtune.training.engine import _Again, decoder_layers, engine, needs_autocast
from medtune.training.loss import TokenLoss
from medtune.types import Event
from tiny_training import Setup, losses, make_setup

EVERYTHING = EngineChoice(packing=True, micro_batch_tokens=512, checkpointing=Checkpointing(every=1, offload=True), compile=True)


def state_of(model: Any) -> dict[str, Any]:
    """All that the engine may touch: classes, attributes, hooks, mode, configuration."""
    found: dict[str, Any] = {
        name: (type(module), sorted(vars(module)), module.training, len(module._forward_hooks), vars(module).get("forward"))
        for name, module in model.named_modules()
    }
    config = model.get_base_model().config
    for name, part in (("config", config), ("text", config.text_config), ("vision", config.vision_config)):
        found[name] = (json.dumps(part.to_dict(), default=str), part._attn_implementation, getattr(part, "use_cache", None))
    return found


@pytest.mark.parametrize("adapter", [LoraSettings(rank=2), LoraSettings(rank=2, dora=True)], ids=["lora", "dora"])
def test_a_model_comes_out_as_it_went_in_also_after_an_error(setup: Setup, adapter: Any) -> None:
    model = setup.model(adapter)
    before = state_of(model)
    with engine(model, EVERYTHING):
        assert state_of(model) != before
    assert state_of(model) == before
    with pytest.raises(ZeroDivisionError), engine(model, EVERYTHING):
        raise ZeroDivisionError
    assert state_of(model) == before


def test_a_forward_that_somebody_else_put_there_is_called_and_comes_back(setup: Setup) -> None:
    """As accelerate's hooks do: the module has a ``forward`` of its own in front of its class's."""
    model = setup.model(LoraSettings(rank=2))
    called: list[str] = []

    def hooked(name: str, module: Any) -> None:
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return own(*args, **kwargs)

        module.forward = forward

    hooked("layer", decoder_layers(model)[0])
    hooked("head", model.get_output_embeddings())
    before = state_of(model)
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    (batch,) = StepCollator(setup.encoder)([[rows[0], rows[1]]])["micro_batches"]
    with engine(model, EngineChoice(checkpointing=Checkpointing(every=1))), contextlib.closing(TokenLoss(model)) as token_loss:
        token_loss(model, batch["inputs"], batch["positions"], batch["targets"])
    assert "layer" in called
    assert state_of(model) == before


@pytest.mark.parametrize("settings", [{}, {"packing": False}, {"vision_cache": "memory", "gradient_checkpointing": "all"}], ids=str)
def test_a_training_that_fails_leaves_the_model_as_it_came(setup: Setup, tmp_path: Path, settings: dict[str, Any]) -> None:
    model = setup.model().eval()
    before = state_of(model)

    def fail(event: Event) -> None:
        if event.kind == "log":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        setup.train(setup.run(tmp_path / "failed"), model=model, listener=fail, **settings)
    assert state_of(model) == before


def test_one_model_may_be_trained_twice_and_asked_in_between(setup: Setup, tmp_path: Path) -> None:
    """The second training goes on from the first one's weights, with the losses of a model that was loaded with them."""
    model = setup.model()
    settings: dict[str, Any] = {"learning_rate": 5e-3, "max_steps": 3, "validation_rows": []}
    first, second, other = (setup.run(tmp_path / name) for name in ("first", "second", "other"))
    setup.train(first, model=model, **settings)
    ids = torch.tensor([[5, 6, 7]])
    answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert answer.shape == (1, 7)
    setup.train(second, model=model, **settings)
    assert first.adapter is not None
    setup.train(other, adapter=LoraSettings(rank=4, init_from=first.adapter), **settings)
    assert losses(second) == pytest.approx(losses(other), abs=1e-5)
    assert losses(second)[1] < losses(first)[1]


@pytest.mark.parametrize(("every", "wanted"), [(1, "xxxxx"), (2, ".x.x."), (3, "..x.."), (5, "x...."), (6, ".....")])
def test_which_layers_compute_again(setup: Setup, every: int, wanted: str) -> None:
    """Of each k layers the first one, in groups counted from the last layer."""
    model: Any = setup.model(FullSettings())
    layers = model.model.language_model.layers
    layers.extend(type(layers[0])(model.config.text_config, number) for number in range(len(layers), 5))
    with engine(model, EngineChoice(checkpointing=Checkpointing(every=every))):
        again = "".join("x" if isinstance(vars(layer).get("forward"), _Again) else "." for layer in decoder_layers(model))
    assert again == wanted
    assert again.count("x") == 5 // every, "as the plan counts them"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, while it traces
def test_layers_of_one_kind_share_one_compiled_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that counts instead of compiling: the number of graphs must not grow with layers and lengths."""
    graphs: list[Any] = []
    compile_with: Callable[..., Any] = torch.compile

    def count(graph: Any, inputs: Any) -> Any:  # noqa: ARG001
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_with(function, backend=count, **options))
    setup = make_setup(tmp_path, family="qwen3", num_rows=8)
    model = setup.model(LoraSettings(rank=2)).train()
    rows = EncodedRows(setup.rows, setup.encoder, setup.image_path)
    collator = StepCollator(setup.encoder, packing=True, longest=512)

    def losses_with(choice: EngineChoice, numbers: list[int]) -> Any:
        (batch,) = collator([[rows[number] for number in numbers]])["micro_batches"]
        with engine(model, choice), contextlib.closing(TokenLoss(model)) as token_loss:
            return token_loss(model, batch["inputs"], batch["positions"], batch["targets"])[0]

    plain, compiled = (EngineChoice(packing=True, compile=value) for value in (False, True))
    torch._dynamo.reset()
    expected = losses_with(plain, [0, 1, 2])
    assert not graphs
    torch.testing.assert_close(losses_with(compiled, [0, 1, 2]), expected, rtol=1e-5, atol=1e-5)
    few = len(graphs)
    assert few
    with engine(model, compiled):
        calls = {id(vars(layer)["forward"].func) for layer in decoder_layers(model)}
    assert len(calls) == 1, "each layer of its own would be a graph of its own"
    losses_with(compiled, [3, 5])
    losses_with(compiled, [7, 6, 1])
    torch._dynamo.reset()
    assert len(graphs) <= 2 * few, "a new length may make the sizes symbols once, not more"


def test_autocast_is_left_out_where_all_is_16_bit_but_the_adapter(setup: Setup) -> None:
    model = setup.model(LoraSettings(rank=2))
    assert needs_autocast(model), "float32 weights"
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    assert not needs_autocast(model)
    with engine(model, EngineChoice(packing=True)):
        assert not needs_autocast(model), "it is asked in the engine, where classes are others"
    assert needs_autocast(setup.model(LoraSettings(rank=2, dora=True)))
    assert needs_autocast(setup.model(FullSettings()))


def test_a_model_without_layers_to_find_refuses_to_compute_again() -> None:
    from medtune.errors import TrainingError

    with (
        pytest.raises(TrainingError, match="cannot recompute"),
        engine(torch.nn.Linear(2, 2), EngineChoice(checkpointing=Checkpointing(every=1))),
    ):
        pass


def test_every_family_shows_its_layers(tmp_path: Path) -> None:
    for family in ("qwen2-vl", "qwen3", "llava"):
        setup = make_setup(tmp_path / family, family=family, num_rows=2)
        assert len(decoder_layers(setup.model())) == 2
