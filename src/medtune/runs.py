"""The run folder: what a run is, how far it came, and who holds it.

::

    run/
      recipe.yaml       the resolved recipe; running it again is the reproduction
      run.json          RunRecord
      events.jsonl      one event a line, appended
      adapter/          PEFT adapter and contract.json (``model/`` for a full fine-tune)
      adapter_last/     the adapter of the last step, where the result is another one
      checkpoints/      of the trainer; complete or absent
      evaluations/<label>/{predictions.jsonl, scores.jsonl}
      report.json, report.html, report.md, claim_2024.md, tripod_llm.md, compare.html, loss.png
      review/{review.html, key.json, marks/*.json}
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from medtune.errors import RunError, system_reason
from medtune.language import msg
from medtune.schema import read_fault
from medtune.types import Event, RunRecord

__all__ = ["Run", "atomic_file", "atomic_folder", "atomic_write", "find_run", "is_run", "list_runs", "now"]


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def atomic_write(path: Path, text: str | bytes) -> None:
    """Write a file so that readers see the old one or the whole new one: write beside it, flush to disk, rename.

    Raises:
        RunError: The folder cannot be made or written to.
    """
    with atomic_file(path) as file:
        file.write(text.encode("utf-8") if isinstance(text, str) else text)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, which appears under ``path`` when the block ends well, and not at all when it does not.

    Raises:
        RunError: The folder cannot be made or written to.
    """
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under ``path`` when the block ends well, and not at all when it does not.

    What stood there before is replaced in the last moment. The caller decides beforehand whether that is allowed.

    Raises:
        RunError: The folder around it cannot be made or written to.
    """
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o755)
    try:
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            msg("Nothing can be written here: {error}", error=str(system_reason(error))),
            file=path,
            remedy=msg("Check the path, who may write there, and the free space; or name another place."),
        ) from error


class Run:
    """A run folder on disk. Reading needs nothing else; writing needs :meth:`hold`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, *, recipe_text: str, record: RunRecord) -> Run:
        """Make a new run folder.

        Raises:
            RunError: ``folder`` exists already.
        """
        if folder.exists():
            raise RunError(
                msg("The run folder exists already."),
                file=folder,
                remedy=msg("Choose another name with run.name=..., continue it with --resume, or delete the folder."),
            )
        with atomic_folder(folder) as temporary:
            (temporary / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
            (temporary / "run.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run folder.

        Raises:
            RunError: It is not one.
        """
        if not (folder / "run.json").is_file():
            raise RunError(
                msg("This is not a run folder: it has no run.json."), file=folder, remedy=msg("`medtune runs list` shows the runs.")
            )
        return cls(folder)

    @property
    def record(self) -> RunRecord:
        """``run.json``.

        Raises:
            RunError: The file is damaged.
        """
        path = self.folder / "run.json"
        try:
            return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(msg("run.json cannot be read: {error}", error=read_fault(error)), file=path) from error

    def update(self, **changes: Any) -> RunRecord:
        """Change fields of ``run.json``; the time of the change is noted."""
        record = RunRecord.model_validate({**self.record.model_dump(), **changes, "updated": now()})
        atomic_write(self.folder / "run.json", record.model_dump_json(indent=2) + "\n")
        return record

    @property
    def recipe_path(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def adapter(self) -> Path | None:
        """The adapter folder (or ``model/`` of a full fine-tune), None before training has finished."""
        for name in ("adapter", "model"):
            if (self.folder / name).is_dir():
                return self.folder / name
        return None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def evaluation(self, label: str) -> Path:
        """The folder of one evaluation condition."""
        return self.folder / "evaluations" / label

    def append(self, event: Event) -> None:
        """Append an event to ``events.jsonl`` with its time."""
        line: dict[str, Any] = {"time": round(time.time(), 3), "kind": event.kind}
        if event.text is not None:
            line["text"] = event.text.render("en")
        if event.done is not None:
            line["done"] = event.done
        if event.total is not None:
            line["total"] = event.total
        line.update(event.values)
        with (self.folder / "events.jsonl").open("ab+") as file:
            _drop_torn_line(file)
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """All whole lines of ``events.jsonl``; a last line torn by a crash is left out."""
        path = self.folder / "events.jsonl"
        if not path.is_file():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from writing the run until the block ends. The lock goes with the process that held it.

        Raises:
            RunError: A living process holds it.
        """
        import fcntl

        path = self.folder / ".lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise RunError(
                    msg("Process {pid} is working on this run.", pid=holder),
                    file=self.folder,
                    remedy=msg("Wait until it ends, or end it."),
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut off what a crash or a full disk has left of a last line, so that the next one begins a line of its own."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a run folder."""
    return (Path(folder) / "run.json").is_file()


def list_runs(folder: Path = Path("runs")) -> list[Run]:
    """The runs in a folder, the latest change first; one whose ``run.json`` is damaged comes last."""

    def updated(run: Run) -> str:
        try:
            return run.record.updated
        except RunError:
            return ""

    found = sorted((Run(path.parent) for path in folder.glob("*/run.json")), key=lambda run: run.folder.name)
    return sorted(found, key=updated, reverse=True)


def find_run(run: str | Path) -> Run:
    """A run by its folder, or by the name of a folder in ``runs``.

    Raises:
        RunError: There is none; the nearest name is given.
    """
    for folder in (Path(run), Path("runs") / run):
        if is_run(folder):
            return Run(folder)
    nearest = difflib.get_close_matches(Path(run).name, [found.folder.name for found in list_runs()], n=1, cutoff=0.5)
    remedy = msg("Did you mean {nearest}?", nearest=f"runs/{nearest[0]}") if nearest else msg("`medtune runs list` shows the runs.")
    raise RunError(msg("There is no such run."), file=run, remedy=remedy)
