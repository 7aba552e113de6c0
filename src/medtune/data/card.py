"""The data set card: what a folder holds, where it comes from and what is wrong with it, as ``README.md`` and ``README.zh-CN.md``.

The head follows the Hugging Face dataset card (huggingface.co/docs/hub/datasets-cards); the questions are those of Gebru et al.,
Datasheets for Datasets (doi:10.1145/3458723), as far as a manifest can answer them. A pure function of its arguments: the same
manifest gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from medtune.data.card_head import head
from medtune.language import Language, Text, msg
from medtune.types import GroupKind, Manifest, SourceRecord, SplitName

__all__ = ["Layout", "Strata", "write_card"]

Layout = Literal["medtune", "llamafactory", "webdataset", "parquet"]
"""How the folder's rows are kept: ``medtune`` is what ``prepare`` writes, the others what ``export`` writes."""

Strata = Mapping[str, Mapping[str, Mapping[SplitName, int]]]
"""Tag (``modality``, ``organ``, ``language``) -> its value -> split -> rows."""

_FILES: dict[Language, str] = {"en": "README.md", "zh": "README.zh-CN.md"}

_PROVENANCE = ("repo", "repository", "hub", "hub_id", "dataset", "dataset_id", "subset", "config", "revision", "version", "variant")
"""Options of a source that say which data were read. Paths, keys and the like stay out."""


