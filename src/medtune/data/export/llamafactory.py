"""A LLaMA-Factory data set: ShareGPT rows in JSON lines, ``dataset_info.json``, and each picture a file."""

from __future__ import annotations

import json
from pathlib import Path

from medtune.data.dataset import llamafactory_entry, write_row
from medtune.data.export.rows import Rows

__all__ = ["write_llamafactory"]


def write_llamafactory(rows: Rows, folder: Path, max_shard_bytes: int) -> None:  # noqa: ARG001
    """Write each split as ``<split>.jsonl`` and the entry ``<name>_<split>``.

    Where a split has rows with and rows without pictures, those with pictures stand first, each kind in its order. LLaMA-Factory
    reads the file with Hugging Face datasets, which takes a column's type from the first 10 MiB: of nothing but ``"images": []``
    it makes a list of null, and then refuses the first path ("Couldn't cast array of type string to null"; seen with datasets
    4.0.0 and 5.2.0).
    """
    entries = {}
    for split in rows.splits:
        file = folder / f"{split}.jsonl"
        with_pictures = without = 0
        with file.open("w", encoding="utf-8", newline="\n") as lines:
            for sample in rows.of(split):
                if not sample.images:
                    without += 1
                    continue
                with_pictures += 1
                for ref in sample.images:
                    picture = folder / ref.path
                    if not picture.exists():
                        picture.parent.mkdir(parents=True, exist_ok=True)
                        picture.write_bytes(rows.picture(ref, sample))
                lines.write(write_row(sample) + "\n")
            if without:
                lines.writelines(write_row(sample) + "\n" for sample in rows.again(split) if not sample.images)
        entries[f"{rows.name}_{split}"] = llamafactory_entry(file.name, with_pictures=bool(with_pictures))
    (folder / "dataset_info.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
