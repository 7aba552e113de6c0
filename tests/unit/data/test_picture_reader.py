"""Pictures are decoded in child processes, in order, and what kills a process costs one finding."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import failing_measures
from medtune.data.checks.picture_reader import BATCH, read_pictures
from medtune.data.dataset import Dataset
from medtune.imaging.config import Limits
from medtune.types import ImageRef, InShard, Manifest


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    manifest = Manifest(
        name="made",
        medtune_version="0",
        sources=(),
        split={},
        num_samples={},
        num_groups={},
        num_images=0,
        tasks={},
        group_kind="image",
        synthetic=True,
        local_only=False,
        files={},
    )
    return Dataset(tmp_path, manifest)


def png(width: int) -> bytes:
    buffer = BytesIO()
    Image.new("L", (width, 8), width).save(buffer, "PNG")
    return buffer.getvalue()


def store(dataset: Dataset, width: int) -> ImageRef:
    (dataset.folder / f"{width}.png").write_bytes(png(width))
    return ImageRef(path=f"{width}.png", sha256=sha256(png(width)).hexdigest(), width=width, height=8)


def test_in_order_and_each_once(dataset: Dataset) -> None:
    refs = [store(dataset, width) for width in range(40, 40 + 3 * BATCH + 5)]
    facts = list(read_pictures(dataset, iter(refs), [failing_measures.MEASURE], num_workers=2))
    assert [fact.ref for fact in facts] == refs
    assert [fact.measured[failing_measures.MEASURE] for fact in facts] == [ref.width for ref in refs]
    assert all(fact.intact and fact.fault is None and fact.width == fact.ref.width for fact in facts)


def test_a_crash_a_hang_and_a_hunger_for_memory_cost_one_finding_each(dataset: Dataset) -> None:
    bad = (failing_measures.CRASHES, failing_measures.HANGS, failing_measures.NEEDS_MEMORY)
    refs = [store(dataset, width) for width in range(30, 40)]
    # Long enough for a new process to start on a busy machine.
    facts = list(read_pictures(dataset, refs, [failing_measures.MEASURE], limits=Limits(seconds=4.0), num_workers=1))
    assert [fact.ref.width for fact in facts if fact.fault is not None] == list(bad)
    assert [fact.measured.get(failing_measures.MEASURE) for fact in facts] == [None if w in bad else w for w in range(30, 40)]
    said = [fact.fault.message.render("en") for fact in facts if fact.fault is not None]
    assert "SIGABRT" in said[0]
    assert "4 seconds" in said[1]
    assert "memory" in said[2]


def test_pictures_in_a_shard(dataset: Dataset) -> None:
    first, second = png(50), png(51)
    (dataset.folder / "shard.tar").write_bytes(b"x" * 100 + first + second)
    refs = [
        ImageRef(
            path=f"images/{place}.png",
            sha256=sha256(content).hexdigest(),
            width=50 + place,
            height=8,
            shard=InShard(file="shard.tar", offset=100 + place * len(first), num_bytes=len(content)),
        )
        for place, content in enumerate((first, second))
    ]
    cut = refs[1].model_copy(update={"shard": refs[1].shard.model_copy(update={"num_bytes": 20})})  # type: ignore[union-attr]
    lost = refs[0].model_copy(update={"shard": refs[0].shard.model_copy(update={"file": "no.tar"})})  # type: ignore[union-attr]
    facts = list(read_pictures(dataset, [*refs, cut, lost], [failing_measures.MEASURE], num_workers=1))
    assert [(fact.width, fact.intact) for fact in facts[:2]] == [(50, True), (51, True)]
    assert [fact.fault and fact.fault.reason for fact in facts[2:]] == ["image-unreadable", "image-missing"]


def test_the_limits_are_those_given(dataset: Dataset) -> None:
    (fact,) = read_pictures(dataset, [store(dataset, 60)], [], limits=Limits(max_pixels=100), num_workers=1)
    assert fact.fault is not None
    assert "the limit is 100" in fact.fault.message.render("en")
    (fact,) = read_pictures(dataset, [store(dataset, 60)], [], limits=Limits(max_bytes=10), num_workers=1)
    assert fact.fault is not None
    assert "the limit is 10" in fact.fault.message.render("en")
