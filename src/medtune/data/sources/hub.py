"""Data files of a Hugging Face or ModelScope data set, read from the hub at one commit.

An address is ``hf://owner/name[@revision][/path]`` or ``modelscope://owner/name[@revision][/path]``; the revision may also stand at
the end. It goes wherever a source takes the path of its data files. A branch is resolved to its commit once a process, and files
carry the commit in their path, so that the processes that share the work, and the manifest, speak of one state.

From Hugging Face only the ranges that are read are fetched, with the hub client's own retries; its settings hold (``HF_ENDPOINT``
for a mirror, ``HF_TOKEN``, ``HF_HUB_OFFLINE``). ModelScope has no such reader: its files are fetched whole into its cache.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast
from urllib.parse import quote, unquote

from medtune.errors import DataError, MissingDependencyError
from medtune.language import Text, msg

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["HubAddress", "hub_address", "hub_files", "open_data", "revision_of"]

# pathlib writes hf:// as hf:/.
_REPO = r"(hf|modelscope):/{1,2}(?:datasets/)?([\w.-]+/[\w.-]+)"
_REVISION_FIRST = re.compile(_REPO + "@([^/@]+)(?:/(.*))?")
_REVISION_LAST = re.compile(_REPO + "(?:/([^@]*))?(?:@([^@]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK_BYTES = 2**20
"""Fetched at least at a time. The footer of a Parquet file and a picture of a row are mostly smaller."""


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A data set on a hub, or a file or folder of it.

    Attributes:
        repo: ``owner/name``.
        revision: Branch, tag or commit; None = the hub's default branch.
        inside: POSIX path in the data set; empty = all of it.
    """

    hub: Literal["hf", "modelscope"]
    repo: str
    revision: str | None = None
    inside: str = ""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.hub}://{self.repo}{revision}" + (f"/{self.inside}" if self.inside else "")

    @property
    def page(self) -> str:
        """The data set's page."""
        return f"{_endpoint(self.hub)}/datasets/{self.repo}"


def hub_address(path: Path | str) -> HubAddress | None:
    """The address that a path is, or None for a path on this machine."""
    text = str(path)
    if match := _REVISION_FIRST.fullmatch(text):
        hub, repo, revision, inside = match.groups()
    elif match := _REVISION_LAST.fullmatch(text):
        hub, repo, inside, revision = match.groups()
    else:
        return None
    kind = cast('Literal["hf", "modelscope"]', hub)
    return HubAddress(kind, repo, unquote(revision) if revision else None, (inside or "").strip("/"))


def revision_of(path: Path | str) -> str:
    """The commit that a path's data are read at; empty for a path on this machine.

    Raises:
        DataError: As :func:`hub_files`.
    """
    address = hub_address(path)
    return _pinned(address).revision or "" if address is not None else ""


def hub_files(address: HubAddress, suffixes: Sequence[str]) -> list[Path]:
    """The files of a data set that an address names, sorted: a file, a folder's files with one of ``suffixes``, or a pattern.

    Each is a path that :func:`hub_address` reads, with the commit in it.

    Raises:
        DataError: There are none; the data set does not exist or needs permission; or the hub cannot be reached.
        MissingDependencyError: The hub's package is not installed.
    """
    pinned = _pinned(address)
    inside = pinned.inside
    names = _listed(pinned)
    if inside in names:
        return [_path(pinned, inside)]
    if any(letter in inside for letter in "*?["):
        # As for files on this machine, ** crosses folders and * does not.
        pattern = re.escape(inside).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        found = [name for name in names if re.fullmatch(pattern, name)]
    else:
        below = f"{inside}/" if inside else ""
        found = [name for name in names if name.startswith(below) and name.lower().endswith(tuple(suffixes))]
    if not found:
        raise DataError(
            msg("The data set has no such data file (looked for {suffixes}).", suffixes=", ".join(suffixes)),
            file=str(pinned),
            key="data.sources.options.path",
            remedy=msg("Look at the files on its page: {page}", page=f"{pinned.page}/tree/{pinned.revision or 'main'}"),
        )
    return [_path(pinned, name) for name in sorted(found)]


def open_data(file: Path) -> BinaryIO:
    """A data file for reading, on this machine or on a hub; seekable.

    Raises:
        DataError: The hub does not give it. What goes wrong later, while it is read, is told the same way.
    """
    address = hub_address(file)
    if address is None:
        return file.open("rb")
    pinned = _pinned(address)
    if address.hub == "modelscope":
        with _told(pinned):
            return Path(_modelscope("dataset_file_download")(pinned.repo, file_path=pinned.inside, revision=pinned.revision)).open(
                "rb"
            )
    with _told(pinned):
        opened = _file_system().open(f"datasets/{pinned.repo}@{pinned.revision}/{pinned.inside}", "rb", block_size=_BLOCK_BYTES)
    return cast("BinaryIO", io.BufferedReader(_HubFile(opened, pinned), _BLOCK_BYTES))


