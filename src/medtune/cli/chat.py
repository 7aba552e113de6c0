"""The chat in a terminal: reads lines, shows answers as they come."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from medtune.cli.picture_paths import read_path, split_pictures
from medtune.errors import MedtuneError
from medtune.language import Text, msg

if TYPE_CHECKING:
    from medtune.generation.chat import ChatSession, ShownPicture

__all__ = ["chat_loop", "split_pictures"]

ReadLine = Callable[[str], str]

_PROMPT = "> "
_ADDRESS = re.compile(r"https?://\S+\.(?:png|jpe?g|bmp|gif|tiff?|webp)\b", re.IGNORECASE)
# A model, or a server, could write escape sequences that move the cursor or rename the window.
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def chat_loop(
    session: ChatSession,
    *,
    side_by_side_session: ChatSession | None = None,
    read_line: ReadLine | None = None,
    console: Console | None = None,
) -> None:
    """Talk until the input ends (Ctrl-D) or ``/exit``.

    A line may begin or end with picture paths (see :func:`~medtune.cli.picture_paths.split_pictures`); the rest is the
    question. Ctrl-C stops an answer, not the program. A fault is shown and the conversation goes on.

    Args:
        session: The conversation.
        side_by_side_session: A second one, asked the same questions before ``session``: the base model beside the tuned one.
        read_line: Returns a line without its end for a prompt; raises EOFError at the end. The terminal, or standard input.
        console: Where it is shown.
    """
    _Loop(session, side_by_side_session, read_line or _terminal_reader(), console or Console()).run()


class _Loop:
    def __init__(self, session: ChatSession, second: ChatSession | None, read_line: ReadLine, console: Console) -> None:
        # The base model first, so that the eye ends on the tuned one.
        self.sessions = (session,) if second is None else (second, session)
        self.read_line = read_line
        self.console = console
        self.commands: dict[str, tuple[Callable[[str], bool], str, Text]] = {
            "/image": (self.image, " PATH", msg("show a picture; the next question is about it")),
            "/clear": (self.clear, "", msg("forget the conversation and its pictures")),
            "/save": (self.save, " [PATH]", msg("save the conversation as JSON and Markdown")),
            "/help": (self.help, "", msg("this list")),
            "/exit": (self.exit, "", msg("leave (also Ctrl-D)")),
        }

    def run(self) -> None:
        self.greet()
        while True:
            try:
                line = self.read_line(_PROMPT).strip()
            except EOFError:
                if self.console.is_terminal:  # behind the prompt
                    self.console.print()
                return
            except KeyboardInterrupt:
                self.console.print()
                self.note(msg("Ctrl-D or /exit leaves."))
                continue
            try:
                if line and not self.take(line):
                    return
            except MedtuneError as error:
                self.show_fault(error)
            except KeyboardInterrupt:
                self.console.print()

    def greet(self) -> None:
        from medtune.generation.chat import INTENDED_USE

        for session in self.sessions:
            self.note(msg("{label}: {name}", label=_label(session).render(), name=_name(session)), style="bold")
        self.note(_memory())
        self.note(INTENDED_USE, style="yellow")
        self.note(msg("Paste or drag in a picture, then ask. /help lists the commands."), style="dim")
        for picture in self.sessions[-1].pending:
            self.show_picture(picture)

    def take(self, line: str) -> bool:
        """One line of input; False ends the conversation."""
        word, _, rest = line.partition(" ")
        if word.lower() in self.commands:
            return self.commands[word.lower()][0](rest.strip())
        pictures, question = split_pictures(line)
        if not pictures and word.startswith("/") and "/" not in word[1:]:
            self.note(msg("There is no command {word}. /help lists the commands.", word=word), style="red")
            return True
        if _ADDRESS.search(question):
            self.note(msg("Pictures are read from this machine: save it as a file first, then paste the file's path."), style="red")
            return True
        if pictures:
            self.add(pictures)
        if question:
            self.ask(question)
        return True

    def add(self, paths: Sequence[Path]) -> None:
        for session in self.sessions:
            shown = session.add_images(paths)
        for picture in shown:
            self.show_picture(picture)

    def ask(self, question: str) -> None:
        for session in self.sessions:
            if len(self.sessions) > 1:
                self.note(_label(session), style="bold cyan")
            try:
                with closing(session.ask(question)) as pieces:
                    for piece in pieces:
                        self.note(piece, end="")
                        self.console.file.flush()
            except KeyboardInterrupt:
                self.console.print()
                self.note(msg("Stopped."))
            except MedtuneError as error:  # the other model is still asked
                self.show_fault(error)
            else:
                self.console.print()
                self.after_answer(session)

    def after_answer(self, session: ChatSession) -> None:
        turn = session.turns[-1]
        if not turn.answer:
            self.note(msg("The model gave no answer."))
        if turn.finish_reason == "length":
            self.note(
                msg(
                    "Cut after {tokens} tokens; generation.sampling.max_new_tokens sets the limit.",
                    tokens=session.sampling.max_new_tokens,
                )
            )
        self.note(
            msg("first text after {first} s, {all} s in all", first=f"{turn.seconds_to_first_text:.1f}", all=f"{turn.seconds:.1f}"),
            style="dim",
        )

    # --------------------------------------------------------------------------------------------------------- commands

    def image(self, rest: str) -> bool:
        if not rest:
            self.note(msg("Name the picture: /image PATH"), style="red")
            return True
        path = read_path(rest)
        pictures, question = ([path], "") if path.is_file() else split_pictures(rest)
        self.add(pictures or [path])
        if pictures and question:
            self.ask(question)
        return True

    def clear(self, _: str) -> bool:
        for session in self.sessions:
            session.clear()
        self.note(msg("A new conversation; pictures and history are forgotten."))
        return True

    def save(self, rest: str) -> bool:
        if not any(session.turns for session in self.sessions):
            self.note(msg("There is no answer to save yet."))
            return True
        path = read_path(rest) if rest else Path(f"chat-{datetime.now():%Y%m%d-%H%M%S}")
        for session in self.sessions:
            name = (
                path if session is self.sessions[-1] else path.with_name(f"{path.name.removesuffix(path.suffix)}-base{path.suffix}")
            )
            for file in session.save(name):
                self.note(msg("Saved {file}", file=file))
        return True

    def help(self, _: str) -> bool:
        for name, (_run, argument, meaning) in self.commands.items():
            self.note(f"  {name + argument:<16} {meaning}")
        self.note(msg("A line may begin or end with picture paths; Ctrl-C stops an answer."), style="dim")
        return True

    def exit(self, _: str) -> bool:
        return False

    # ---------------------------------------------------------------------------------------------------------- display

    def note(self, text: Text | str, *, style: str = "", end: str = "\n") -> None:
        """Show words as they are: no markup, no emoji codes, no escape sequences, no folding of long lines."""
        words = str(text).translate(_CONTROLS)
        self.console.print(words, style=style, end=end, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def show_picture(self, picture: ShownPicture) -> None:
        text = msg("Picture {name}, {width} x {height} pixels", name=picture.name, width=picture.width, height=picture.height)
        self.note(text, style="green")

    def show_fault(self, error: MedtuneError) -> None:
        """One line, whatever the error holds: what happened, where, and what to do."""
        place = f"{error.file}: " if error.file else ""
        what = str(error.what)
        blank = "" if what.endswith("。") else " "  # Chinese sentences need none
        self.note(f"{place}{what}{blank}{error.remedy or ''}", style="red")


def _label(session: ChatSession) -> Text:
    if session.server is not None:
        return msg("Answered by")
    return msg("Base model") if session.adapter is None else msg("Tuned model")


def _name(session: ChatSession) -> str:
    if session.server is not None:
        return session.server
    return session.base_model if session.adapter is None else f"{session.base_model} + {session.adapter}"


def _memory() -> Text:
    """Memory of this process, and of the accelerator where torch uses one. Torch is not imported for it."""
    resident = f"{_resident_bytes() / 2**30:.1f}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        allocated = sum(torch.cuda.memory_allocated(device) for device in range(torch.cuda.device_count()))
        return msg(
            "Memory in use: {resident} GiB of the process, {allocated} GiB on the GPU",
            resident=resident,
            allocated=f"{allocated / 2**30:.1f}",
        )
    return msg("Memory in use: {resident} GiB", resident=resident)


def _resident_bytes() -> int:
    """The resident set now; where there is no /proc, its peak."""
    import resource

    try:
        # proc(5): the second number of statm is the resident set in pages.
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _terminal_reader() -> ReadLine:
    """``input`` with line editing at a terminal; bare lines without a prompt when standard input is a file or a pipe."""
    if sys.stdin.isatty():
        import contextlib

        with contextlib.suppress(ImportError):  # absent on Windows, whose console edits lines itself
            import readline  # noqa: F401
        return input

    def read(_: str) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    return read
