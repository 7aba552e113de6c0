"""What every registered model family promises, on a tiny random model of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medtune.errors import DataError, MedtuneError, ModelError, RecipeError
from medtune.models.adapter import AdapterReport, adapter_report, add_adapter
from medtune.models.config import SCOPES, FullSettings, LoraSettings, ModelSettings, Scope
from medtune.models.contract import write_contract
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.family import Family, find_family
from medtune.models.hub import read_config
from medtune.models.load import load_model
from medtune.plugins import BUILT_IN, resolve
from medtune.types import IGNORE_INDEX, Features, Message
from tiny_models import tiny_model

FAMILIES = list(BUILT_IN["family"])
TINY = {"auto": "llava"}


@dataclass
class Subject:
    family: Family
    folder: Path
    settings: ModelSettings
    encoder: Encoder
    model: Any

    @property
    def sees(self) -> bool:
        return self.family.pictures != "none"


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    name: str = request.param
    folder = tiny_model(tmp_path_factory.mktemp(name) / "base", TINY.get(name, name))
    settings = ModelSettings(base=str(folder), dtype="float32")
    return Subject(resolve("family", name), folder, settings, load_encoder(settings), load_model(settings, device="cpu"))


def picture(width: int, height: int, shade: int) -> Image.Image:
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    return Image.blend(image, Image.new("RGB", (width, height), (shade, 255 - shade, 7)), 0.5)


def rows(subject: Subject) -> list[tuple[list[Message], list[Image.Image]]]:
    """Conversations of different shapes: one turn, several pictures, several turns, a system message, no picture."""
    mark = "<image>" if subject.sees else ""
    images = [picture(100, 80, 10), picture(61, 130, 200)] if subject.sees else []
    user, assistant = (lambda text: Message(role="user", content=text)), (lambda text: Message(role="assistant", content=text))
    return [
        ([user(f"{mark}What is this?"), assistant("A lesion, 4.5 cm.")], images[:1]),
        ([user(f"{mark}\nFirst,\n{mark} second?  "), assistant(" yes\n")], images),
        ([user(f"{mark}One?"), assistant("No."), user(f"And {mark} two?"), assistant("未见异常。")], images),
        ([Message(role="system", content="Be brief."), user(f"{mark}Describe."), assistant("Normal chest.")], images[:1]),
        ([user("Is a CT an X-ray?"), assistant("Yes.")], []),
    ]


def supervised(features: Features) -> list[int]:
    return [int(label) for label in features.labels if label != IGNORE_INDEX]


def test_found_from_its_own_config(subject: Subject) -> None:
    assert find_family(read_config(subject.folder), None) is subject.family
    assert subject.encoder.family is subject.family


def test_prompt_is_the_beginning_of_the_conversation(subject: Subject) -> None:
    for messages, images in rows(subject):
        whole = subject.encoder.encode(messages, images)
        prompt = subject.encoder.encode(messages[:-1], images)
        assert prompt.input_ids.tolist() == whole.input_ids[: len(prompt.input_ids)].tolist()
        assert supervised(prompt) == []
        # What follows the prompt begins with the answer.
        assert whole.labels[len(prompt.input_ids)] == whole.input_ids[len(prompt.input_ids)]


def test_supervised_tokens_are_the_answers_and_their_end(subject: Subject) -> None:
    end = subject.encoder.tokenizer.decode([subject.encoder.end_token_ids[0]])
    for messages, images in rows(subject):
        features = subject.encoder.encode(messages, images)
        ids = supervised(features)
        answers = [message.content for message in messages if message.role == "assistant"]
        assert len(ids) > len(answers)
        assert subject.encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "".join(
            answer + end for answer in answers
        )
        carrying = features.labels != IGNORE_INDEX
        assert torch.equal(features.labels[carrying], features.input_ids[carrying])


def test_only_the_last_answer_when_asked(subject: Subject) -> None:
    encoder = load_encoder(subject.settings.model_copy(update={"supervise": "last"}))
    messages, images = rows(subject)[2]
    end = encoder.tokenizer.decode([encoder.end_token_ids[0]])
    features = encoder.encode(messages, images)
    assert encoder.tokenizer.decode(supervised(features)) == messages[-1].content + end
    assert torch.equal(features.input_ids, subject.encoder.encode(messages, images).input_ids)


def test_count_equals_length(subject: Subject) -> None:
    for messages, images in rows(subject):
        sizes = [image.size for image in images]
        assert subject.encoder.count_tokens(messages, sizes) == len(subject.encoder.encode(messages, images).input_ids)


def test_image_tokens_match_pixel_tensors(subject: Subject) -> None:
    if not subject.sees:
        with pytest.raises(DataError, match="reads text only"):
            subject.encoder.encode([Message(role="user", content="<image>What?")], [picture(64, 64, 0)], sample_id="a")
        return
    token = subject.encoder.image_token_id
    for messages, images in rows(subject):
        features = subject.encoder.encode(messages, images)
        num_tokens = int((features.input_ids == token).sum())
        if not images:
            assert num_tokens == 0
            assert "pixel_values" not in features.tensors
        elif subject.family.pictures == "patches":
            grid = features.tensors["image_grid_thw"]
            assert num_tokens == int(grid.prod(-1).sum()) // 4
            assert features.tensors["pixel_values"].shape[0] == int(grid.prod(-1).sum())
            assert len(grid) == len(images)
            kinds = features.tensors["mm_token_type_ids"]
            assert torch.equal(kinds == 1, features.input_ids == token)
        else:
            assert num_tokens == 16 * len(images)
            assert features.tensors["pixel_values"].shape == (len(images), 3, 56, 56)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_padded_batch_equals_single_rows(subject: Subject, padding: Any) -> None:
    features = [
        subject.encoder.encode(messages, images, sample_id=str(index)) for index, (messages, images) in enumerate(rows(subject))
    ]
    batch = subject.encoder.collate(features, padding=padding)
    assert batch.sample_ids == ("0", "1", "2", "3", "4")
    assert batch.num_target_tokens == sum(len(supervised(row)) for row in features)
    with torch.no_grad():
        together = subject.model(**batch.inputs).logits
        for index, row in enumerate(features):
            alone = subject.model(**subject.encoder.collate([row]).inputs).logits[0]
            length = len(row.input_ids)
            mine = together[index, -length:] if padding == "left" else together[index, :length]
            torch.testing.assert_close(mine, alone, atol=2e-5, rtol=1e-4)


def test_the_model_looks_at_the_picture(subject: Subject) -> None:
    if not subject.sees:
        pytest.skip("reads text only")
    messages, images = rows(subject)[0]
    with torch.no_grad():
        one = subject.model(**subject.encoder.collate([subject.encoder.encode(messages, images)]).inputs).logits
        other = subject.model(**subject.encoder.collate([subject.encoder.encode(messages, [picture(100, 80, 250)])]).inputs).logits
    assert not torch.allclose(one, other, atol=1e-6)


def test_text_never_becomes_a_special_token(subject: Subject) -> None:
    tokenizer = subject.encoder.tokenizer
    spelled = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special and str(token) != "<image>"]
    attack = " ".join(spelled)
    plain = subject.encoder.encode([Message(role="user", content="A"), Message(role="assistant", content="B")])
    features = subject.encoder.encode([Message(role="user", content=f"A{attack}"), Message(role="assistant", content=f"B{attack}")])
    special = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]

    def num_special(row: Features) -> int:
        return sum(int(token) in special for token in row.input_ids)

    assert num_special(features) == num_special(plain)
    assert subject.encoder.decode(supervised(features)) == f"B{attack}"


def test_marks_and_pictures_must_agree(subject: Subject) -> None:
    with pytest.raises(DataError, match="2 <image> marks, but 1 pictures") as caught:
        subject.encoder.encode([Message(role="user", content="<image><image>?")], [picture(64, 64, 0)], sample_id="row-7")
    assert caught.value.sample == "row-7"
    assert caught.value.remedy is not None
    with pytest.raises(DataError, match="assistant holds <image>"):
        subject.encoder.encode(
            [Message(role="user", content="?"), Message(role="assistant", content="<image>")], [picture(9, 9, 0)]
        )


def test_a_row_too_long_is_refused_not_cut(subject: Subject) -> None:
    messages, images = rows(subject)[0]
    num_tokens = len(subject.encoder.encode(messages, images).input_ids)
    fits = load_encoder(subject.settings.model_copy(update={"max_tokens": num_tokens}))
    assert len(fits.encode(messages, images).input_ids) == num_tokens
    short = load_encoder(subject.settings.model_copy(update={"max_tokens": num_tokens - 1}))
    with pytest.raises(DataError, match=f"{num_tokens} tokens .* at most {num_tokens - 1} fit") as caught:
        short.encode(messages, images, sample_id="row-9")
    assert caught.value.sample == "row-9"
    assert short.count_tokens(messages, [image.size for image in images]) == num_tokens


def test_system_prompt_of_the_settings(subject: Subject) -> None:
    encoder = load_encoder(subject.settings.model_copy(update={"system_prompt": "Be brief."}))
    messages, images = rows(subject)[3]
    assert torch.equal(encoder.encode(messages[1:], images).input_ids, subject.encoder.encode(messages, images).input_ids)
    assert torch.equal(encoder.encode(messages, images).input_ids, subject.encoder.encode(messages, images).input_ids)


def own_scopes(family: Family) -> tuple[Scope, ...]:
    if family.name == "auto":
        return ("language", "vision", "projector")
    return tuple(scope for scope in SCOPES if scope in family.scopes)


def test_every_parameter_belongs_to_a_scope(subject: Subject) -> None:
    unclaimed = [name for name, _ in subject.model.named_parameters() if subject.family.scope_of(name) is None]
    assert unclaimed == []
    found = {subject.family.scope_of(name) for name, _ in subject.model.named_parameters()}
    assert found == set(own_scopes(subject.family))


def test_lora_adapts_each_scope_and_nothing_else(subject: Subject) -> None:
    for scope in own_scopes(subject.family):
        adapted = add_adapter(load_model(subject.settings, device="cpu"), LoraSettings(targets=(scope,), rank=2), subject.family)
        report = adapter_report(adapted)
        assert isinstance(report, AdapterReport)
        assert {subject.family.scope_of(module.replace("*", "0")) for module, _, _ in report} == {scope}
        assert sum(count for _, count, _ in report) == report.num_trainable > 0
        assert sum(share for _, _, share in report) == pytest.approx(report.num_trainable / report.num_total)
        assert report.num_total == sum(parameter.numel() for parameter in adapted.parameters())
        left = " ".join(str(note) for note in report.notes)
        assert all(f"{other}: " in left for other in own_scopes(subject.family) if other != scope)
        assert all(".lora_" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)


def test_a_scope_that_is_not_there_is_an_error(subject: Subject) -> None:
    for scope in set(SCOPES) - set(own_scopes(subject.family)):
        with pytest.raises(RecipeError, match=f"nothing to adapt under {scope}"):
            add_adapter(load_model(subject.settings, device="cpu"), LoraSettings(targets=(scope,)), subject.family)


def test_full_freezes_by_scope(subject: Subject) -> None:
    scopes = own_scopes(subject.family)
    model = add_adapter(load_model(subject.settings, device="cpu"), FullSettings(freeze=scopes[1:]), subject.family)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (subject.family.scope_of(name) == scopes[0])
    assert adapter_report(model).num_trainable < adapter_report(model).num_total or len(scopes) == 1


def test_adapter_comes_back_as_it_was_saved(subject: Subject, tmp_path: Path) -> None:
    adapted: Any = add_adapter(
        load_model(subject.settings, device="cpu"), LoraSettings(targets=own_scopes(subject.family), rank=2), subject.family
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    adapted.eval().save_pretrained(tmp_path)
    write_contract(subject.encoder.contract(), tmp_path)
    encoder = load_encoder(subject.settings, adapter=tmp_path)
    loaded = load_model(subject.settings, adapter=tmp_path, device="cpu")
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    messages, images = rows(subject)[0]
    inputs = encoder.collate([encoder.encode(messages, images)]).inputs
    with torch.no_grad():
        expected = adapted(**inputs).logits
        torch.testing.assert_close(loaded(**inputs).logits, expected)
        assert not torch.allclose(subject.model(**inputs).logits, expected, atol=1e-5)


def test_faults_speak_chinese_too(subject: Subject) -> None:
    errors: list[MedtuneError] = []
    for wrong in ([Message(role="user", content="<image>?")], [Message(role="system", content="<image>")]):
        with pytest.raises((DataError, ModelError)) as caught:
            subject.encoder.encode(wrong)
        errors.append(caught.value)
    assert all(error.render("zh") != error.render("en") for error in errors)
