"""The one tree of errors. Each says what happened, where (file, sample, recipe key) and what to do.

::

    MedtuneError
    ├── RecipeError              a setting is unknown, malformed or contradicts another
    ├── PluginError              a name in the recipe is not known
    ├── MissingDependencyError   an optional package is not installed
    ├── DataError                a data set, a row or a record is wrong
    │   └── UnreadableImageError a picture cannot be decoded within the limits
    ├── ModelError               a model folder, an adapter or its contract is wrong
    ├── TrainingError            a training run cannot start or go on
    ├── GenerationError          a generator failed
    ├── EvaluationError          predictions and data set do not fit each other
    └── RunError                 a run folder is missing, held by somebody else or incomplete

Users see :class:`MedtuneError` (exit code 2); an ``assert`` or any other exception is a defect of medtune.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from medtune.language import Language, Text, msg

__all__ = [
    "DataError",
    "EvaluationError",
    "GenerationError",
    "MedtuneError",
    "MissingDependencyError",
    "ModelError",
    "PluginError",
    "RecipeError",
    "RunError",
    "TrainingError",
    "UnreadableImageError",
    "system_reason",
]


def system_reason(error: OSError) -> Text:
    """Why the operating system refused, in the reader's language where the reason is a common one."""
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return msg("permission denied")
        case errno.EROFS:
            return msg("the file system is read-only")
        case errno.ENOSPC | errno.EDQUOT:
            return msg("no space is left")
        case errno.ENOTDIR | errno.EEXIST:
            return msg("a part of the path is a file, not a folder")
        case errno.EISDIR:
            return msg("this is a folder, not a file")
        case errno.ENOENT:
            return msg("there is no such file or folder")
        case _:
            return msg("{detail}", detail=error.strerror or str(error))


class MedtuneError(Exception):
    """Something that a user can put right.

    Args:
        what: What happened, one sentence.
        file: The file or folder concerned.
        sample: The id of the sample concerned.
        key: The recipe key concerned, as a dotted path.
        remedy: What to do about it, one sentence.
    """

    def __init__(
        self,
        what: Text,
        *,
        file: str | os.PathLike[str] | None = None,
        sample: str | None = None,
        key: str | None = None,
        remedy: Text | None = None,
    ) -> None:
        self.what = what
        self.file = None if file is None else os.fspath(file)
        self.sample = sample
        self.key = key
        self.remedy = remedy
        super().__init__(what)

    def render(self, in_language: Language | None = None) -> str:
        """The whole message: the sentence, one line for each place, and the remedy."""
        lines = [self.what.render(in_language)]
        if self.file is not None:
            lines.append(msg("  file: {file}", file=self.file).render(in_language))
        if self.sample is not None:
            lines.append(msg("  sample: {sample}", sample=self.sample).render(in_language))
        if self.key is not None:
            lines.append(msg("  recipe key: {key}", key=self.key).render(in_language))
        if self.remedy is not None:
            lines.append(msg("  what to do: {remedy}", remedy=self.remedy.render(in_language)).render(in_language))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class RecipeError(MedtuneError):
    """A recipe is wrong. ``faults`` holds every fault found, not only the first."""

    def __init__(
        self,
        what: Text,
        *,
        faults: Sequence[tuple[str, Text]] = (),
        file: str | os.PathLike[str] | None = None,
        key: str | None = None,
        remedy: Text | None = None,
    ) -> None:
        super().__init__(what, file=file, key=key, remedy=remedy)
        self.faults = tuple(faults)

    def render(self, in_language: Language | None = None) -> str:
        head = super().render(in_language)
        return "\n".join([head, *(f"  - {key}: {fault.render(in_language)}" for key, fault in self.faults)])


class PluginError(MedtuneError):
    """A plug-in name is unknown, or what it names cannot be loaded."""


class MissingDependencyError(MedtuneError):
    """An optional package is needed for what was asked. The remedy is the pip line."""

    def __init__(self, package: str, *, needed_for: Text, pip: str | None = None) -> None:
        super().__init__(
            msg("{needed_for} needs the package {package}, which is not installed.", needed_for=str(needed_for), package=package),
            remedy=msg("pip install {package}", package=pip or package),
        )


class DataError(MedtuneError):
    """A data set, one of its rows or a source record is wrong."""


class UnreadableImageError(DataError):
    """A picture is missing, truncated, too large or not a picture."""


class ModelError(MedtuneError):
    """A model folder, an adapter or the adapter contract is wrong."""


class TrainingError(MedtuneError):
    """A training run cannot start or cannot go on."""


class GenerationError(MedtuneError):
    """A generator failed to answer."""


class EvaluationError(MedtuneError):
    """Predictions, scores and data set do not fit each other."""


class RunError(MedtuneError):
    """A run folder is missing, incomplete or held by another process."""
