"""A conversation in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medtune.errors import GenerationError, RunError, UnreadableImageError
from medtune.generation.chat import ChatSession, Transcript
from medtune.generation.echo import EchoGenerator
from medtune.language import Text
from medtune.types import Generation, Request, Sampling, TransformRecord


class Recorder(EchoGenerator):
    """An echo that keeps what it was asked."""

    def __init__(self, answers: Sequence[str] = ()) -> None:
        super().__init__(answers)
        self.requests: list[Request] = []

    def stream(self, request: Request) -> Iterator[str]:
        self.requests.append(request)
        return super().stream(request)


class Failing:
    """Writes some pieces, then fails."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        raise AssertionError(requests)

    def stream(self, _: Request) -> Iterator[str]:
        yield from self.pieces
        raise GenerationError(Text("the model broke"))

    def close(self) -> None: ...


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "头部 CT.png", tmp_path / "second.jpg"]
    for index, path in enumerate(paths):
        Image.new("RGB", (40 + index, 30), (index * 50,) * 3).save(path)
    return paths


def test_history_and_pictures_go_with_each_question(pictures: list[Path]) -> None:
    generator = Recorder(["It is a slice.", "Both are slices.", "No."])
    session = ChatSession(generator, base_model="tiny", system_prompt="You are a radiologist.", sampling=Sampling(max_new_tokens=9))
    shown = session.add_image(pictures[0])
    assert shown.sha256 == hashlib.sha256(pictures[0].read_bytes()).hexdigest()
    assert (shown.name, shown.width, shown.height) == ("头部 CT.png", 40, 30)
    assert "".join(session.ask(" What is this? ")) == "It is a slice."
    assert session.pending == ()
    pictures[0].unlink()  # it has been read
    session.add_images([pictures[1], pictures[1]])
    assert "".join(session.ask("And these?")) == "Both are slices."
    assert "".join(session.ask("Sure?")) == "No."
    last = generator.requests[-1]
    assert [(message.role, message.content) for message in last.messages] == [
        ("system", "You are a radiologist."),
        ("user", "<image>What is this?"),
        ("assistant", "It is a slice."),
        ("user", "<image><image>And these?"),
        ("assistant", "Both are slices."),
        ("user", "Sure?"),
    ]
    assert [image.size for image in last.images] == [(40, 30), (41, 30), (41, 30)]
    assert last.sampling.max_new_tokens == 9
    assert [len(request.images) for request in generator.requests] == [1, 3, 3]
    assert len({request.id for request in generator.requests}) == 3
    assert [len(turn.pictures) for turn in session.turns] == [1, 2, 0]


def test_pictures_go_through_the_transforms_of_training(pictures: list[Path]) -> None:
    generator = Recorder()
    records = (TransformRecord(name="letterbox", parameters={"size": 64}),)
    session = ChatSession(generator, base_model="tiny", adapter="run", transforms=records)
    shown = session.add_image(pictures[0])
    list(session.ask("What is this?"))
    assert generator.requests[0].images[0].size == (64, 64)
    assert (shown.width, shown.height) == (64, 64)
    assert session.transcript().transforms == records


def test_volumes_are_shown_through_the_windows_of_training(tmp_path: Path) -> None:
    volume = tmp_path / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), 40, np.int16), np.eye(4)), volume)
    colours = {}
    for displays in ((), ("40/80",), ("0/2048 40/350 0/80", "own"), ("40/80", "480/2500")):
        generator = Recorder()
        session = ChatSession(generator, base_model="tiny", displays=displays)
        session.add_image(volume)
        list(session.ask("What is this?"))
        colours[displays] = generator.requests[0].images[0].getpixel((0, 0))
    # One way only: that way. None, or several: as the file would be shown on its own, here a constant without any range.
    assert list(colours.values()) == [(0, 0, 0), (129, 129, 129), (133, 128, 255), (0, 0, 0)]


def test_all_pictures_or_none(pictures: list[Path], tmp_path: Path) -> None:
    session = ChatSession(Recorder(), base_model="tiny")
    (tmp_path / "no.png").write_bytes(b"no picture")
    for bad in (tmp_path / "none.png", tmp_path / "no.png", tmp_path):
        with pytest.raises(UnreadableImageError) as caught:
            session.add_images([pictures[0], bad])
        assert bad.name in str(caught.value.file)
        assert session.pending == ()


@pytest.mark.parametrize("question", ["", "  \n", "what is <image> this"])
def test_questions_that_cannot_be_asked(question: str) -> None:
    generator = Recorder()
    with pytest.raises(GenerationError):
        ChatSession(generator, base_model="tiny").ask(question)
    assert generator.requests == []


