"""Chat templates that do odd things."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.errors import DataError, ModelError
from medtune.models.config import ModelSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.types import IGNORE_INDEX, Features, Message
from tiny_models import CHAT_TEMPLATES, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("qwen3") / "base", "qwen3")


def encoder_with(folder: Path, template: str | None) -> Encoder:
    path = folder / "chat_template.jinja"
    if template is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(template, encoding="utf-8")
    return load_encoder(ModelSettings(base=str(folder)))


TURNS = [
    Message(role="user", content="One?"),
    Message(role="assistant", content="First."),
    Message(role="user", content="Two?"),
    Message(role="assistant", content="Second."),
]


def supervised(encoder: Encoder, turns: list[Message]) -> str:
    features = encoder.encode(turns)
    return str(encoder.tokenizer.decode([int(label) for label in features.labels if label != IGNORE_INDEX]))


def test_a_template_without_end_tokens_gets_the_tokenizers(folder: Path) -> None:
    encoder = encoder_with(
        folder,
        "{% for m in messages %}{{ m.role.upper() + ': ' + m.content + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}",
    )
    assert supervised(encoder, TURNS) == "First.<|im_end|>Second.<|im_end|>"
    assert (
        encoder.tokenizer.decode(encoder.encode(TURNS[:3]).input_ids)
        == "USER: One? ASSISTANT: First.<|im_end|> USER: Two? ASSISTANT: "
    )


def test_a_template_that_ends_with_the_answer(folder: Path) -> None:
    encoder = encoder_with(
        folder,
        "{% for m in messages %}{{ ('' if loop.first else ' ') + m.role.upper() + ': ' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' ASSISTANT: ' }}{% endif %}",
    )
    assert supervised(encoder, TURNS) == "First.<|im_end|>Second.<|im_end|>"


def test_contents_are_not_changed_by_the_template(folder: Path) -> None:
    encoder = encoder_with(folder, CHAT_TEMPLATES["qwen3"].replace("{{ message.content }}", "{{ message.content | trim | upper }}"))
    turns = [Message(role="user", content=" a "), Message(role="assistant", content=" b\n")]
    assert supervised(encoder, turns) == " b\n<|im_end|>"


def test_a_template_that_loses_a_turn(folder: Path) -> None:
    with pytest.raises(ModelError, match="loses or repeats"):
        encoder_with(folder, "{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}")


def test_a_template_whose_prompt_is_not_the_beginning(folder: Path) -> None:
    template = "{% if not add_generation_prompt %}whole {% endif %}" + CHAT_TEMPLATES["qwen3"]
    with pytest.raises(ModelError, match="not the beginning"):
        encoder_with(folder, template)


def test_a_template_that_refuses(folder: Path) -> None:
    encoder = encoder_with(
        folder, "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATES["qwen3"]
    )
    with pytest.raises(ModelError, match="refuses this conversation: no system"):
        encoder.encode([Message(role="system", content="x"), *TURNS])


def test_no_template(folder: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        encoder_with(folder, None)


def test_a_thought_in_the_answer_after_an_empty_one(folder: Path) -> None:
    encoder = encoder_with(folder, CHAT_TEMPLATES["qwen3"])
    thoughtful = Message(role="assistant", content="<think>\nhm\n</think>\n\nYes.")
    with pytest.raises(DataError, match="empty one before it") as caught:
        encoder.encode([TURNS[0], thoughtful], sample_id="t")
    assert caught.value.sample == "t"
    # An earlier turn has no empty thought in front of it.
    assert "hm" in supervised(encoder, [TURNS[0], thoughtful, *TURNS[2:]])


def test_a_mark_of_ours_in_a_row_is_text(folder: Path) -> None:
    encoder = encoder_with(folder, CHAT_TEMPLATES["qwen3"])
    turns = [Message(role="user", content="MEDTUNEPART0001"), Message(role="assistant", content="MEDTUNEPART0000 {{ x }}")]
    assert supervised(encoder, turns) == "MEDTUNEPART0000 {{ x }}<|im_end|>"


def test_a_label_that_the_shift_drops_is_not_counted(folder: Path) -> None:
    import torch

    encoder = encoder_with(folder, CHAT_TEMPLATES["qwen3"])
    row = Features("a", torch.tensor([1, 2, 3]), torch.tensor([1, 2, IGNORE_INDEX]))
    batch = encoder.collate([row, Features("b", torch.tensor([4]), torch.tensor([4]))], padding="left")
    assert batch.num_target_tokens == 2
    assert batch.inputs["labels"].tolist() == [[1, 2, IGNORE_INDEX], [IGNORE_INDEX, IGNORE_INDEX, 4]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="at least one row"):
        encoder.collate([])


def test_encoders_travel_to_worker_processes(folder: Path) -> None:
    import pickle

    encoder = encoder_with(folder, CHAT_TEMPLATES["qwen3"])
    expected = encoder.encode(TURNS).input_ids.tolist()
    assert pickle.loads(pickle.dumps(encoder)).encode(TURNS).input_ids.tolist() == expected
