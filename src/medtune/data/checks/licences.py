"""What may be done with the data, as far as sources and rows say it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from medtune.data.checks.check import Check, Context, Place
from medtune.language import Text, msg
from medtune.types import Sample

__all__ = ["Licences", "is_missing", "is_non_commercial", "is_without_derivatives"]

_MISSING = re.compile(r"|-|\?|none|n/?a|unknown|not stated|see the (?:data ?set )?page.*|unlicen[cs]ed", re.IGNORECASE)
_NON_COMMERCIAL = re.compile(
    r"\bNC\b|-NC\b|non-?\s?commercial|research (?:use )?only|not for commercial|PhysioNet Credentialed", re.IGNORECASE
)
_NO_DERIVATIVES = re.compile(r"\bND\b|-ND\b|no ?derivatives", re.IGNORECASE)
_MOST_KINDS = 1000
"""Kinds of (source, licence) that are counted apart; there are a few dozen at most in a sound set."""


def is_missing(licence: str) -> bool:
    """Whether a licence statement says nothing."""
    return _MISSING.fullmatch(licence.strip()) is not None


def is_non_commercial(licence: str) -> bool:
    """Whether a statement forbids commercial use (Creative Commons NC, "research only", ...)."""
    return _NON_COMMERCIAL.search(licence) is not None


def is_without_derivatives(licence: str) -> bool:
    """Whether a statement forbids to pass on changed copies (Creative Commons ND)."""
    return _NO_DERIVATIVES.search(licence) is not None


class Licences(Check):
    """Licences by source, and by the part of a source that ``source_set`` names. Keeps one number a kind."""

    names = ("licences",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._cards = {entry.card.name: entry.card for entry in context.dataset.manifest.sources}
        self._rows: Counter[tuple[str, str]] = Counter()

    def row(self, sample: Sample, place: Place) -> None:
        del place
        stated = sample.metadata.get("licence")
        part = sample.metadata.get("source_set")
        card = self._cards.get(sample.source.partition("#")[0])
        licence = stated if isinstance(stated, str) else card.licence if card is not None else ""
        source = f"{sample.source}/{part}" if isinstance(part, str) and part else sample.source
        if (source, licence) in self._rows or len(self._rows) < _MOST_KINDS:
            self._rows[source, licence] += 1

    def conclude(self) -> Mapping[str, Text]:
        for (source, licence), count in self._rows.items():
            if is_missing(licence):
                self._tell(
                    "licence-missing",
                    msg(
                        "{count} rows of {source} have no licence: what may be done with them is not known.",
                        count=count,
                        source=source,
                    ),
                    msg("Ask who published them; until then, do not pass on the data or what was trained on them."),
                )
            elif is_non_commercial(licence):
                self._tell(
                    "licence-non-commercial",
                    msg(
                        "{count} rows of {source} are not for commercial use ({licence}).",
                        count=count,
                        source=source,
                        licence=licence,
                    ),
                    msg("A model trained on them may inherit the limit: ask a lawyer before you sell it."),
                    severity="info",
                )
            if is_without_derivatives(licence):
                self._tell(
                    "licence-no-derivatives",
                    msg(
                        "{count} rows of {source} may not be passed on in changed form ({licence}).",
                        count=count,
                        source=source,
                        licence=licence,
                    ),
                    msg("Do not publish this data set: it is a changed copy."),
                )
        stated = sorted({licence for _, licence in self._rows if not is_missing(licence)})
        if len(stated) > 1:
            self._tell(
                "licence-mixed",
                msg("The rows are under {count} licences: {licences}.", count=len(stated), licences="; ".join(stated[:5])),
                msg("The strictest of them is that of the whole; leave sources out to get another."),
                severity="info",
            )
        return {}

    def _tell(self, code: str, message: Text, remedy: Text, *, severity: str = "warning") -> None:
        self.findings.add(code, severity, message, remedy)  # type: ignore[arg-type]