def test_a_stopped_answer_stays_as_it_was_seen(pictures: list[Path]) -> None:
    generator = Recorder(["one two three", "yes"])
    session = ChatSession(generator, base_model="tiny")
    session.add_image(pictures[0])
    answer = session.ask("What is this?")
    assert next(answer) + next(answer) == "one two"
    answer.close()
    (turn,) = session.turns
    assert (turn.answer, turn.finish_reason, len(turn.pictures)) == ("one two", "interrupted", 1)
    assert "".join(session.ask("Sure?")) == "yes"
    assert [message.content for message in generator.requests[-1].messages] == ["<image>What is this?", "one two", "Sure?"]


def test_a_question_stopped_before_the_first_word_is_forgotten(pictures: list[Path]) -> None:
    class Interrupted(Recorder):
        def stream(self, request: Request) -> Iterator[str]:
            raise KeyboardInterrupt
            yield request.id

    session = ChatSession(Interrupted(), base_model="tiny")
    session.add_image(pictures[0])
    with pytest.raises(KeyboardInterrupt):
        list(session.ask("What is this?"))
    assert session.turns == ()
    assert len(session.pending) == 1


@pytest.mark.parametrize("pieces", [(), ("half ",)])
def test_a_failure_keeps_what_was_seen(pieces: tuple[str, ...], pictures: list[Path]) -> None:
    session = ChatSession(Failing(*pieces), base_model="tiny")
    session.add_image(pictures[0])
    with pytest.raises(GenerationError, match="the model broke"):
        list(session.ask("What is this?"))
    assert [turn.answer for turn in session.turns] == ["half "] * bool(pieces)
    assert len(session.pending) == (0 if pieces else 1)


def test_the_finish_reason_of_the_generator_is_kept() -> None:
    class Cut(Recorder):
        def stream(self, request: Request) -> Iterator[str]:  # type: ignore[override]
            yield request.messages[-1].content
            return "length"

    session = ChatSession(Cut(), base_model="tiny")
    assert "".join(session.ask("words")) == "words"
    assert session.turns[0].finish_reason == "length"
    assert session.turns[0].seconds >= session.turns[0].seconds_to_first_text >= 0


def test_clear_forgets_all_but_the_system_prompt(pictures: list[Path]) -> None:
    generator = Recorder()
    session = ChatSession(generator, base_model="tiny", system_prompt="You are a radiologist.")
    session.add_image(pictures[0])
    list(session.ask("What is this?"))
    session.add_image(pictures[1])
    session.clear()
    assert (session.turns, session.pending) == ((), ())
    list(session.ask("Hello?"))
    assert [message.content for message in generator.requests[-1].messages] == ["You are a radiologist.", "Hello?"]
    assert generator.requests[-1].images == ()
    assert generator.requests[0].id != generator.requests[1].id


def test_save(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    session = ChatSession(Recorder(["高密度灶。"]), base_model="Qwen/Qwen3-VL-8B", adapter="runs/demo")
    session.add_image(pictures[0])
    list(session.ask("这是什么？"))
    files = session.save(tmp_path / "talks" / "first")
    assert [file.name for file in files] == ["first.json", "first.md"]
    transcript = Transcript.model_validate_json(files[0].read_text(encoding="utf-8"))
    assert transcript.turns == session.turns
    assert (transcript.base_model, transcript.adapter) == ("Qwen/Qwen3-VL-8B", "runs/demo")
    assert "Not a medical device" in transcript.intended_use
    assert str(tmp_path) not in files[0].read_text(encoding="utf-8"), "a folder's name may be a patient's"
    markdown = files[1].read_text(encoding="utf-8")
    for words in (
        "Not a medical device",
        "runs/demo",
        "头部 CT.png",
        transcript.turns[0].pictures[0].sha256,
        "这是什么？",
        "高密度灶。",
    ):
        assert words in markdown
    list(session.ask("and?"))
    assert session.save(files[1]) == files  # its own files may be written again
    assert len(json.loads(files[0].read_text(encoding="utf-8"))["turns"]) == 2


def test_save_does_not_overwrite_what_others_wrote(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("precious", encoding="utf-8")
    session = ChatSession(Recorder(), base_model="tiny")
    with pytest.raises(GenerationError) as caught:
        session.save(tmp_path / "notes.json")
    assert "notes.md" in str(caught.value.file)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.md"]
    assert (tmp_path / "notes.md").read_text(encoding="utf-8") == "precious"
    with pytest.raises(RunError, match="a part of the path is a file"):
        session.save(tmp_path / "notes.md" / "deeper")
