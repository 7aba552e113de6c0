"""The terminal chat, line by line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from medtune.cli.chat import chat_loop
from medtune.errors import GenerationError
from medtune.generation.chat import ChatSession
from medtune.generation.echo import EchoGenerator
from medtune.language import Text
from medtune.types import Request

Talk = Callable[..., str]


class Scripted:
    """Streams what a function makes of the request."""

    def __init__(self, answer: Callable[[Request], Iterator[str]]) -> None:
        self.answer = answer
        self.requests: list[Request] = []

    def generate(self, requests: Any) -> Iterator[Any]:
        raise AssertionError(requests)

    def stream(self, request: Request) -> Iterator[str]:
        self.requests.append(request)
        return self.answer(request)

    def close(self) -> None: ...


def told(request: Request) -> Iterator[str]:
    yield f"{len(request.images)} pictures, "
    yield f"question {request.messages[-1].content.replace('<image>', '')}"


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTUNE_LANG", "en")


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "头部 CT 1.png"
    Image.new("L", (40, 30), 90).save(path)
    return path


def session(answer: Callable[[Request], Iterator[str]] = told, *, adapter: str | None = "runs/demo") -> ChatSession:
    return ChatSession(Scripted(answer), base_model="medtune-nano", adapter=adapter)


def talk(*lines: str | type[BaseException], about: ChatSession | None = None, beside: ChatSession | None = None) -> str:
    """What is shown when these lines are typed; an exception class stands for the key that raises it."""
    waiting = iter(lines)

    def read_line(_: str) -> str:
        line = next(waiting, EOFError)
        if isinstance(line, str):
            return line
        raise line

    shown = io.StringIO()
    chat_loop(about or session(), side_by_side_session=beside, read_line=read_line, console=Console(file=shown, width=200))
    assert next(waiting, None) is None, "the chat ended before the last line"
    return shown.getvalue()


def test_begins_with_models_memory_and_intended_use() -> None:
    shown = talk()
    assert "Tuned model: medtune-nano + runs/demo" in shown
    assert "Memory in use: " in shown
    assert "Not a medical device. Not for diagnosis" in shown
    assert "Base model: medtune-nano" in talk(about=session(adapter=None))


def test_a_question() -> None:
    assert "0 pictures, question What is a hygroma?\n" in talk("What is a hygroma?")


def test_pictures_by_path(picture: Path) -> None:
    about = session()
    shown = talk(f"'{picture}' What is this?", "and now?", f"file://{picture}".replace(" ", "%20"), "both?", about=about)
    assert shown.count("Picture 头部 CT 1.png, 40 x 30 pixels") == 2
    assert "1 pictures, question What is this?" in shown
    assert "1 pictures, question and now?" in shown
    assert "2 pictures, question both?" in shown
    assert [len(turn.pictures) for turn in about.turns] == [1, 0, 1]


def test_pictures_that_were_there_before_are_shown(picture: Path) -> None:
    about = session()
    about.add_image(picture)
    assert "Picture 头部 CT 1.png" in talk(about=about)


def test_image_command(picture: Path) -> None:
    assert "1 pictures, question what?" in talk("/image 头部 CT 1.png", "what?")
    assert "1 pictures, question what?" in talk(f"/IMAGE '{picture}' what?")
    assert "2 pictures, question what?" in talk(f"/image '{picture}' '{picture}'", "what?")
    assert "Name the picture" in talk("/image ")


def test_a_wrong_path_is_one_line_and_the_talk_goes_on(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(picture.read_bytes()[:40])
    for line, name in [
        ("/data/none.png what?", "/data/none.png"),
        ("/image none", "none"),
        ("torn.png what?", "torn.png"),
        (f"'{picture}' /data/none.png compare", "/data/none.png"),
    ]:
        about = session()
        before = talk(about=about).splitlines()
        shown = talk(line, "still here?", about=about).splitlines()
        new = shown[len(before) :]
        assert name in new[0], new
        assert new[1] == "0 pictures, question still here?"


def test_clear_forgets(picture: Path) -> None:
    about = session()
    talk(f"{picture} what?", str(picture), "/clear", "hello", about=about)
    assert [turn.question for turn in about.turns] == ["hello"]
    assert about.turns[0].pictures == ()


def test_save(picture: Path, tmp_path: Path) -> None:
    shown = talk(f"{picture} what?", "/save my talk", "/save")
    assert "Saved my talk.json" in shown
    assert "Saved my talk.md" in shown
    saved = json.loads((tmp_path / "my talk.json").read_text(encoding="utf-8"))
    assert saved["turns"][0]["pictures"][0]["name"] == "头部 CT 1.png"
    assert len(list(tmp_path.glob("chat-*.json"))) == 1
    (tmp_path / "taken.md").touch()
    assert "exists already" in talk("hello", "/save taken")


def test_help_lists_every_command() -> None:
    shown = talk("/help")
    for command in ("/image PATH", "/clear", "/save [PATH]", "/help", "/exit"):
        assert command in shown


@pytest.mark.parametrize("line", ["/quit", "/clear!", "/Image2 x", "/"])
def test_an_unknown_command_is_told(line: str) -> None:
    about = session()
    assert f"There is no command {line.split()[0]}." in talk(line, about=about)
    assert about.turns == ()


def test_a_question_may_hold_slashes_and_markup() -> None:
    about = session()
    shown = talk("contrast w/o [bold]? 1/2 :smile:", "/usr/share is a folder?", about=about)
    assert "question contrast w/o [bold]? 1/2 :smile:" in shown
    assert len(about.turns) == 2


def test_an_address_is_refused(picture: Path) -> None:  # noqa: ARG001
    about = session()
    assert "save it as a file first" in talk("https://example.org/a.png what is this?", about=about)
    assert about.turns == ()


@pytest.mark.parametrize("end", ["/exit", "/EXIT "])
def test_exit(end: str) -> None:
    with pytest.raises(AssertionError, match="ended before"):
        talk(end, "more")


def test_ctrl_c_at_the_prompt_does_not_leave() -> None:
    shown = talk(KeyboardInterrupt, "hello")
    assert "Ctrl-D or /exit leaves." in shown
    assert "question hello" in shown


def test_ctrl_c_stops_the_answer_only() -> None:
    def long(request: Request) -> Iterator[str]:
        yield "first words "
        if request.messages[-1].content == "stop me":
            raise KeyboardInterrupt
        yield "last words"

    about = session(long)
    shown = talk("stop me", "go on", about=about)
    assert "first words \nStopped.\n" in shown
    assert "first words last words" in shown
    assert [turn.finish_reason for turn in about.turns] == ["interrupted", "stop"]


def test_a_fault_of_the_model_is_told_and_the_talk_goes_on() -> None:
    def full(request: Request) -> Iterator[str]:
        if len(request.messages) > 1:
            raise GenerationError(Text("The prompt is too long."), sample=request.id, remedy=Text("Use /clear."))
        yield "yes"

    about = session(full)
    shown = talk("one", "two", "/clear", "three", about=about)
    assert "The prompt is too long. Use /clear.\n" in shown
    assert "turn-" not in shown
    assert [turn.question for turn in about.turns] == ["three"]


def test_escape_sequences_of_a_model_do_not_reach_the_terminal() -> None:
    def sly(_: Request) -> Iterator[str]:
        yield "a\x1b]0;owned\x07b\x9b2Jc\td\ne"

    shown = talk("hello", about=session(sly))
    assert "a]0;ownedb2Jc" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_an_answer_cut_short_or_empty_is_told() -> None:
    def cut(_: Request) -> Iterator[str]:
        yield "The lesion"
        return "length"

    assert "Cut after 256 tokens" in talk("hello", about=session(cut))
    assert "The model gave no answer." in talk("hello", about=session(lambda _: iter(())))


def test_side_by_side(picture: Path, tmp_path: Path) -> None:
    base, tuned = session(adapter=None), session()
    shown = talk(f"{picture} what?", "/save both", about=tuned, beside=base)
    head, answers = shown.split("/help lists the commands.")
    assert head.index("Base model: medtune-nano") < head.index("Tuned model: medtune-nano + runs/demo")
    assert [line for line in answers.splitlines() if "Picture" in line] == ["Picture 头部 CT 1.png, 40 x 30 pixels"]
    lines = [line for line in answers.splitlines() if line.startswith(("Base", "Tuned", "1 pict"))]
    assert lines == ["Base model", "1 pictures, question what?", "Tuned model", "1 pictures, question what?"]
    assert {path.name for path in tmp_path.glob("both*")} == {"both.json", "both.md", "both-base.json", "both-base.md"}
    talk("/clear", about=tuned, beside=base)
    assert (base.turns, tuned.turns) == ((), ())


def test_side_by_side_one_failure_does_not_silence_the_other() -> None:
    def broken(_: Request) -> Iterator[str]:
        raise GenerationError(Text("The base model broke."))
        yield ""

    shown = talk("hello", about=session(), beside=session(broken, adapter=None))
    assert shown.index("The base model broke.") < shown.index("question hello")


def test_piped_input(picture: Path) -> None:
    code = (
        "from medtune.cli.chat import chat_loop\n"
        "from medtune.generation.chat import ChatSession\n"
        "from medtune.generation.echo import EchoGenerator\n"
        "chat_loop(ChatSession(EchoGenerator(), base_model='medtune-nano'))\n"
    )
    script = f"{picture} 这是什么？\n\n没有换行"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        input=script.encode(),
        capture_output=True,
        check=True,
        env={"MEDTUNE_LANG": "zh"},
    )
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert "这是什么？" in lines
    assert "没有换行" in lines
    assert not any(line.startswith(">") for line in lines), "no prompt where nobody types"
    assert any("仅供研究" in line for line in lines)


def test_the_terminal_is_not_asked_for_torch() -> None:
    code = (
        "import sys, medtune.cli.chat; print([name for name in ('torch', 'transformers', 'PIL', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_echo_of_the_whole_talk() -> None:
    about = ChatSession(EchoGenerator(["Yes.", "No."]), base_model="medtune-nano")
    shown = talk("Is it?", "Sure?", about=about)
    assert shown.index("Yes.") < shown.index("No.")
