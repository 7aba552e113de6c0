"""``claim_2024.md`` and ``tripod_llm.md``: reporting checklists, filled with what medtune knows, and blank where it does not.

Numbers are those of the published checklists; each item is paraphrased in medtune's own words, so the published text has to be at
hand when a manuscript is checked. A sentence of medtune's under an item is material for it and never shows that the item is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medtune.evaluation import claim_2024, tripod_llm
from medtune.evaluation.checklist_item import Item
from medtune.evaluation.known import Known, facts
from medtune.evaluation.markdown import plain
from medtune.language import Language, Text, msg
from medtune.runs import atomic_write

__all__ = ["render_checklist", "write_checklists"]


def write_checklists(known: Known, folder: Path, in_language: Language | None = None) -> None:
    """Write both into a run folder, each whole or not at all."""
    for name, module in (("claim_2024.md", claim_2024), ("tripod_llm.md", tripod_llm)):
        atomic_write(folder / name, render_checklist(module.TITLE, module.SOURCE, module.ITEMS, known, in_language))


def render_checklist(title: Text, source: Text, items: Sequence[Item], known: Known, in_language: Language | None = None) -> str:
    """One checklist as Markdown: a section for each part, an unticked box for each item."""
    available = facts(known)
    filled = sum(any(subject in available for subject in item.subjects) for item in items)
    intro = msg(
        "Run {run}. Something is known for {filled} of {count} items; the others are blank. Paraphrased: check against the"
        " published wording. No box is ticked: whether an item is met is for the authors to say.",
        run=known.report.run,
        filled=filled,
        count=len(items),
    )
    lines = [f"# {plain(title.render(in_language))}", "", plain(source.render(in_language)), "", plain(intro.render(in_language))]
    part = None
    for item in items:
        if item.part != part:
            part = item.part
            lines += ["", f"## {plain(part.render(in_language))}", ""]
        lines.append(f"- [ ] **{item.number}** {plain(item.text.render(in_language))}")
        sentences = [text for subject in item.subjects for text in available.get(subject, ())]
        lines += [f"  - {plain(text.render(in_language))}" for text in sentences]
        if not sentences:
            lines.append(f"  - {plain(_BLANK.render(in_language))} ________")
    return "\n".join(lines) + "\n"


_BLANK = msg("(blank: medtune does not know this)")