def write_card(folder: Path, manifest: Manifest, *, strata: Strata | None = None, layout: Layout = "medtune") -> None:
    """Write ``README.md`` (English, with the head that the Hugging Face hub reads) and ``README.zh-CN.md``.

    Args:
        folder: Must exist.
        manifest: What is told.
        strata: Rows of each split by what a tag says, for tags that matter; not in the manifest.
        layout: Decides what the card says about files and loading.
    """
    strata = strata or {}
    for language, name in _FILES.items():
        body = "\n\n".join(_parts(manifest, strata, layout, language))
        text = head(manifest, sorted(strata.get("language", ())), layout) + body if language == "en" else body
        (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")


def _parts(manifest: Manifest, strata: Strata, layout: Layout, language: Language) -> Iterator[str]:
    def say(text: Text) -> str:
        return text.render(language)

    def table(columns: list[Text], rows: list[list[Any]]) -> str:
        lines = ["| " + " | ".join(say(column) for column in columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(_cell(entry, language) for entry in row) + " |" for row in rows]
        return "\n".join(lines)

    yield f"# {_line(manifest.name)}"
    yield "[中文](README.zh-CN.md)" if language == "en" else "[English](README.md)"
    yield f"**{say(msg('For research only. Not a medical device. Not for diagnosis or treatment decisions.'))}**"
    yield "\n".join(f"- {say(text)}" for text in _statements(manifest))

    yield f"## {say(msg('Counts'))}"
    splits: list[SplitName] = [split for split in ("train", "validation", "test") if manifest.num_samples.get(split, 0)]
    rows: list[list[Any]] = [[split, manifest.num_samples[split], manifest.num_groups.get(split, 0)] for split in splits]
    yield table([msg("split"), msg("rows"), msg("groups")], rows)
    yield say(msg("{count} pictures.", count=manifest.num_images))
    yield table([msg("task"), msg("rows")], [[task, count] for task, count in sorted(manifest.tasks.items())])
    for tag, values in sorted(strata.items()):
        counted: list[list[Any]] = [
            [value, *(of_split.get(split, 0) for split in splits)] for value, of_split in sorted(values.items())
        ]
        if counted:
            yield table([Text(_line(tag)), *(Text(split) for split in splits)], counted)

    yield f"## {say(msg('Sources'))}"
    for source in manifest.sources:
        yield from _source(source, language)

    yield f"## {say(msg('Split'))}"
    yield "\n".join(f"- {say(text)}" for text in _split(manifest))

    if manifest.transforms:
        yield f"## {say(msg('Changes to the pictures'))}"
        yield table(
            [msg("transform"), msg("parameters")],
            [
                [record.name, ", ".join(f"{key}={value}" for key, value in sorted(record.parameters.items()))]
                for record in manifest.transforms
            ],
        )

    left_out = [
        [source.card.name, reason, count] for source in manifest.sources for reason, count in sorted(source.left_out.items())
    ]
    yield f"## {say(msg('Left out'))}"
    if left_out:
        yield say(msg("Records that did not become rows. In the folder that `medtune prepare` made, left_out.jsonl names each."))
        yield table([msg("source"), msg("reason"), msg("records")], left_out)
    else:
        yield say(msg("Every record of the sources became a row."))

    yield f"## {say(msg('Known problems'))}"
    problems = [Text(note) for source in manifest.sources for note in source.card.notes] + list(manifest.warnings)
    said = dict.fromkeys(_line(say(text)) for text in problems)  # a note that several sources share is said once
    yield "\n".join(f"- {problem}" for problem in said) or say(
        msg("The sources name none, and `prepare` met none. `medtune validate` looks further.")
    )

    yield f"## {say(msg('How to load it'))}"
    yield from _loading(manifest, splits, layout, language)

    yield f"## {say(msg('Made by'))}"
    yield say(
        msg(
            "medtune {version}, settings {settings}; rows and picture index have the hash {digest}.",
            version=manifest.medtune_version,
            settings=manifest.settings_hash[:16] or "-",
            digest=manifest.hash,
        )
    )


def _statements(manifest: Manifest) -> Iterator[Text]:
    if manifest.synthetic:
        yield msg("The data are synthetic, in part or in whole: they show that the method works, nothing about patients.")
    yield _GROUPS[manifest.group_kind]
    if manifest.local_only:
        yield msg(
            "Local only: the terms of the data do not allow them to leave this machine. medtune sends nothing made from them to a "
            "remote generator, tracker or hub, and neither may you."
        )
    yield msg(
        "Group ids: pseudonyms where medtune read DICOM, NIfTI or tables, public ids in published sets. Those of conversations and "
        "shards of your own, and of tables said to be de-identified, are copied: see that they name nobody."
    )


_GROUPS: dict[GroupKind, Text] = {
    "patient": msg("Patients are known: the rows of one patient are one group."),
    "study": msg("Patients are unknown, studies are known: two studies of one patient may lie in different splits."),
    "volume": msg("Patients are unknown, volumes are known: two volumes of one patient may lie in different splits."),
    "image": msg(
        "No patient ids: a group is one picture. Slices of one patient may lie in different splits, and scores are too good."
    ),
    "row": msg("No patient ids: a group is a row. Rows of one patient may lie in different splits, and scores are too good."),
}


def _source(source: SourceRecord, language: Language) -> Iterator[str]:
    card = source.card
    yield f"### {_line(card.title)}"
    facts = [
        (msg("source"), f"`{_line(card.name)}`"),
        (msg("licence"), _line(card.licence) or "-"),
        (msg("rows"), str(source.num_samples)),
        (msg("group"), _KINDS[card.group_kind].render(language)),
    ]
    if card.url:
        facts.append((msg("address"), f"<{_line(card.url)}>"))
    if card.citation:
        facts.append((msg("citation"), _line(card.citation)))
    if card.revision:
        facts.append((msg("revision"), f"`{_line(card.revision)}`"))
    options = {key: value for key, value in source.options.items() if key in _PROVENANCE and isinstance(value, (str, int))}
    if options:
        facts.append((msg("read"), ", ".join(f"{key} `{_line(str(value))}`" for key, value in sorted(options.items()))))
    yield "\n".join(f"- {label.render(language)}: {value}" for label, value in facts)


_KINDS: dict[GroupKind, Text] = {
    "patient": msg("patient"),
    "study": msg("study"),
    "volume": msg("volume"),
    "image": msg("picture"),
    "row": msg("row"),
}


def _split(manifest: Manifest) -> Iterator[Text]:
    settings = manifest.split
    if settings.get("kind") == "official":
        yield msg("As the sources publish it. Such splits may share patients and pictures; `medtune validate` counts them.")
    else:
        yield msg(
            "By a hash of the seed and the group (seed {seed}); no group lies in two splits.", seed=str(settings.get("seed", 0))
        )
    fractions = settings.get("fractions")
    if not isinstance(fractions, Mapping):
        return
    if settings.get("kind") == "official":
        yield msg(
            "Unless a source publishes validation rows, they are {share} of the training groups, drawn by a hash of the seed and "
            "the group (seed {seed}).",
            share=str(fractions.get("validation", 0.0)),
            seed=str(settings.get("seed", 0)),
        )
    else:
        if settings.get("assigned"):
            yield msg("Groups that a list of the user names went where it says.")
        yield msg("Shares of the groups: {shares}.", shares=", ".join(f"{name} {share}" for name, share in fractions.items()))


def _loading(manifest: Manifest, splits: list[SplitName], layout: Layout, language: Language) -> Iterator[str]:
    name, split = _line(manifest.name), splits[0] if splits else "train"
    if layout == "medtune":
        yield msg("medtune: name the folder as `data.folder` of a recipe, or open it:").render(language)
        yield (
            "```python\nfrom pathlib import Path\n\nfrom medtune.data.dataset import Dataset\n\n"
            'dataset = Dataset.open(Path("."))\n'
            f'for sample in dataset.rows("{split}"):\n    print(sample.prompt, sample.target)\n```'
        )
    if layout in ("medtune", "llamafactory"):
        yield msg(
            "LLaMA-Factory (pictures must be files: `data.storage: files`, or `medtune export dataset --to llamafactory`):"
        ).render(language)
        yield f"```yaml\ndataset_dir: .\ndataset: {name}_{split}\n```"
    if layout == "webdataset":
        yield msg("WebDataset: tar files in which `<key>.json` is a row and `<key>.*` are its pictures:").render(language)
        yield f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset(".", split="{split}", streaming=True)\n```'
    if layout == "parquet":
        yield msg("Hugging Face datasets, with pictures as the Image feature:").render(language)
        yield f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset(".", split="{split}")\n```'


def _line(text: str) -> str:
    """One line of Markdown: a title or citation from elsewhere must not open a heading or a table of its own."""
    return " ".join(text.split())


def _cell(entry: object, language: Language) -> str:
    text = entry.render(language) if isinstance(entry, Text) else str(entry)
    return _line(text).replace("|", "\\|")
