"""Shards: the same data set however it was cut, killed or spread; and what becomes of files that kill."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import source_files
from medtune.data import engine, jobs
from medtune.data import merge as merging
from medtune.data import prepare as preparing
from medtune.data.config import DataSettings, Fractions
from medtune.data.dataset import Dataset
from medtune.data.keys import KeyTable
from medtune.data.prepare import prepare, work_folder
from medtune.data.split import SPLITS, digest_of, draw, draw_all, fill_strata
from medtune.errors import DataError, RunError, UnreadableImageError
from medtune.imaging.read import open_picture, read_size
from medtune.types import FilePart


def settings(path: Path, **more: Any) -> DataSettings:
    return DataSettings.model_validate(
        {"sources": [{"source": "toy_sources:Unparted", "options": {"path": str(path)}}], "num_workers": 2, **more}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def rad(tmp_path: Path) -> Path:
    return source_files.write_vqa_rad(tmp_path / "rad", num_images=40)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven records a shard: the hundred rows make fifteen of them."""
    monkeypatch.setattr(jobs, "MAX_RECORDS", 7)


def test_how_it_is_cut_does_not_show(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(settings(rad), name="x", folder=tmp_path / "one")
    monkeypatch.setattr(jobs, "MAX_RECORDS", 7)
    made: list[int] = []
    run = engine.run_job
    monkeypatch.setattr(engine, "run_job", lambda *given: made.append(given[2].number) or run(*given))
    prepare(settings(rad), name="x", folder=tmp_path / "many")
    assert sorted(made) == list(range(15))
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert not work_folder(tmp_path / "many").exists()


@pytest.mark.usefixtures("small")
def test_a_file_of_lines_is_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard for a file of a million lines would be neither resumed nor shared out, and would not fit in memory."""
    import json

    lines = [{"instruction": f"Question {number}?", "input": "", "output": f"Answer {number}."} for number in range(30)]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    made: list[int] = []
    run = engine.run_job
    monkeypatch.setattr(engine, "run_job", lambda *given: made.append(given[2].number) or run(*given))
    chosen = DataSettings.model_validate({"sources": [{"source": "alpaca", "options": {"path": str(tmp_path / "qa.jsonl")}}]})
    assert sum(prepare(chosen, name="x", folder=tmp_path / "out").num_samples.values()) == 30
    assert sorted(made) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("small")
def test_an_id_of_an_earlier_shard_is_left_out(rad: Path, tmp_path: Path) -> None:
    import json

    file = rad / "testset.json"
    content = json.loads(file.read_text())
    first = json.loads((rad / "trainset.json").read_text())[0]
    source_files.write_json(file, [*content, {**first, "question": "Is this row the second of its id?"}])
    manifest = prepare(settings(rad), name="x", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert manifest.sources[0].left_out == {"duplicate-id": 1}
    assert manifest.sources[0].num_samples == sum(manifest.num_samples.values()) == 100
    assert [(entry.id, entry.reason) for entry in dataset.left_out()] == [(str(first["qid"]), "duplicate-id")]
    assert sum(dataset.num_rows(split) for split in SPLITS) == 100
    kept = next(row for split in SPLITS for row in dataset.rows(split) if row.id == str(first["qid"]))
    assert "second of its id" not in kept.messages[0].content


@pytest.mark.usefixtures("small")
def test_pictures_in_shards(rad: Path, tmp_path: Path) -> None:
    prepare(settings(rad), name="x", folder=tmp_path / "files")
    manifest = prepare(settings(rad, storage="shards"), name="x", folder=tmp_path / "shards")
    files, shards = Dataset.open(tmp_path / "files"), Dataset.open(tmp_path / "shards")
    assert manifest.num_images == 40
    stored = sorted(file.name for file in (tmp_path / "shards" / "images").iterdir())
    assert stored[0] == "000000.tar"
    assert set(files.images) == set(shards.images)
    for split in SPLITS:
        for one, other in zip(files.rows(split), shards.rows(split), strict=True):
            assert one.messages == other.messages
            data = shards.picture(other.images[0])
            assert isinstance(data, bytes)
            assert data == files.image_path(one.images[0]).read_bytes()
            assert open_picture(data).size == (other.images[0].width, other.images[0].height)
            unread = shards.stored_picture(other.images[0])
            assert isinstance(unread, FilePart)
            assert open_picture(unread).tobytes() == open_picture(data).tobytes()
            assert read_size(unread) == (other.images[0].width, other.images[0].height)
    with tarfile.open(tmp_path / "shards" / "images" / "000000.tar") as shard:
        first = shard.getmembers()[0]
        ref = shards.images[first.name]
        assert ref.shard is not None
        assert (ref.shard.offset, ref.shard.num_bytes) == (first.offset_data, first.size)
    (tmp_path / "shards" / "images" / "000000.tar").write_bytes(b"short")
    with pytest.raises(DataError, match="cut short"):
        shards.picture(ref)
    lost = shards.stored_picture(ref)  # nothing is read until the picture is wanted
    with pytest.raises(UnreadableImageError, match=r"cut short(.|\n)*000000\.tar"):
        open_picture(lost)
    (tmp_path / "shards" / "images" / "000000.tar").unlink()
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_size(lost)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def children_of(pid: int) -> list[int]:
    """Those that any of its threads has started; Linux alone tells."""
    return [int(child) for file in Path("/proc").glob(f"{pid}/task/*/children") for child in file.read_text().split()]


def is_alive(pid: int) -> bool:
    """A process that has ended and is not waited for yet has no command line."""
    file = Path(f"/proc/{pid}/cmdline")
    return file.is_file() and bool(file.read_bytes())


KILLED = """
import sys
from pathlib import Path
from medtune.data import jobs
from medtune.data.config import DataSettings
from medtune.data.prepare import prepare
jobs.MAX_RECORDS = 7
prepare(DataSettings.model_validate_json(sys.argv[1]), name="x", folder=Path(sys.argv[2]))
"""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("num_shards", [0, 5, 14])
def test_a_kill_loses_no_finished_shard_and_tears_no_file(
    rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_shards: int
) -> None:
    chosen = settings(rad, transforms=[{"transform": "letterbox", "options": {"size": 448}}, {"transform": "clahe"}])
    folder = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, chosen.model_dump_json(), str(folder)], env=environment())
    finished = work_folder(folder) / "shards"
    deadline = time.monotonic() + 600
    while len(list(finished.glob("*/summary.json"))) < num_shards and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if folder.exists():
        pytest.skip("it was done before it could be killed")
    while any(is_alive(pid) for pid in children):  # they notice it within a second, if the machine is idle
        assert time.monotonic() < deadline, "a child outlives its parent"
        time.sleep(0.05)
    whole = {file.parent.name for file in finished.glob("[0-9]" * 6 + "/summary.json")}
    assert len(whole) >= num_shards
    made: list[str] = []
    run = engine.run_job
    monkeypatch.setattr(engine, "run_job", lambda *given: made.append(f"{given[2].number:06d}") or run(*given))
    prepare(chosen, name="x", folder=folder)
    assert set(made) == {f"{number:06d}" for number in range(15)} - whole
    prepare(chosen, name="x", folder=tmp_path / "undisturbed")
    assert contents(folder) == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small")
def test_a_kill_while_the_shards_are_put_together(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "merge", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(rad), name="x", folder=folder)
    assert not folder.exists()
    made: list[int] = []
    monkeypatch.setattr(engine, "run_job", lambda *given: made.append(given[2].number))
    prepare(settings(rad), name="x", folder=folder)
    assert made == []
    monkeypatch.undo()
    prepare(settings(rad), name="x", folder=tmp_path / "undisturbed")
    assert contents(folder) == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small")
def test_input_that_changed_in_between_is_read_anew(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(rad), name="x", folder=folder)
    picture = sorted((rad / "images").iterdir())[3]
    picture.write_bytes(source_files.jpeg(77, (64, 48)))
    prepare(settings(rad), name="x", folder=folder)
    prepare(settings(rad), name="x", folder=tmp_path / "undisturbed")
    assert contents(folder) == contents(tmp_path / "undisturbed"), "no picture of the old state is left"


KILLER = '''
import os, time
from typing import Literal
from medtune.types import Settings

class Killer(Settings):
    """Dies like a decoder, at pictures of 63 pixels' width."""
    name: Literal["killer"] = "killer"
    how: str = "abort"

    def __call__(self, image):
        if image.width == 63:
            if self.how == "abort":
                os.abort()
            if self.how == "memory":
                bytearray(64 * 1024**3)
            time.sleep(60)
        return image

    def map_box(self, box, width, height):
        return box
'''


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("how", "death"), [("abort", "crash"), ("memory", "memory"), ("sleep", "timeout")])
def test_a_picture_that_kills_costs_its_record(
    rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, death: str
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "killing.py").write_text(KILLER)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    deadly = sorted((rad / "images").iterdir())[3]
    deadly.write_bytes(source_files.jpeg(5, (63, 48)))
    chosen = settings(
        rad,
        transforms=[{"transform": "killing:Killer", "options": {"how": how}}],
        limits={"seconds": 5, "max_memory": 3072},
    )
    manifest = prepare(chosen, name="x", folder=tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    lost = list(dataset.left_out())
    assert lost
    assert {entry.reason for entry in lost} == {f"decoder-{death}"}
    assert {entry.file for entry in lost} == {str(deadly)}
    assert sum(manifest.num_samples.values()) == 100 - len(lost)


def test_a_source_may_take_its_time(tmp_path: Path) -> None:
    """Reading is no decoding: an index of a large file is made before the first record comes."""
    chosen = DataSettings.model_validate(
        {"sources": [{"source": "toy_sources:Slow", "options": {"seconds": 2.5}}], "num_workers": 1, "limits": {"seconds": 1}}
    )
    assert sum(prepare(chosen, name="x", folder=tmp_path / "out").num_samples.values()) == 3


def test_two_at_once(rad: Path, tmp_path: Path) -> None:
    work = work_folder(tmp_path / "out")
    work.mkdir()
    descriptor = os.open(work / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RunError, match="Another process"):
        prepare(settings(rad), name="x", folder=tmp_path / "out")
    os.close(descriptor)
    prepare(settings(rad), name="x", folder=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_ray_makes_the_same_bytes(rad: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = KILLED.replace(
        "jobs.MAX_RECORDS = 7\n", "jobs.MAX_RECORDS = 7\nimport os\nos.environ['RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO'] = '0'\n"
    )
    chosen = settings(rad, engine="ray", transforms=[{"transform": "clahe"}])
    subprocess.run(
        [sys.executable, "-c", script, chosen.model_dump_json(), str(tmp_path / "ray")], env=environment(), check=True, timeout=900
    )
    prepare(settings(rad, transforms=[{"transform": "clahe"}]), name="x", folder=tmp_path / "local")
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_local_only_data_go_to_no_cluster(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    with pytest.raises(DataError, match="may not leave") as caught:
        prepare(settings(rad, local_only=True, engine="ray"), name="x", folder=tmp_path / "out")
    assert caught.value.key == "data.engine"
    assert not (tmp_path / "out").exists()


def test_local_only_reaches_the_manifest(rad: Path, tmp_path: Path) -> None:
    assert not prepare(settings(rad), name="x", folder=tmp_path / "open").local_only
    assert prepare(settings(rad, local_only=True), name="x", folder=tmp_path / "closed").local_only


@pytest.mark.parametrize("pictures", [True, False])
def test_text_before_the_first_picture_does_not_hide_the_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: bool
) -> None:
    monkeypatch.setattr(merging, "_FIRST_BLOCK", 2000)
    lines = [f'{{"id": "{number}", "images": [], "text": "{"x" * 50}"}}\n' for number in range(40)]
    if pictures:
        lines[30] = '{"id": "30", "images": ["a.png"]}\n'
    file = tmp_path / "train.jsonl"
    file.write_text("".join(lines))
    merging._show_a_picture_early(file)
    expected = [lines[30], *lines[:30], *lines[31:]] if pictures else lines
    assert file.read_text() == "".join(expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["train.jsonl"]


# ---------------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("patient,split\na,train\n", "no columns group and split"),
        ("group,split\na,training\n", "training"),
        ("group,split\na,train\na,test\n", "two splits"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_list_of_splits(rad: Path, tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "list.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        prepare(settings(rad, split={"assigned": str(file)}), name="x", folder=tmp_path / "out")
    assert caught.value.key == "data.split.assigned"
    assert caught.value.remedy is not None


def place_groups(file: Path, splits: dict[str, str]) -> None:
    file.write_text("group,split\n" + "".join(f"{group},{split}\n" for group, split in splits.items()))


@pytest.mark.usefixtures("small")
def test_a_list_that_changes_between_two_attempts_cuts_no_group(rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.csv"
    run = engine.run_job

    def until_the_sixth(*given: Any) -> Any:
        if given[2].number == 5:
            raise KeyboardInterrupt
        return run(*given)

    chosen = settings(rad, split={"assigned": str(file)}, num_workers=1)
    place_groups(file, {f"synpic{number}.jpg": "train" for number in range(40)})
    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_job", until_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            prepare(chosen, name="x", folder=tmp_path / "out")
    assert list((work_folder(tmp_path / "out") / "shards").glob("*/summary.json")), "an attempt that left shards behind"
    place_groups(file, {f"synpic{number}.jpg": "test" for number in range(40)})
    manifest = prepare(chosen, name="x", folder=tmp_path / "out")
    assert (manifest.num_groups["train"], manifest.num_groups["test"]) == (0, 40)


def test_a_changed_list_is_another_data_set(rad: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    chosen = settings(rad, split={"assigned": str(file)})
    place_groups(file, {"synpic0.jpg": "test"})
    made = prepare(chosen, name="x", folder=tmp_path / "out")
    assert made.split["assigned"] == "list.csv"
    assert prepare(chosen, name="x", folder=tmp_path / "out") == made
    place_groups(file, {"synpic0.jpg": "train"})
    with pytest.raises(DataError, match="another list of splits"):
        prepare(chosen, name="x", folder=tmp_path / "out")
    file.unlink()  # a machine that has the data set only
    assert prepare(chosen, name="x", folder=tmp_path / "out") == made


def test_listed_groups_that_are_not_there_are_counted(rad: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    place_groups(file, {"synpic0.jpg": "test", "synpic1.jpg": "validation", "patient 7": "train", "patient 8": "test"})
    chosen = settings(rad, split={"assigned": str(file), "fill_strata": False})
    warnings = [text.render("en") for text in prepare(chosen, name="x", folder=tmp_path / "out").warnings]
    assert warnings == ["2 of the 4 groups that list.csv names are not in the data; groups.csv shows how groups are named."]
    assert "patient" not in " ".join(warnings), "groups may be names"


def test_many_draws_at_once_are_the_draws_one_by_one() -> None:
    fractions = Fractions(train=0.6, validation=0.25, test=0.15)
    groups = [f"p{number}" for number in range(500)]
    together = draw_all(np.array([digest_of(group, 3) for group in groups], np.uint64), fractions)
    assert [SPLITS[place] for place in together] == [draw(group, fractions, 3) for group in groups]


def test_filling_strata_moves_the_nearest_group_and_empties_nothing() -> None:
    fractions = Fractions(train=0.5, validation=0.25, test=0.25)
    unit = 2**64 // 100
    # Stratum 0 has groups enough and no test; stratum 1 has a single group, which must stay.
    groups = [(10 * unit, (0,), 0), (20 * unit, (0,), 0), (49 * unit, (0, 1), 0), (45 * unit, (0,), 0), (60 * unit, (0,), 1)]
    counts = np.array([[4, 1, 0], [1, 0, 0]])
    assert fill_strata(counts, fractions, groups) == {45 * unit: 2}
    assert counts.tolist() == [[3, 1, 1], [1, 0, 0]]
    assert fill_strata(counts, fractions, groups) == {}


def test_filling_strata_holds_only_the_groups_concerned() -> None:
    """A data set may have as many groups as rows."""
    num_groups = 300_000
    counts = np.array([[num_groups // 2, num_groups // 4, num_groups // 4], [3, 0, 0]])
    unit = 2**64 // (num_groups + 4)
    groups = ((number * unit, (1,) if number < 3 else (0,), 0) for number in range(num_groups))
    tracemalloc.start()
    moved = fill_strata(counts, Fractions(train=0.5, validation=0.25, test=0.25), groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(moved) == 2
    assert peak < 1_000_000


def test_keys_that_occur_twice(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 2**64, (4000, 2), np.uint64)
    keys[100] = keys[7]
    keys[3000] = keys[2500]
    keys[3900, 0] = keys[5, 0]  # half a key is none
    table = KeyTable(tmp_path / "keys")
    for shard in range(4):
        table.add(shard, keys[shard * 1000 : (shard + 1) * 1000])
    found = table.repeated()
    assert {shard: rows.tolist() for shard, rows in found.items()} == {0: [100], 3: [0]}
