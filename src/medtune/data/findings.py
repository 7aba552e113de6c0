"""Findings of ``validate``, within bounds: the first thousand of a kind by name, the rest as a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from medtune.language import Text, msg
from medtune.types import Issue, Severity, SplitName

__all__ = ["CORRECT_SOURCE", "MAX_NAMED", "Findings"]

MAX_NAMED = 1000
"""Findings of one code and split that are listed one by one: a set of a million rows may have a million of them."""

CORRECT_SOURCE = msg("Correct the record in the source and prepare again, or leave it out.")
"""The remedy of most findings about one row."""


class Findings:
    """Collects issues in the order in which they are found."""

    def __init__(self) -> None:
        self._issues: list[Issue] = []
        self._counts: Counter[tuple[str, SplitName | None]] = Counter()
        self._more: dict[tuple[str, SplitName | None], Issue] = {}
        self.watch: Callable[[Issue], None] | None = None
        """Hears of every finding, also of those that are only counted."""

    def add(
        self,
        code: str,
        severity: Severity,
        message: Text,
        remedy: Text | None = None,
        *,
        split: SplitName | None = None,
        sample: str | None = None,
        file: str | None = None,
        count: int = 1,
    ) -> None:
        """Note a finding. ``count`` is the number of samples that one finding stands for."""
        kind = (code, split)
        self._counts[kind] += 1
        issue = Issue(
            code=code, severity=severity, message=message, remedy=remedy, split=split, sample=sample, file=file, count=count
        )
        if self.watch is not None:
            self.watch(issue)
        if self._counts[kind] <= MAX_NAMED:
            self._issues.append(issue)
            return
        more = self._more.get(kind)
        total = count + (more.count if more else 0)
        self._more[kind] = issue.model_copy(
            update={
                "message": msg("{count} more findings of the kind {code}.", count=total, code=code),
                "sample": None,
                "file": None,
                "count": total,
            }
        )

    def issues(self) -> tuple[Issue, ...]:
        """All findings; those that are only counted come last."""
        return (*self._issues, *self._more.values())
