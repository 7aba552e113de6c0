"""``review/key.json``: which answer of a reader review is whose. It stays in the run folder, apart from the page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from medtune.errors import EvaluationError
from medtune.language import msg
from medtune.schema import read_fault
from medtune.types import Document, Generation

__all__ = ["CaseKey", "ReviewKey", "answers_digest", "read_key", "review_folder"]


class CaseKey(Document):
    """One case: its sample, its group (as a number), and whose answer is A."""

    case: str
    sample_id: str
    group: int
    a: Literal["first", "second"]


class ReviewKey(Document):
    """``key.json``. ``answers`` is a digest of the answers that were shown: marks are of these and of no later ones."""

    format_version: Literal[1] = 1
    review: str
    first: str
    second: str
    dataset_hash: str
    seed: int
    num_identical: int
    answers: str
    cases: tuple[CaseKey, ...]


def review_folder(run: Path) -> Path:
    """Where the review of a run lies."""
    return run / "review"


def read_key(run: Path) -> ReviewKey:
    """``key.json`` of a run's review.

    Raises:
        EvaluationError: It is absent or damaged.
    """
    path = review_folder(run) / "key.json"
    try:
        return ReviewKey.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            msg("The key of the review cannot be read: {error}", error=read_fault(error)),
            file=path,
            remedy=msg("Make the review with `medtune review {run}`.", run=run),
        ) from error


def answers_digest(answers: Sequence[Mapping[str, Generation]], samples: Sequence[str]) -> str:
    """16 hexadecimal digits that name the texts of ``samples`` by both models."""
    digest = hashlib.sha256()
    for name in sorted(samples):
        for side in answers:
            text = side[name].text.strip() if name in side else "\0"
            digest.update(f"{name}\0{len(text)}\0{text}\0".encode())
    return digest.hexdigest()[:16]