class _HubFile(io.RawIOBase):
    """A file of a hub whose errors are told as the user's."""

    def __init__(self, opened: Any, address: HubAddress) -> None:
        self._opened = opened
        self._address = address

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        with _told(self._address):
            data = self._opened.read(len(target))
        target[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def close(self) -> None:
        self._opened.close()
        super().close()


def _path(address: HubAddress, name: str) -> Path:
    return Path(f"{address.hub}://{address.repo}@{quote(address.revision or '', safe='')}/{name}")


def _pinned(address: HubAddress) -> HubAddress:
    return dataclasses.replace(address, revision=_commit(dataclasses.replace(address, inside=""), _endpoint(address.hub)))


@functools.cache
def _commit(address: HubAddress, endpoint: str) -> str | None:  # noqa: ARG001 (a part of the cache's key)
    """The commit of an address's revision, asked for once: a branch that moves meanwhile must not mix two states."""
    if address.revision is not None and _COMMIT.fullmatch(address.revision):
        return address.revision
    if address.hub == "modelscope":
        return address.revision or "master"  # its client tells no commit for a branch
    with _told(address):
        return cast("str", _hf_api().dataset_info(address.repo, revision=address.revision).sha)


def _listed(address: HubAddress) -> list[str]:
    with _told(address):
        if address.hub == "hf":
            return list(_hf_api().list_repo_files(address.repo, revision=address.revision, repo_type="dataset"))
        return [entry["Path"] for entry in _modelscope_entries(address)]


def _modelscope_entries(address: HubAddress) -> Iterator[dict[str, Any]]:
    api, number = _modelscope("HubApi")(), 1
    while page := api.get_dataset_files(
        repo_id=address.repo, revision=address.revision, recursive=True, page_number=number, page_size=100
    ):
        yield from (entry for entry in page if entry.get("Type") != "tree")
        number += 1
        if len(page) < 100:
            return


def _modelscope(name: str) -> Callable[..., Any]:
    try:
        import modelscope.hub.api
        import modelscope.hub.file_download
    except ImportError as error:
        raise MissingDependencyError(
            "modelscope", needed_for=msg("An address on ModelScope"), pip="'medtune[modelscope]'"
        ) from error
    found: Callable[..., Any] = getattr(modelscope.hub.api if name == "HubApi" else modelscope.hub.file_download, name)
    return found


def _endpoint(hub: str) -> str:
    if hub == "modelscope":
        return "https://www.modelscope.cn"
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _hf_api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint("hf"))


def _file_system() -> Any:
    from huggingface_hub import HfFileSystem

    return HfFileSystem(endpoint=_endpoint("hf"))


@contextmanager
def _told(address: HubAddress) -> Iterator[None]:
    """Errors of a hub's client, of which there are many unrelated classes, become one that says what to do."""
    key = "data.sources.options.path"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if address.hub == "hf" and offline:
        raise DataError(
            msg("The data set lies on Hugging Face, and HF_HUB_OFFLINE forbids to go there."),
            file=str(address),
            key=key,
            remedy=msg(
                "Fetch it beforehand with `hf download --repo-type dataset {repo}`, and give its folder.", repo=address.repo
            ),
        )
    try:
        yield
    except (DataError, MissingDependencyError):
        raise
    except Exception as error:
        what, remedy = _reason(error, address)
        raise DataError(what, file=str(address), key=key, remedy=remedy) from error


def _reason(error: Exception, address: HubAddress) -> tuple[Text, Text]:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        return (
            msg("The data set {repo} is given only to those who accepted its conditions.", repo=address.repo),
            msg("Accept them at {page}, then run `hf auth login` or set HF_TOKEN.", page=address.page),
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            msg("The data set {repo} has no revision {revision}.", repo=address.repo, revision=address.revision or "main"),
            msg("Its page names them: {page}", page=address.page),
        )
    if isinstance(error, (errors.EntryNotFoundError, FileNotFoundError)):
        return (
            msg("The data set {repo} has no file {name}.", repo=address.repo, name=address.inside),
            msg("Its page names them: {page}", page=address.page),
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            msg("There is no data set {repo} on this hub.", repo=address.repo),
            msg("Check the spelling; for a private data set run `hf auth login` first."),
        )
    return (
        msg("The hub does not give the data: {error}", error=(str(error) or type(error).__name__).splitlines()[0]),
        msg("Go online, set HF_ENDPOINT to a mirror, or fetch the data set elsewhere and give its folder."),
    )
