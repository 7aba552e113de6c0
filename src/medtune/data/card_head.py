"""The YAML head of a data set card, in the terms of the Hugging Face hub (huggingface.co/docs/hub/datasets-cards)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from medtune.types import Manifest

__all__ = ["head"]

_LICENCES = frozenset(
    {
        "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
        "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "odc-by", "odbl", "pddl", "gpl-3.0", "lgpl-3.0",
    }
)  # fmt: skip
"""Of the hub's licence identifiers (docs/hub/repositories-licenses) those that medical data sets carry; SPDX in lower case."""

_CATEGORIES = {
    "caption": "image-to-text",
    "caption-details": "image-to-text",
    "report": "image-to-text",
    "region": "image-text-to-text",
    "region-description": "image-text-to-text",
    "detection": "object-detection",
    "json-record": "image-text-to-text",
    "closed-vqa": "visual-question-answering",
    "open-vqa": "visual-question-answering",
    "text-qa": "question-answering",
    "conversation": "image-text-to-text",
}
"""Task -> the hub's task category."""

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


def head(manifest: Manifest, languages: Sequence[str], layout: str) -> str:
    """The front matter, ``---`` lines included. ``languages``: two-letter codes of the rows' texts, as far as they are tagged."""
    rows = sum(manifest.num_samples.values())
    values: dict[str, Any] = {"pretty_name": manifest.name, **_licence(manifest)}
    if languages:
        values["language"] = list(languages)
    if categories := sorted({_CATEGORIES[task] for task in manifest.tasks if task in _CATEGORIES}):
        values["task_categories"] = categories
    values["size_categories"] = [next((name for limit, name in _SIZES if rows < limit), "100M<n<1B")]
    values["tags"] = ["medical", "radiology", "medtune", *(["synthetic"] if manifest.synthetic else [])]
    values["configs"] = [{"config_name": "default", "data_files": _files(manifest, layout)}]
    return "---\n" + yaml.safe_dump(values, allow_unicode=True, sort_keys=False, width=1000) + "---\n\n"


def _licence(manifest: Manifest) -> dict[str, Any]:
    """The hub's ``license``: the identifier of all sources, the list where they differ, else ``other`` or ``unknown``."""
    stated = {" ".join(source.card.licence.split()) for source in manifest.sources}
    known = {licence.lower() for licence in stated}
    if known and known <= _LICENCES:
        return {"license": sorted(known) if len(known) > 1 else min(known)}
    if known <= {"", "not stated", "unknown"}:
        return {"license": "unknown"}
    return {"license": "other", "license_name": "see-sources", "license_link": "README.md"}


def _files(manifest: Manifest, layout: str) -> list[dict[str, str]]:
    pattern = {"webdataset": "{split}-*.tar", "parquet": "data/{split}-*.parquet"}.get(layout, "{split}.jsonl")
    splits = [split for split in ("train", "validation", "test") if manifest.num_samples.get(split, 0)]
    return [{"split": split, "path": pattern.format(split=split)} for split in splits]
