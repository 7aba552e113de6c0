"""``evaluation.abstain`` from the recipe to the pages, on a tiny model that tells probabilities of its first tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medtune import api
from medtune.cli import main
from medtune.data.dataset import Dataset
from medtune.evaluation.calibration import closed_questions, probabilities
from medtune.evaluation.evaluate import read_report
from medtune.types import Prediction, Sample
from source_files import write_vqa_rad
from tiny_models import tiny_model

OVERRIDES = (
    "model.dtype=float32",
    "train.precision=float32",
    "train.max_steps=1",
    "train.batch_size=2",
    "train.gradient_accumulation_steps=1",
    "train.num_workers=0",
    "data.num_workers=1",
    "data.split.fractions={train: 0.3, validation: 0.4, test: 0.3}",
    "distributed.kind=none",
    "generation.batch_size=16",
    "generation.sampling.max_new_tokens=2",
    "evaluation.num_resamples=100",
    "evaluation.controls=[]",
    "evaluation.abstain=true",
    # A random model is wrong half of the time: a tenth could not be kept, and no threshold would be tested.
    "evaluation.abstain_max_risk=0.7",
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    answers = {qid: {"answer": "Yes" if qid % 20 == 1 else "No", "answer_type": "CLOSED"} for qid in range(400)}
    write_vqa_rad(Path("data/vqa-rad"), num_images=30, changes=answers)
    overrides = (f"model.base={tiny_model(tmp_path / 'tiny', 'qwen2-vl')}", *OVERRIDES)
    api.prepare("vqa_rad_qwen2_vl_2b", overrides)
    folder = api.train("vqa_rad_qwen2_vl_2b", overrides).folder
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(folder)])
    assert ended.value.code in (0, None)
    return folder


def told(folder: Path, condition: str, samples: list[Sample]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    lines = (folder / "evaluations" / condition / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = {found.sample_id: found for found in map(Prediction.model_validate_json, lines)}
    probability, truth, _ = probabilities(samples, predictions)
    return np.maximum(probability, 1 - probability), (probability > 0.5) == (truth > 0.5)


def test_a_threshold_from_validation_reaches_the_page(run: Path) -> None:
    report = read_report(run)
    dataset = Dataset.open(next(Path("datasets").iterdir()))
    assert [entry.label for entry in report.abstention] == ["base", "tuned"]
    entry = report.abstention[1]

    # The lowest confidence of the validation split, and no other, from which on no more than 0.7 are wrong.
    confidence, right = told(run, "tuned-validation", closed_questions(dataset.rows("validation")))
    assert entry.num_validation == len(confidence) > 5
    fitting = [level for level in confidence if 1 - right[confidence >= level].mean() <= 0.7]
    assert entry.threshold == pytest.approx(min(fitting))

    confidence, right = told(run, "tuned", closed_questions(dataset.rows("test")))
    kept = confidence >= entry.threshold
    assert (entry.num_test, entry.num_kept) == (len(confidence), int(kept.sum()))
    assert entry.coverage == pytest.approx(kept.mean())
    assert entry.accuracy == (pytest.approx(right[kept].mean()) if kept.any() else None)
    assert entry.accuracy_of_all == pytest.approx(right.mean())
    low, high = entry.accuracy_of_all_interval or (2.0, 2.0)
    assert 0 <= low <= right.mean() <= high <= 1
    assert list(entry.curve[-1]) == pytest.approx([1.0, 1 - right.mean()]), "the curve ends where everything is answered"

    page = (run / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="h-abstention"') :]
    section = section[: section.index("</section>")]
    assert section.count("<svg") == 2
    for shown in (
        f"{entry.threshold:.3f}",
        f"n = {entry.num_validation}",
        f"{entry.num_kept} / {entry.num_test}",
        f"{100 * entry.accuracy_of_all:.1f} %",
        f"{100 * low:.1f} % … {100 * high:.1f} %",
        "What if it kept silent when it is unsure?",
        "没有把握时不作答会怎样？",
    ):
        assert shown in section, shown
    card = (run / "report.md").read_text(encoding="utf-8")
    assert f"Tuned model: answers are kept from a probability of {entry.threshold:.3f} on" in card
    assert f"keeps {entry.num_kept} of {entry.num_test} answers" in card
    said = [warning.render("en") for warning in report.warnings if "threshold" in warning.template]
    assert [" groups: other patients might have given quite another." in text for text in said] == [True, True], said

    # The same from the stored answers alone, and a promise that nothing can keep is said to be none.
    api.evaluate(run, ["evaluation.abstain_max_risk=0.000001"])
    stored = json.loads((run / "report.json").read_text(encoding="utf-8"))["abstention"]
    assert stored[1]["max_risk"] == 0.000001
    if stored[1]["threshold"] is None:
        assert "none keeps the risk" in (run / "report.html").read_text(encoding="utf-8")
