"""The evaluated samples are read when gone through, all of a split or those that were drawn."""

from __future__ import annotations

from pathlib import Path

from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import read_samples
from medtune.evaluation.picked import SampleIndex
from toy_evaluation import make_dataset


def test_drawn_samples_are_read_by_number_in_the_order_of_the_split(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    everything = list(dataset.rows("test"))
    pool, samples = read_samples(dataset, "test", EvaluationSettings())
    assert pool is samples
    assert list(pool) == everything
    assert list(pool) == [pool[number] for number in range(len(pool))]
    pool, drawn = read_samples(dataset, "test", EvaluationSettings(max_samples=4))
    places = [everything.index(sample) for sample in drawn]
    assert len(drawn) == len(places) == 4
    assert places == sorted(places)
    assert drawn[1:3] == [drawn[1], drawn[2]] == [everything[place] for place in places[1:3]]
    assert drawn[-1] == everything[places[-1]]
    (dataset.folder / "test.jsonl").write_text("")
    assert list(drawn._samples) == [], "nothing of a sample was kept"  # type: ignore[attr-defined]


def test_the_index_names_task_and_group_of_the_samples_and_all_ids(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", num_groups=6)
    pool, drawn = read_samples(dataset, "test", EvaluationSettings(max_samples=4))
    index = SampleIndex.of(drawn, pool)
    assert index.tasks == {sample.id: sample.task for sample in drawn}
    assert index.groups == {sample.id: sample.group for sample in drawn}
    assert set(index.known) == {sample.id for sample in pool}
    assert set(SampleIndex.of(pool, pool).known) == set(index.known)
