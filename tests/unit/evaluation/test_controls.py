from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from medtune.evaluation.controls import MID_GREY, askable, present, shuffle_pictures
from medtune.generation.wire import read_request, request_line
from medtune.types import FilePart, ImageRef, InShard, Message, Request, Sample
from toy_evaluation import make_dataset


def sample(name: str, group: str, *, task: str = "toy", num_images: int = 1) -> Sample:
    images = tuple(ImageRef(path=f"{name}-{number}.png", sha256="0" * 64, width=8, height=6) for number in range(num_images))
    question = Message(role="user", content="<image>\n" * num_images + "What is it?")
    return Sample(
        id=name,
        task=task,
        images=images,
        messages=(question, Message(role="assistant", content="a")),
        target="a",
        group=group,
        source="s",
    )


@pytest.mark.parametrize("sizes", [[1, 1], [2, 2], [1, 2, 3], [5, 1, 1, 1, 1, 1], [3, 3, 3], [4, 2, 1, 1, 1, 3]])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_pictures_are_a_permutation_that_leaves_no_group_its_own(sizes: list[int], seed: int) -> None:
    samples = [sample(f"{group}/{number}", str(group)) for group, size in enumerate(sizes) for number in range(size)]
    donors = shuffle_pictures(samples, seed=seed)
    assert set(donors) == {entry.id for entry in samples}
    assert all(donors[entry.id].group != entry.group for entry in samples)
    assert Counter(donor.id for donor in donors.values()) == Counter(entry.id for entry in samples)


def test_a_group_with_more_than_half_of_the_samples_still_gets_only_foreign_pictures() -> None:
    samples = [sample(f"big/{number}", "big") for number in range(7)] + [sample("small/0", "small"), sample("other/0", "other")]
    donors = shuffle_pictures(samples, seed=3)
    assert len(donors) == 9
    assert all(donors[entry.id].group != entry.group for entry in samples)


def test_pictures_come_from_the_same_task_and_number_of_pictures() -> None:
    samples = [
        sample(f"{task}{number}{count}", str(number), task=task, num_images=count)
        for task in "ab"
        for number in range(4)
        for count in (1, 2)
    ]
    donors = shuffle_pictures(samples, seed=0)
    assert all((donors[entry.id].task, len(donors[entry.id].images)) == (entry.task, len(entry.images)) for entry in samples)


def test_the_shuffle_depends_on_the_seed_and_not_on_the_order() -> None:
    samples = [sample(str(number), str(number)) for number in range(12)]
    one = {name: donor.id for name, donor in shuffle_pictures(samples, seed=1).items()}
    assert one == {name: donor.id for name, donor in shuffle_pictures(samples[::-1], seed=1).items()}
    assert one != {name: donor.id for name, donor in shuffle_pictures(samples, seed=2).items()}


def test_samples_without_a_stranger_or_a_picture_are_left_out_of_controls() -> None:
    lonely = [sample("a", "g", task="lonely"), sample("b", "g", task="lonely")]
    text = sample("t", "h", num_images=0)
    pair = [sample("c", "1"), sample("d", "2")]
    everything = [*lonely, text, *pair]
    assert [entry.id for entry in askable("shuffled", everything, pool=everything)] == ["c", "d"]
    assert [entry.id for entry in askable("blank", everything, pool=everything)] == ["a", "b", "c", "d"]
    assert len(askable("none", everything, pool=everything)) == 5


@pytest.mark.parametrize("seed", range(20))
def test_what_can_be_asked_with_strangers_pictures_is_what_gets_them(seed: int) -> None:
    draw = random.Random(seed)
    samples = [
        sample(str(number), draw.choice("gh"), task=draw.choice("abcd"), num_images=draw.randrange(3)) for number in range(12)
    ]
    asked = askable("shuffled", samples[::2], pool=samples)
    donors = shuffle_pictures(samples, seed=seed)
    assert [entry.id for entry in asked] == [entry.id for entry in samples[::2] if entry.id in donors]


def test_what_each_control_shows(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    samples = list(dataset.rows("test"))
    blank_folder = tmp_path / "blank"
    blank_folder.mkdir()

    def show(control: str) -> dict[str, object]:
        return dict(present(control, samples, pool=samples, picture=dataset.picture, seed=0, blank_folder=blank_folder))  # type: ignore[arg-type]

    first = samples[0]
    real = show("none")[first.id]
    assert real.images == (dataset.image_path(first.images[0]),)  # type: ignore[attr-defined]
    assert real.image_sha256 == (first.images[0].sha256,)  # type: ignore[attr-defined]
    foreign = show("shuffled")[first.id]
    assert foreign.image_sha256[0] not in {entry.images[0].sha256 for entry in samples if entry.group == first.group}  # type: ignore[attr-defined]
    assert foreign.messages == first.prompt  # type: ignore[attr-defined]
    blank = show("blank")[first.id]
    with Image.open(blank.images[0]) as image:  # type: ignore[attr-defined]
        assert image.size == (24, 16)
        assert image.getextrema() == ((MID_GREY, MID_GREY),) * 3
    assert len(list(blank_folder.iterdir())) == 1
    without = show("question-only")[first.id]
    assert without.images == ()  # type: ignore[attr-defined]
    assert [message.content for message in without.messages] == ["Is the picture dark or bright?"]  # type: ignore[attr-defined]


def test_shuffled_pictures_of_a_part_are_those_of_the_whole(tmp_path: Path) -> None:
    pool = [sample(str(number), str(number)) for number in range(20)]
    part = pool[3:9]
    folder = Path("pictures")

    def show(samples: list[Sample]) -> dict[str, tuple[Path, ...]]:
        shown = present("shuffled", samples, pool=pool, picture=lambda ref: folder / ref.path, seed=5, blank_folder=tmp_path)
        return {name: entry.images for name, entry in shown.items()}

    whole = show(pool)
    assert show(part) == {entry.id: whole[entry.id] for entry in part}


def test_pictures_in_shards_are_not_read_before_they_are_asked_about(tmp_path: Path) -> None:
    """A hundred thousand pictures are more than fits into memory, and the first answer would wait for the last picture."""
    dataset = make_dataset(tmp_path / "data")
    place = InShard(file="images/absent.tar", offset=512, num_bytes=100)
    samples = [
        row.model_copy(update={"images": tuple(image.model_copy(update={"shard": place}) for image in row.images)})
        for row in dataset.rows("test")
    ]
    for control in ("none", "shuffled"):
        shown = present(control, samples, pool=samples, picture=dataset.stored_picture, seed=0, blank_folder=tmp_path)
        assert len(shown) == len(samples)
        part = FilePart(dataset.folder / "images" / "absent.tar", 512, 100)
        assert all(entry.images == (part,) for entry in shown.values())
    request = Request(id="a", messages=samples[0].prompt, images=(part,))
    assert read_request(request_line(request)) == request
