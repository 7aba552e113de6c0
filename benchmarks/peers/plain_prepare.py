"""The scripts that users write today, from their description in public write-ups; the peers of ``benchmarks/prepare.py``.

``plain``: each picture of a Parquet file is decoded and saved again as ``<id>.jpg``, and a ShareGPT file names it.
``enhanced``: ``datasets.map`` over the Parquet file with CLAHE (clip limit 2.0, 8 x 8 tiles) on the greys and a letterbox of 448
pixels on black, then saved as a data set.

Run by the benchmark: ``python plain_prepare.py plain|enhanced SHARD.parquet OUT``.
"""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path
from typing import Any


def plain(shard: Path, out: Path) -> None:
    import pandas as pd
    from PIL import Image

    (out / "images").mkdir(parents=True)
    records = []
    for _, row in pd.read_parquet(shard).iterrows():
        path = out / "images" / f"{row['id']}.jpg"
        Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").save(path)
        messages = [{"role": "user", "content": "<image>What is the diagnosis?"}, {"role": "assistant", "content": row["caption"]}]
        records.append({"messages": messages, "images": [f"images/{path.name}"]})
    random.Random(0).shuffle(records)
    cut = len(records) * 8 // 10
    for name, part in (("train", records[:cut]), ("validation", records[cut:])):
        (out / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False, indent=2), encoding="utf-8")


def enhanced(shard: Path, out: Path) -> None:
    import cv2
    import datasets
    import numpy as np
    from PIL import Image

    equalise = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        grey = equalise.apply(np.array(row["image"].convert("L")))
        height, width = grey.shape
        scale = 448 / max(height, width)
        resized = cv2.resize(grey, (round(width * scale), round(height * scale)))
        canvas = np.zeros((448, 448), np.uint8)
        top, left = (448 - resized.shape[0]) // 2, (448 - resized.shape[1]) // 2
        canvas[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
        messages = [{"role": "user", "content": "<image>What is the diagnosis?"}, {"role": "assistant", "content": row["caption"]}]
        return {"image": Image.fromarray(canvas).convert("RGB"), "messages": messages}

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("parquet", data_files=str(shard), split="train", cache_dir=str(out / "cache"))
    rows = rows.cast_column("image", datasets.Image())
    rows.map(prepare, remove_columns=["caption"], cache_file_name=str(out / "mapped.arrow")).save_to_disk(str(out / "saved"))


if __name__ == "__main__":
    {"plain": plain, "enhanced": enhanced}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
