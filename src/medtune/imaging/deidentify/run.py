"""A folder of files: every original is read once, and its result appears whole, under a new name, or not at all.

::

    OUT/
      pass/<patient>/<study>/<series>/<instance>.dcm
      review/...                 the same, to be looked at by a person
      quarantine/<id>.json       what could not be cleaned: a note without a name; the original stays where it is
      deidentify.json            DeidentifyReport
      done.jsonl                 FileRecord, one a line

All names are keyed pseudonyms. A run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pydantic import ValidationError

from medtune.errors import DataError, RunError, system_reason
from medtune.imaging.child import DEFAULT_MAX_MEMORY, Child, ChildDiedError
from medtune.imaging.deidentify.profile import Profile, read_table
from medtune.imaging.deidentify.records import Records
from medtune.imaging.deidentify.settings import DeidentifySettings
from medtune.imaging.deidentify.text import has_ocr
from medtune.imaging.deidentify.verdict import DeidentifyReport, FileRecord
from medtune.imaging.pseudonym import Pseudonyms, default_key_file, load_key
from medtune.language import msg
from medtune.runs import atomic_write
from medtune.types import Event, Listener

__all__ = ["Deidentified", "deidentify"]

_WORK = ".work"
_FUNCTION = "medtune.imaging.deidentify.file:clean_file"


@dataclass(frozen=True, slots=True)
class Deidentified:
    """What :func:`deidentify` did.

    Attributes:
        folder: The output folder.
        report: Its ``deidentify.json``.
        originals: Originals that gave no result or one to look at, with their records. Their paths may name patients: they are for
            the person at this machine, and stand in no file.
    """

    folder: Path
    report: DeidentifyReport
    originals: tuple[tuple[Path, FileRecord], ...]


def deidentify(
    source: Path,
    target: Path,
    *,
    settings: DeidentifySettings | None = None,
    key_file: Path | None = None,
    num_workers: int = 1,
    max_memory: int = DEFAULT_MAX_MEMORY,
    seconds: float = 300.0,
    listener: Listener | None = None,
) -> Deidentified:
    """De-identify a DICOM file, or all of a folder, into another folder. The originals are only read.

    Args:
        source: A file or a folder; links to folders are not followed.
        target: New, or of an earlier call with the same key and settings: what is finished there is not done again.
        key_file: Of the pseudonyms; :func:`~medtune.imaging.pseudonym.default_key_file` when None. Made when it is missing.
        num_workers: Processes.
        max_memory: Bytes of address space that each may have.
        seconds: The longest that one file may take.

    Raises:
        DataError: There is no ``source``; one of source, target and key lies in another; ``target`` holds something else, or
            was made with another key or other settings.
        RunError: Another process works on ``target``, or nothing can be written there.
    """
    settings = settings or DeidentifySettings()
    key = _checked_key(source, target, key_file)
    pseudonyms = Pseudonyms(key)
    report = _begun(target, settings, pseudonyms)
    with _held(target):
        shutil.rmtree(target / _WORK, ignore_errors=True)
        (target / _WORK).mkdir()
        atomic_write(target / "deidentify.json", _json(report))
        if settings.ocr != "none" and not report.ocr and listener is not None:
            listener(Event("note", msg("No OCR is installed: files that may hold burned-in text go to `review`.")))
        try:
            records = Records(target)
            files = list(_files(source))
            todo, originals = _split_done(files, source, records, pseudonyms)
            if listener is not None:
                listener(Event("phase", msg("De-identifying {count} files", count=len(todo)), total=len(todo)))
            arguments = (key, settings.model_dump(mode="json"))
            with _pool(num_workers, max_memory, seconds) as pool:
                for done, (job, result) in enumerate(pool.run(todo, target / _WORK, arguments), start=1):
                    record = _placed(target, job, result, records)
                    records.append(record)
                    if record.verdict in ("quarantine", "review"):
                        originals.append((job.path, record))
                    if listener is not None:
                        listener(Event("progress", done=done, total=len(todo)))
        finally:
            shutil.rmtree(target / _WORK, ignore_errors=True)
        finished = _summed(report, records.kept({_name(path, source, pseudonyms) for path in files}))
        atomic_write(target / "deidentify.json", _json(finished))
    return Deidentified(target, finished, tuple(originals))


# ----------------------------------------------------------------------------------------------------------------- checks


def _checked_key(source: Path, target: Path, key_file: Path | None) -> bytes:
    if not source.exists():
        raise DataError(msg("There is no such file or folder."), file=source, remedy=msg("Check the path of the originals."))
    if next(_files(source), None) is None:
        raise DataError(msg("No file is there."), file=source, remedy=msg("Check the path of the originals."))
    here, there = source.resolve(), target.resolve()
    if there.is_relative_to(here) or here.is_relative_to(there):
        raise DataError(
            msg("The results may not lie among the originals, nor the originals among the results."),
            file=target,
            remedy=msg("Name a new folder outside {source}.", source=source),
        )
    around = source if source.is_dir() else source.parent
    return load_key(key_file or default_key_file(), create=True, outside=[around, target])


def _begun(target: Path, settings: DeidentifySettings, pseudonyms: Pseudonyms) -> DeidentifyReport:
    """The report of a call that begins now; that of an earlier one is checked."""
    from medtune import __version__

    table = read_table()
    report = DeidentifyReport(
        medtune_version=__version__,
        standard=str(table["standard"]),
        edition=str(table["edition"]),
        key=pseudonyms.fingerprint,
        settings=settings.model_dump(mode="json"),
        methods=tuple(code for code, _ in Profile(settings).methods),
        ocr=settings.ocr != "none" and has_ocr(),
    )
    path = target / "deidentify.json"
    if not path.is_file():
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(
                msg("The folder is not empty, and holds no results of `medtune deidentify`."),
                file=target,
                remedy=msg("Name a new folder."),
            )
        return report
    try:
        before = DeidentifyReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(msg("deidentify.json cannot be read."), file=path, remedy=msg("Name a new folder.")) from error
    if before.key != report.key:
        raise DataError(
            msg("The folder was made with another key: its patients would get second names."),
            file=target,
            remedy=msg("Name that key with --key, or a new folder."),
        )
    if before.settings != report.settings or before.edition != report.edition:
        raise DataError(
            msg("The folder was made with other settings: {settings}", settings=json.dumps(before.settings)),
            file=target,
            remedy=msg("Give the same settings, or name a new folder."),
        )
    return report


@contextlib.contextmanager
def _held(target: Path) -> Iterator[None]:
    import fcntl

    try:
        target.mkdir(parents=True, exist_ok=True)
        file = (target / ".lock").open("a")
    except OSError as error:
        raise RunError(
            msg("Nothing can be written here: {error}", error=str(system_reason(error))),
            file=target,
            remedy=msg("Check the path, who may write there, and the free space; or name another place."),
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                msg("Another process works on this folder."), file=target, remedy=msg("Wait until it is done, or end it.")
            ) from error
        yield


# ------------------------------------------------------------------------------------------------------------------ files


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    id: str
    state: str


def _files(source: Path) -> Iterator[Path]:
    """All files of a folder, in a stable order."""
    if source.is_file():
        yield source
        return
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                yield path


def _name(path: Path, source: Path, pseudonyms: Pseudonyms) -> str:
    relative = path.name if path == source else path.relative_to(source).as_posix()
    return pseudonyms.name("instance", f"file {relative}")


def _split_done(
    files: Iterable[Path], source: Path, records: Records, pseudonyms: Pseudonyms
) -> tuple[list[_Job], list[tuple[Path, FileRecord]]]:
    """What is left to do, and what is known already of originals that a person should know of."""
    todo, known = [], []
    for path in files:
        name, status = _name(path, source, pseudonyms), path.stat()
        state = pseudonyms.name("instance", f"state {name} {status.st_size} {status.st_mtime_ns}")
        record = records.finished(name, state)
        if record is None:
            todo.append(_Job(path, name, state))
        elif record.verdict in ("quarantine", "review"):
            known.append((path, record))
    return todo, known


def _placed(target: Path, job: _Job, result: Mapping[str, Any], records: Records) -> FileRecord:
    """Move the written file to its place, or write a note, and say so."""
    written = target / _WORK / f"{job.id}.dcm"
    verdict, reasons = result["verdict"], list(result["reasons"])
    for stale in records.files_of(job.id):  # of an original that has changed since
        (target / stale).unlink(missing_ok=True)
    if verdict in ("quarantine", "ignored"):
        written.unlink(missing_ok=True)
        if verdict == "quarantine":
            note = {"id": job.id, "reasons": reasons, **({"place": result["place"]} if "place" in result else {})}
            atomic_write(target / "quarantine" / f"{job.id}.json", json.dumps(note, indent=2) + "\n")
        return FileRecord(id=job.id, state=job.state, verdict=verdict, reasons=tuple(reasons))
    names = result["names"]
    inside = Path(names["patient"], names["study"], names["series"])
    name = names["instance"]
    if any(_differs(written, target / place / inside / f"{name}.dcm") for place in ("pass", "review")):
        verdict, name = "review", f"{name}-{job.id}"
        reasons.append("duplicate")
    place = target / verdict / inside / f"{name}.dcm"
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(written, place)
    return FileRecord(
        id=job.id,
        state=job.state,
        verdict=verdict,
        reasons=tuple(reasons),
        file=place.relative_to(target).as_posix(),
        counts=result["counts"],
        blanked=result["blanked"],
        num_short=result["num_short"],
    )


def _differs(first: Path, second: Path) -> bool:
    """Whether ``second`` is there with other content."""
    if not second.is_file():
        return False
    digests = []
    for path in (first, second):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return digests[0] != digests[1]


def _summed(report: DeidentifyReport, records: Iterable[FileRecord]) -> DeidentifyReport:
    files: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    patients = set()
    blanked = num_short = 0
    for record in records:
        files[record.verdict] += 1
        reasons.update(record.reasons)
        elements.update(record.counts)
        blanked += record.blanked
        num_short += record.num_short
        if record.file is not None:
            patients.add(record.file.split("/")[1])
    return report.model_copy(
        update={
            "complete": True,
            "files": dict(sorted(files.items())),
            "reasons": dict(sorted(reasons.items())),
            "elements": dict(sorted(elements.items())),
            "blanked": blanked,
            "num_short": num_short,
            "num_patients": len(patients),
        }
    )


def _json(report: DeidentifyReport) -> str:
    return report.model_dump_json(indent=2) + "\n"


# -------------------------------------------------------------------------------------------------------------- processes


class _Pool:
    """Child processes, each driven by a thread that waits for it."""

    def __init__(self, children: list[Child], threads: ThreadPoolExecutor) -> None:
        self._idle: SimpleQueue[Child] = SimpleQueue()
        for child in children:
            self._idle.put(child)
        self._threads = threads
        self._window = 4 * len(children)

    def run(self, jobs: Iterable[_Job], work: Path, arguments: tuple[Any, ...]) -> Iterator[tuple[_Job, Mapping[str, Any]]]:
        """Results in the order of the jobs, whoever was faster: of two files with one UID the first keeps the name."""
        waiting: deque[tuple[_Job, Future[Mapping[str, Any]]]] = deque()
        for job in jobs:
            waiting.append((job, self._threads.submit(self._clean, job, work, arguments)))
            if len(waiting) >= self._window:
                first, future = waiting.popleft()
                yield first, future.result()
        for job, future in waiting:
            yield job, future.result()

    def _clean(self, job: _Job, work: Path, arguments: tuple[Any, ...]) -> Mapping[str, Any]:
        child = self._idle.get()
        try:
            result: Mapping[str, Any] = child.call(_FUNCTION, str(job.path), str(work / f"{job.id}.dcm"), *arguments)
        except ChildDiedError as error:
            return {"verdict": "quarantine", "reasons": [error.death]}
        except RuntimeError:  # a panic that is no Exception; its words may be the file's
            return {"verdict": "quarantine", "reasons": ["crash"]}
        finally:
            self._idle.put(child)
        return result


@contextlib.contextmanager
def _pool(num_workers: int, max_memory: int, seconds: float) -> Iterator[_Pool]:
    children = [Child(max_memory=max_memory, seconds=seconds) for _ in range(max(1, num_workers))]
    threads = ThreadPoolExecutor(len(children))
    try:
        yield _Pool(children, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.close()
        threads.shutdown(wait=True)
