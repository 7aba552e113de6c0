"""Pictures that lie in a larger file, read when they are wanted."""

from __future__ import annotations

from medtune.errors import UnreadableImageError, system_reason
from medtune.language import msg
from medtune.types import FilePart

__all__ = ["read_part"]


def read_part(part: FilePart) -> bytes:
    """The bytes of the picture.

    Raises:
        UnreadableImageError: The file is missing, or shorter than it was.
    """
    remedy = msg("Prepare the data set again.")
    try:
        with part.file.open("rb") as file:
            file.seek(part.offset)
            content = file.read(part.num_bytes)
    except OSError as error:
        what = msg("The file cannot be read: {error}", error=str(system_reason(error)))
        raise UnreadableImageError(what, file=part.file, remedy=remedy) from error
    if len(content) != part.num_bytes:
        raise UnreadableImageError(msg("The shard is cut short."), file=part.file, remedy=remedy)
    return content
