"""What the splits have in common, and should not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from medtune.data.findings import Findings
from medtune.language import Text, msg
from medtune.types import Sample, Severity, SplitName

__all__ = ["SplitChecks"]

_EXAMPLES = 3


class _Kind(NamedTuple):
    code: str
    severity: Severity
    message: Callable[..., Text]


def _groups(**fields: str | int) -> Text:
    return msg("{shared} of the {total} groups of {split} also stand in {others}, e.g. {examples}.", **fields)


def _pictures(**fields: str | int) -> Text:
    return msg("{shared} of the {total} pictures of {split} also stand in {others}, e.g. {examples}.", **fields)


def _links(**fields: str | int) -> Text:
    return msg("{shared} of the {total} linked questions of {split} are rephrased in {others}, e.g. {examples}.", **fields)


class SplitChecks:
    """Collects groups, pictures and rephrasing links of each split, and compares the splits at the end."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._groups: dict[SplitName, dict[str, None]] = {}
        self._pictures: dict[SplitName, dict[str, str]] = {}
        self._links: dict[SplitName, dict[str, None]] = {}
        self._ids: dict[SplitName, set[str]] = {}

    def look(self, sample: Sample, split: SplitName) -> None:
        """Take note of one row."""
        self._groups.setdefault(split, {})[sample.group] = None
        for image in sample.images:
            self._pictures.setdefault(split, {})[image.sha256] = image.path
        self._ids.setdefault(split, set()).add(sample.id)
        linked = sample.metadata.get("linked_id")
        if linked is not None:
            # A link names the other row's id in the source; several sources together prefix their ids.
            prefix, slash, _ = sample.id.rpartition("/")
            self._links.setdefault(split, {})[f"{prefix}{slash}{linked}"] = None

    @property
    def has_links(self) -> bool:
        """Some row names the row that it rephrases."""
        return bool(self._links)

    def conclude(self, *, official: bool) -> None:
        """Compare each split with those before it. A split that the user asked for by name gives warnings, not errors."""
        severity: Severity = "warning" if official else "error"
        self._compare(_Kind("group-overlap", severity, _groups), self._groups, self._groups)
        pictures = {split: dict.fromkeys(found) for split, found in self._pictures.items()}
        names = {digest: path for found in self._pictures.values() for digest, path in found.items()}
        self._compare(_Kind("image-overlap", severity, _pictures), pictures, pictures, names)
        links = {split: {**self._links.get(split, {}), **dict.fromkeys(ids)} for split, ids in self._ids.items()}
        for split, found in self._links.items():
            others = [other for other in self._ids if other != split]
            self._report(
                _Kind("linked-overlap", severity, _links), split, list(found), {key for o in others for key in links[o]}, others, {}
            )

    def _compare(
        self,
        kind: _Kind,
        found: Mapping[SplitName, Mapping[str, object]],
        known: Mapping[SplitName, Mapping[str, object]],
        names: Mapping[str, str] | None = None,
    ) -> None:
        splits = list(found)
        for position, split in enumerate(splits[1:], start=1):
            others = splits[:position]
            self._report(kind, split, list(found[split]), {key for other in others for key in known[other]}, others, names or {})

    def _report(
        self, kind: _Kind, split: SplitName, keys: list[str], elsewhere: set[str], others: list[SplitName], names: Mapping[str, str]
    ) -> None:
        shared = [key for key in keys if key in elsewhere]
        if not shared:
            return
        self.findings.add(
            kind.code,
            kind.severity,
            kind.message(
                shared=len(shared),
                total=len(keys),
                split=split,
                others=", ".join(others),
                examples=", ".join(names.get(key, key) for key in shared[:_EXAMPLES]),
            ),
            msg("Split by group (data.split.kind: group-hash); numbers measured on such a split are too good."),
            split=split,
            count=len(shared),
        )
