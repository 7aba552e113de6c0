"""``report.md``: a model card for the Hugging Face hub, with the numbers of a report.

The front matter has only fields that the hub documents (https://huggingface.co/docs/hub/model-cards) and that are known:
``base_model`` where it is a repository's name, ``library_name`` for a PEFT adapter, ``pipeline_tag``, ``tags``. Licence, language
and data set are the author's to state, as comments say. ``model-index`` is left out, because its results are read as claims
on named public benchmarks.
"""

from __future__ import annotations

import re

import yaml

from medtune.evaluation.kinds import in_short
from medtune.evaluation.known import Known, facts
from medtune.evaluation.markdown import plain
from medtune.evaluation.table import format_interval, format_value, headline_rows, table_control
from medtune.evaluation.wording import PAGE, VERDICTS, control_title
from medtune.language import Language, Text, msg

__all__ = ["front_matter", "render_model_card"]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

_SECTIONS = (
    (msg("Model"), ("model", "method", "initialization")),
    (msg("Data"), ("dataset", "sizes", "tasks", "split", "disjoint", "preprocessing", "left_out")),
    (msg("Training"), ("training", "selection", "compute")),
)
_ABSTENTION = (PAGE["abstention_title"], ("abstention",))
_AFTER = (
    (msg("How it was measured"), ("internal", "evaluated", "generation", "uncertainty", "robustness", "subgroups", "readers")),
    (msg("Versions"), ("libraries",)),
)


def front_matter(known: Known) -> dict[str, object]:
    """The fields of the card's YAML head."""
    found: dict[str, object] = {}
    base = known.setting("model.base")
    if isinstance(base, str) and _REPOSITORY.fullmatch(base):
        found["base_model"] = base
    if known.setting("adapter.kind") in ("lora", "qlora", "dora"):
        found["library_name"] = "peft"
    found["pipeline_tag"] = "image-text-to-text"
    found["tags"] = ["medtune", "medical", *(["synthetic-data"] if known.report.synthetic else [])]
    return found


def render_model_card(known: Known, in_language: Language | None = None) -> str:
    """The card: intended use and warnings first, then results, data and training, then what is left to the author."""
    report, available = known.report, facts(known)

    def say(text: Text) -> str:
        return plain(text.render(in_language))

    def listed(subjects: tuple[str, ...]) -> list[str]:
        return [f"- {say(text)}" for subject in subjects for text in available.get(subject, ())]

    lines = ["---", yaml.safe_dump(front_matter(known), sort_keys=False, allow_unicode=True).rstrip()]
    lines += ["# license: the author's to state; the base model's and the data's licences bind it", "---", ""]
    lines += [f"# {plain(report.run)}", "", f"**{say(PAGE['intended_use'])}**", ""]
    alerts = [*report.alerts, *(text for text in report.warnings if text not in report.alerts)]
    if alerts:
        lines += [f"## {say(PAGE['warnings'])}", "", *(f"- {say(text)}" for text in in_short(alerts)), ""]
    lines += [f"## {say(PAGE['results'])}", "", *_table(known, in_language), ""]
    for title, subjects in (_ABSTENTION, *_SECTIONS, *_AFTER):
        if sentences := listed(subjects):
            lines += [f"## {say(title)}", "", *sentences, ""]
    lines += [f"## {say(_OPEN)}", "", *(f"- {say(text)} ________" for text in _BLANKS)]
    return "\n".join(lines) + "\n"


_OPEN = msg("Left to the author")
_BLANKS = (
    msg("Intended use and users:"),
    msg("Uses that are out of scope:"),
    msg("Licence:"),
    msg("Consent and ethics approval of the data:"),
    msg("Contact:"),
)


_ARROW = {"higher": "↑", "lower": "↓", "neither": ""}


def _table(known: Known, in_language: Language | None) -> list[str]:
    """The short table of the report."""
    report = known.report
    control = table_control(report)
    rows = headline_rows(report)
    heads = [PAGE["measure"], PAGE["base"], PAGE["tuned"], PAGE["difference"]]
    heads += [control_title(control)] if control is not None else []
    names = [plain(head.render(in_language)) for head in heads] + ["n"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{plain(Text(row.metric.title).render(in_language))} {_ARROW[row.metric.direction]}".rstrip()]
        for entry in (row.base, row.tuned):
            cells.append(
                "–"
                if entry is None
                else f"{format_value(entry.value, row.metric)} ({format_interval(entry.low, entry.high, row.metric)})".replace(
                    " ()", ""
                )
            )
        change = "–"
        if row.difference is not None and row.difference.difference is not None:
            interval = format_interval(row.difference.low, row.difference.high, row.metric, signed=True)
            change = f"{format_value(row.difference.difference, row.metric, signed=True)} ({interval})".replace(" ()", "")
            if row.verdict is not None:
                change += f", {VERDICTS[row.verdict].render(in_language)}"
        cells.append(change)
        if control is not None:
            cells.append("–" if row.control is None else format_value(row.control.value, row.metric))
        cells.append(f"{row.num_scored} (+{row.num_unscored})" if row.num_unscored else str(row.num_scored))
        lines.append("| " + " | ".join(cells) + " |")
    return lines
