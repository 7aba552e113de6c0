"""Keyed pseudonyms: the same identifier always becomes the same name, and nobody without the key can go back or test a guess.

A plain hash of a hospital number is no pseudonym: the numbers are few enough to hash them all. So every name is an HMAC-SHA256
(RFC 2104) under a secret key that lies outside the data. Whoever has the key can make the names again; keep it, or delete it.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import secrets
import stat
import tempfile
import unicodedata
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from medtune.errors import DataError, system_reason
from medtune.language import msg

__all__ = ["MAX_SHIFT_DAYS", "PseudonymKind", "Pseudonyms", "default_key_file", "load_key"]

PseudonymKind = Literal["patient", "study", "series", "instance"]

MAX_SHIFT_DAYS = 3652
"""Dates are moved into the past by 1 to this many days (ten years). A choice of this project: PS3.15, E.3.6 sets no range."""

_KEY_BYTES = 32
"""As many as SHA-256 gives: RFC 2104, section 3 discourages fewer."""


class Pseudonyms:
    """Names, UIDs and date shifts under one key.

    Args:
        key: At least 32 secret bytes; see :func:`load_key`.

    Raises:
        ValueError: The key is shorter.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_BYTES:
            raise ValueError(f"a pseudonym key has at least {_KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    def __repr__(self) -> str:
        return f"Pseudonyms(fingerprint={self.fingerprint!r})"  # the key never reaches a log

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell one key from another and say nothing else of it."""
        return self._digest("fingerprint", "").hex()[:16]

    def name(self, kind: PseudonymKind, value: str) -> str:
        """16 hexadecimal digits (64 bits) for an identifier.

        Surrounding blanks do not count: DICOM pads values with them (PS3.5, 6.2). Nor does the Unicode form. The same value as
        another ``kind`` has another name. Among n identifiers, two share a name with a probability of about n²/2⁶⁵.
        """
        return self._digest(kind, value).hex()[:16]

    def uid(self, value: str) -> str:
        """A UID for a UID: ``2.25.`` and a UUID as a decimal number (PS3.5, B.2), of RFC 9562's custom version 8."""
        bits = bytearray(self._digest("uid", value)[:16])
        bits[6] = 0x80 | bits[6] & 0x0F
        bits[8] = 0x80 | bits[8] & 0x3F
        return f"2.25.{uuid.UUID(bytes=bytes(bits)).int}"

    def shift_days(self, patient: str) -> int:
        """Days to add to every date of a patient: -:data:`MAX_SHIFT_DAYS` to -1. Intervals within a patient stay as they are."""
        return -1 - int.from_bytes(self._digest("shift", patient), "big") % MAX_SHIFT_DAYS

    def _digest(self, purpose: str, value: str) -> bytes:
        plain = unicodedata.normalize("NFC", value).strip(" \t\r\n\0")
        return hmac.digest(self._key, f"{purpose}\0{plain}".encode("utf-8", "surrogatepass"), "sha256")


def default_key_file() -> Path:
    """``pseudonym.key`` in ``medtune`` of the user's configuration folder (``XDG_CONFIG_HOME``, else ``~/.config``)."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG Base Directory Specification tells programs to ignore a path that is not absolute.
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
    return base / "medtune" / "pseudonym.key"


def load_key(path: Path, *, create: bool, outside: Iterable[Path] = ()) -> bytes:
    """Read the secret key: one line of 64 hexadecimal digits in a file that only its owner may read.

    Args:
        path: The key file.
        create: Make a key of 32 random bytes (mode 0600) where there is none.
        outside: Folders that the key may not lie in: the data, and what is made from them.

    Raises:
        DataError: There is no key and ``create`` is false; the file lies in one of ``outside``; others may read it; it holds
            no key; or it cannot be read or written.
    """
    path = path.expanduser()
    for folder in outside:
        data = folder.expanduser().resolve()
        if path.resolve().is_relative_to(data):
            usual = default_key_file()
            raise DataError(
                msg("The pseudonym key lies inside the data: whoever gets the data gets the key."),
                file=path,
                remedy=msg("Keep the key in another folder, for example {file}.", file=usual)
                if not usual.resolve().is_relative_to(data)  # the data may lie in the home folder itself
                else msg("Put the data into a folder of its own, or name a key elsewhere (--key, key_file)."),
            )
    try:
        if create and not path.exists():
            _create(path)
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4096)
    except FileNotFoundError as error:
        raise DataError(
            msg("There is no pseudonym key."), file=path, remedy=msg("Name the key file that the other data were made with.")
        ) from error
    except OSError as error:
        raise DataError(
            msg("The pseudonym key cannot be read or written: {error}", error=str(system_reason(error))), file=path
        ) from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise DataError(msg("The pseudonym key may be read by others."), file=path, remedy=msg("chmod 600 {file}", file=path))
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES:
        raise DataError(
            msg("This file holds no pseudonym key: a line of {digits} hexadecimal digits.", digits=2 * _KEY_BYTES),
            file=path,
            remedy=msg("Name another file; a new key is made where there is no file yet."),
        )
    return key


def _create(path: Path) -> None:
    """Write a new key; when another process was faster, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_bytes(_KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError as error:
            # Some network and FAT file systems have no links; there the last of two simultaneous writers would win.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
