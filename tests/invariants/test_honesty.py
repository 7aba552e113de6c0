"""What a report must not hide: leakage, a model that does not look, one that always says yes, an adapter that does nothing.

Each is planted on a data set of pictures that are plainly dark or bright, with a question that only the picture answers, and the
page that a person reads has to say it in words, in both languages. A sound model beside them must not be accused of any of it.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtune.data.dataset import Dataset, file_sha256, write_row
from medtune.data.validate import validate
from medtune.data.validation_file import keep
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.evaluate import evaluate
from medtune.evaluation.report_html import render_report
from medtune.language import Language
from medtune.types import Generation, Generator, ImageRef, Message, Report, Request, Sample
from toy_evaluation import Looking, make_dataset

LANGUAGES: tuple[Language, ...] = ("en", "zh")
QUESTION = "<image>Is the picture bright?"
SETTINGS = EvaluationSettings(
    metrics=("closed",), controls=("shuffled", "blank", "question-only", "majority"), num_resamples=300, min_subgroup_samples=10
)


class Sound(Looking):
    """Opens the picture and answers from it; without one it cannot."""

    def answer(self, request: Request) -> str:
        return {"bright": "Yes.", "dark": "No."}.get(super().answer(request), "I cannot tell.")


class AlwaysYes(Looking):
    def answer(self, request: Request) -> str:
        return "Yes." if request.messages else ""


class Deaf(Looking):
    """Answers by the question alone, sometimes yes and sometimes no, whatever picture it is shown."""

    def answer(self, request: Request) -> str:
        return "Yes." if hashlib.sha256(request.id.encode()).digest()[0] % 2 else "No."


def ask_bright(row: dict[str, object]) -> None:
    target = "yes" if row["target"] == "bright" else "no"
    messages = (Message(role="user", content=QUESTION), Message(role="assistant", content=target))
    row.update(task="closed-vqa", target=target, messages=messages)


def dataset(folder: Path, train: int = 0) -> Dataset:
    return make_dataset(folder, num_groups=40, change=ask_bright, train=train)


def run(data: Dataset, folder: Path, *, tuned: Generator, base: Generator | None = None) -> tuple[Report, dict[Language, str]]:
    """The report, and the words of its page in each language."""
    generators = {**({"base": ("base", base)} if base is not None else {}), "tuned": ("tuned", tuned)}
    report = evaluate(data, generators=generators, settings=SETTINGS, folder=folder)  # type: ignore[arg-type]
    pages = {name: html.unescape(render_report(report, folder, data, name)) for name in LANGUAGES}
    return report, pages


def holds(pages: dict[Language, str], english: str, chinese: str) -> bool:
    found = {name: sentence in pages[name] for name, sentence in zip(LANGUAGES, (english, chinese), strict=True)}
    assert found["en"] == found["zh"], found
    return found["en"]


def unused(control: str) -> tuple[str, str]:
    return {
        "shuffled": (
            "With pictures of other groups the tuned model is not measurably worse on Accuracy, closed questions",
            "换成其他组的图像时，微调后的模型在“封闭式问题准确率",
        ),
        "blank": (
            "With blank pictures the tuned model is not measurably worse on Accuracy, closed questions",
            "换成空白图像时，微调后的模型在“封闭式问题准确率",
        ),
        "question-only": (
            "Without any picture the tuned model is not measurably worse on Accuracy, closed questions",
            "不给图像时，微调后的模型在“封闭式问题准确率",
        ),
    }[control]


ALWAYS_YES = (
    "To 80 of 80 yes/no questions, the tuned model answers “yes”, which is right for 40 of them",
    "微调后的模型对 80 个是非题中的 80 个都回答“是”，而正确答案为此的只有 40 个",
)
SAME = (
    "Every question got the same answer from the base model and the tuned model: is the adapter in use?",
    "基座模型与微调后的模型对每个问题的回答都相同：适配器是否真的生效？",
)
NO_CHANGE = ("shows that the tuned model is better or worse than the base model", "表明微调后的模型比基座模型更好或更差")
SHARED = ("of the 80 evaluated pictures are also in the training split: the numbers are too good", "也在训练集里：结果会虚高")
VALIDATED = ("Validation of the data found: ", "数据校验发现：")


def test_a_sound_model_on_sound_data_is_accused_of_nothing(tmp_path: Path) -> None:
    report, pages = run(dataset(tmp_path / "data"), tmp_path / "run", base=AlwaysYes(), tuned=Sound())
    for accusation in (
        *(unused(control) for control in ("shuffled", "blank", "question-only")),
        ALWAYS_YES,
        SAME,
        NO_CHANGE,
        SHARED,
        VALIDATED,
    ):
        assert not holds(pages, *accusation), accusation
    assert report.alerts == ()
    looked = {
        entry.control: entry for entry in report.picture_share if entry.label == "tuned" and entry.metric == "closed/accuracy"
    }
    assert {control: entry.share for control, entry in looked.items()} == {
        "shuffled": pytest.approx(0.5, abs=0.3),
        "blank": 1.0,
        "question-only": 1.0,
    }


@pytest.mark.parametrize("control", ["shuffled", "blank", "question-only"])
def test_a_model_that_ignores_the_picture_is_exposed(tmp_path: Path, control: str) -> None:
    report, pages = run(dataset(tmp_path / "data"), tmp_path / "run", base=Sound(), tuned=Deaf())
    assert holds(pages, *unused(control))
    share = next(
        entry
        for entry in report.picture_share
        if (entry.label, entry.control, entry.metric) == ("tuned", control, "closed/accuracy")
    )
    assert (share.gain, share.share) == (0.0, 0.0)


def test_a_model_that_always_says_yes_is_exposed(tmp_path: Path) -> None:
    _, pages = run(dataset(tmp_path / "data"), tmp_path / "run", base=Sound(), tuned=AlwaysYes())
    assert holds(pages, *ALWAYS_YES)
    assert holds(pages, *unused("shuffled"))


def test_an_adapter_that_does_nothing_is_exposed(tmp_path: Path) -> None:
    _, pages = run(dataset(tmp_path / "data"), tmp_path / "run", base=Sound(), tuned=Sound())
    assert holds(pages, *SAME)
    assert holds(pages, *NO_CHANGE)


def test_an_adapter_that_changes_words_and_nothing_else_is_exposed(tmp_path: Path) -> None:
    class Wordy(Sound):
        def answer(self, request: Request) -> str:
            return super().answer(request).replace("Yes.", "Yes, it is.").replace("No.", "No, it is not.")

    _, pages = run(dataset(tmp_path / "data"), tmp_path / "run", base=Sound(), tuned=Wordy())
    assert not holds(pages, *SAME)
    assert holds(pages, *NO_CHANGE)


def test_pictures_of_the_training_split_are_exposed(tmp_path: Path) -> None:
    report, pages = run(dataset(tmp_path / "data", train=3), tmp_path / "run", tuned=Sound())
    assert holds(pages, *SHARED)
    assert any("6 of the 80 evaluated pictures" in text.render("en") for text in report.alerts)


def test_pictures_that_were_stored_anew_under_other_patients_are_exposed(tmp_path: Path) -> None:
    """Other bytes, other groups: only validation, which looks at pixels, can tell."""
    data = leaking(tmp_path / "data")
    _, unknown = run(data, tmp_path / "before", tuned=Sound())
    assert "No validation of this data set is stored" in unknown["en"]
    assert "没有保存此数据集的校验结果" in unknown["zh"]
    keep(data, validate(data, num_workers=1))
    report, pages = run(data, tmp_path / "run", tuned=Sound())
    assert holds(pages, *VALIDATED)
    named = {text.fields.get("row") for text in report.alerts}
    assert {sample.id for sample in data.rows("test")} & named, "which rows it found is said"
    assert "No validation of this data set is stored" not in pages["en"]


def texts(report: Report, language: Language = "en") -> str:
    return "\n".join(text.render(language) for text in report.warnings)


def alerts(report: Report, language: Language = "en") -> str:
    return "\n".join(text.render(language) for text in report.alerts)


def ask(data: Dataset, folder: Path, generator: Generator, **settings: object) -> Report:
    chosen = SETTINGS.model_copy(update={"controls": ("shuffled",), **settings})
    return evaluate(data, generators={"tuned": ("tuned", generator)}, settings=chosen, folder=folder)


def test_the_validation_split_is_no_test_split(tmp_path: Path) -> None:
    """The split by which weights are chosen, evaluated as it is."""
    data = with_split(dataset(tmp_path / "data"), "validation", whole=True)
    report = ask(data, tmp_path / "run", Sound(), split="validation")
    assert "These are the validation samples: where weights or settings were chosen by them, the numbers are too good." in alerts(
        report
    )
    assert "这些是验证集样本" in alerts(report, "zh")
    assert "validation samples" not in alerts(ask(data, tmp_path / "test", Sound()))


@pytest.mark.parametrize("renamed", [False, True], ids=["groups", "pictures"])
def test_validation_samples_that_are_called_test_samples_are_exposed(tmp_path: Path, renamed: bool) -> None:
    """Two of forty test patients stand in the validation split as well, as they are or under other names."""
    data = with_split(dataset(tmp_path / "data"), "validation", renamed=renamed)
    report = ask(data, tmp_path / "run", Sound())
    assert "2 of the 40 evaluated groups are also in the validation split" in alerts(report)
    assert "40 个组中有 2 个也在验证集里" in alerts(report, "zh")
    sound = ask(dataset(tmp_path / "other"), tmp_path / "sound", Sound())
    assert "validation split" not in alerts(sound)


def with_split(data: Dataset, name: str, *, whole: bool = False, renamed: bool = False) -> Dataset:
    """``data`` with test samples in another split: all, with other pictures in the test split, or those of two patients."""
    rows = list(data.rows("test"))
    kept = [row for row in rows if row.group not in ("g0", "g1")] if whole else rows
    copies = [row for row in rows if row not in kept] if whole else rows[:4]
    if renamed:
        copies = [row.model_copy(update={"group": f"other-{row.group}"}) for row in copies]
    copies = [row.model_copy(update={"id": f"copy-{row.id}"}) for row in copies]
    folder = data.folder
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for split, samples in (("test", kept), (name, copies)):
        path = folder / f"{split}.jsonl"
        path.write_text("".join(write_row(sample) + "\n" for sample in samples), encoding="utf-8")
        manifest["files"][path.name] = file_sha256(path)
        manifest["num_samples"][split] = len(samples)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return Dataset.open(folder)


def test_an_evaluation_without_a_control_says_that_nothing_shows_a_look(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", num_groups=12, change=ask_bright, train=2)
    said = "No control without the right picture was asked"
    assert said in texts(ask(data, tmp_path / "none", Sound(), controls=()))
    assert said in texts(ask(data, tmp_path / "majority", Sound(), controls=("majority",))), "that one does not ask the model"
    assert said not in texts(ask(data, tmp_path / "blank", Sound(), controls=("blank",)))


def test_twelve_test_samples_prove_nothing(tmp_path: Path) -> None:
    """Everything right and the base model always wrong, of four patients: the page may not call that better."""

    class Wrong(Sound):
        def answer(self, request: Request) -> str:
            return {"Yes.": "No.", "No.": "Yes."}.get(super().answer(request), "I cannot tell.")

    data = make_dataset(tmp_path / "data", num_groups=4, per_group=3, change=ask_bright)
    report, pages = run(data, tmp_path / "run", base=Wrong(), tuned=Sound())
    assert "Only 4 groups were evaluated: intervals from so few may be too narrow." in texts(report)
    assert holds(
        pages, "With 4 groups no difference can be told from luck at 5 %", "只有 4 个组时，在 5% 水平上无法把任何差别与偶然区分开"
    )
    assert holds(pages, *NO_CHANGE)
    right = next(
        entry
        for entry in next(one for one in report.conditions if one.label == "tuned").measurements
        if entry.metric == "closed/accuracy" and entry.task is None
    )
    assert right.value == 1.0
    assert right.low == pytest.approx(0.025**0.25), "four of four patients: 0.40 to 1"


def test_one_patient_with_most_of_the_samples_is_said(tmp_path: Path) -> None:
    def mostly_one(row: dict[str, object]) -> None:
        ask_bright(row)
        if int(str(row["group"])[1:]) >= 36:
            row["group"] = "g36"

    data = make_dataset(tmp_path / "data", num_groups=60, per_group=1, change=mostly_one)
    told = texts(ask(data, tmp_path / "run", Sound()))
    assert "The 37 evaluated groups are of very different size: they tell no more than 6 of one size" in told
    assert "Only 37 groups" not in told


def test_answers_cut_off_at_the_limit_are_counted(tmp_path: Path) -> None:
    class Endless(Sound):
        def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
            for generation in super().generate(requests):
                yield generation.model_copy(update={"text": generation.text + " because" * 300, "finish_reason": "length"})

    data = make_dataset(tmp_path / "data", num_groups=12, change=ask_bright)
    assert "24 of the 24 answers of the tuned model reached the token limit and were cut off." in texts(
        ask(data, tmp_path / "run", Endless())
    )


def leaking(folder: Path) -> Dataset:
    """Patterned pictures; those of three test patients stand in training too, compressed differently, as other patients."""
    data = dataset(folder)
    rows = list(data.rows("test"))
    images: list[ImageRef] = []
    changed: list[Sample] = []
    rng = np.random.default_rng(0)
    for sample in rows:
        level = 200 if sample.target == "yes" else 40
        pixels = np.clip(level + rng.normal(0, 30, (8, 12, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC)
        images.append(store(picture, folder, sample.images[0].path))
        changed.append(sample.model_copy(update={"images": (images[-1],)}))
    copies = []
    for number, sample in enumerate(changed[:6]):
        with Image.open(folder / sample.images[0].path) as picture:
            images.append(store(picture, folder, f"images/copy-{number}.png", compress_level=1))
        copies.append(sample.model_copy(update={"id": f"copy-{number}", "group": f"other-{number}", "images": (images[-1],)}))
    (folder / "images.jsonl").write_text("".join(ref.model_dump_json() + "\n" for ref in images), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for split, samples in (("test", changed), ("train", copies)):
        path = folder / f"{split}.jsonl"
        path.write_text("".join(write_row(sample) + "\n" for sample in samples), encoding="utf-8")
        manifest["files"][path.name] = file_sha256(path)
        manifest["num_samples"][split] = len(samples)
    manifest["num_images"] = len(images)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return Dataset.open(folder)


def store(picture: Image.Image, folder: Path, path: str, compress_level: int = 9) -> ImageRef:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=compress_level)
    (folder / path).write_bytes(buffer.getvalue())
    return ImageRef(path=path, sha256=file_sha256(folder / path), width=picture.width, height=picture.height, modality="CT")
