"""Content of reports: findings, measurements, sections, terms, modality and organ, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from medtune.evaluation.bootstrap import bound_without_exceptions
from medtune.evaluation.finding_counts import count_findings
from medtune.evaluation.measure import ScoreTable, difference, measure
from medtune.evaluation.metrics.additive import statistics_of
from medtune.evaluation.metrics.findings import ReportFindings, finding_outcomes
from medtune.evaluation.metrics.measurements import Measurements, pair_quantities
from medtune.evaluation.metrics.modality_organ import ModalityOrgan
from medtune.evaluation.metrics.sections import ReportSections
from medtune.evaluation.metrics.terminology import Terminology
from medtune.tasks.reading.quantities import Quantity, read_quantities
from medtune.tasks.reading.sections import about_this_study, read_sections
from medtune.types import Generation, Message, Prediction, Sample, Score


def sample(target: str, metadata: dict[str, Any] | None = None, *, name: str = "s", group: str = "g") -> Sample:
    messages = (Message(role="user", content="?"), Message(role="assistant", content=target))
    return Sample(id=name, task="report", messages=messages, target=target, group=group, source="t", metadata=metadata or {})


def said(text: str, name: str = "s") -> Prediction:
    return Prediction(sample_id=name, generation=Generation(id=name, text=text, finish_reason="stop"), answer=text)


def numbers(metric: Any, target: str, text: str, metadata: dict[str, Any] | None = None) -> dict[str, float | None]:
    return {score.metric.partition("/")[2]: score.value for score in metric.score(said(text), sample(target, metadata))}


# ------------------------------------------------------------------------------------------------------------- findings


def test_found_missed_and_invented() -> None:
    # Pleural effusion is a kind of effusion: the reference claims 3 (with pneumothorax), the answer 3 (with cardiomegaly).
    found = numbers(ReportFindings(), "Left pleural effusion. Pneumothorax.", "Right pleural effusion. Cardiomegaly.")
    assert found["micro-f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert (found["micro-precision"], found["micro-recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (found["invented"], found["missed"]) == (1, 1)
    assert found["side-accuracy"] == 0
    assert found["certainty-accuracy"] == 1


def test_a_flipped_negation_is_a_contradiction() -> None:
    found = numbers(ReportFindings(), "No pneumothorax. Cardiomegaly.", "Pneumothorax. Cardiomegaly.")
    assert found["contradicted"] == pytest.approx(1 / 2)
    assert found["invented"] == 1
    assert numbers(ReportFindings(), "No pneumothorax.", "No pneumothorax.")["contradicted"] == 0


def test_a_doubt_is_a_claim_of_another_certainty() -> None:
    found = numbers(ReportFindings(), "Pneumothorax.", "Pneumothorax cannot be excluded.")
    assert (found["micro-f1"], found["certainty-accuracy"], found["contradicted"]) == (1, 0, 0)


def test_a_coarser_answer_is_half_right() -> None:
    # Reference: subdural < intracranial < hemorrhage. The answer claims one of the three.
    found = numbers(ReportFindings(), "Subdural hematoma.", "Hemorrhage.")
    assert (found["micro-precision"], found["micro-recall"]) == (1, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("target", "text", "missed", "coarser", "invented"),
    [
        ("Subdural hematoma.", "Hemorrhage.", 0, 1, 0),
        ("Left lower lobe pneumonia.", "Opacity in the left lower lobe.", 0, 1, 0),
        ("Left lower lobe pneumonia.", "Pneumonia.", 0, 0, 0),
        ("左肺下叶肺炎。", "肺部感染。", 0, 0, 0),  # these words are pneumonia
        ("硬膜下血肿。", "出血。", 0, 1, 0),
        ("左肺下叶肺炎。", "左肺下叶斑片影。", 0, 1, 0),
        ("Subdural hematoma.", "Pneumothorax.", 1, 0, 1),  # one finding, and not three, is missed
        ("Pneumonia.", "Consolidation.", 1, 0, 1),  # both opacities, and neither a broader word for the other
        ("Pneumonia.", "Opacity. Consolidation.", 1, 0, 1),  # "opacity" is what the consolidation is
        ("Lung opacity.", "Pneumonia.", 0, 0, 1),  # more than was said
        ("Subdural hematoma. Epidural hematoma.", "Hemorrhage.", 0, 2, 0),
        ("Subdural hematoma. Epidural hematoma.", "Subdural hematoma.", 1, 0, 0),
        ("Subdural hematoma.", "No subdural hematoma. Hemorrhage.", 0, 1, 0),  # and contradicted
        ("Subdural hematoma.", "The brain is normal.", 1, 0, 0),
        ("The brain is normal.", "Subdural hematoma.", 0, 0, 1),
    ],
)
def test_a_broader_word_is_neither_missed_nor_invented(target: str, text: str, missed: int, coarser: int, invented: int) -> None:
    found = numbers(ReportFindings(), target, text)
    assert (found["missed"], found["coarser"], found["invented"]) == (missed, coarser, invented)


def test_an_empty_answer_has_missed_and_named_nothing() -> None:
    found = numbers(ReportFindings(), "Subdural hematoma.", "")
    assert (found["missed"], found["coarser"], found["invented"]) == (1, None, None)


def test_a_row_says_how_many_of_the_missed_were_named_by_a_broader_word() -> None:
    cases = [
        ("a", "a", "Subdural hematoma.", "Hemorrhage."),
        ("b", "b", "Subdural hematoma.", "Normal."),
        ("c", "c", "Normal.", "Normal."),
    ]
    rows = {row.finding: row for row in count_findings(table(cases=cases))}
    assert (rows["subdural hematoma"].num_missed, rows["subdural hematoma"].num_coarser) == (2, 1)
    assert (rows["hemorrhage"].num_found, rows["hemorrhage"].num_coarser) == (1, 0)
    assert rows["intracranial hemorrhage"].num_coarser == 0, "a step on the way is not what the reference says"


def test_languages_do_not_matter() -> None:
    assert numbers(ReportFindings(), "Left pleural effusion, no pneumothorax.", "左侧胸腔积液，未见气胸。")["micro-f1"] == 1


def test_nothing_to_find() -> None:
    quiet = numbers(ReportFindings(), "双肺未见明显异常。", "The lungs are normal.")
    assert (quiet["micro-f1"], quiet["invented"]) == (1, 0)
    assert quiet["micro-recall"] is None
    assert numbers(ReportFindings(), "双肺未见明显异常。", "Pneumothorax.")["micro-f1"] == 0
    assert set(numbers(ReportFindings(), "A nice day.", "Pneumothorax.").values()) == {None}, "the tables see nothing there"


def test_the_question_is_not_the_answer() -> None:
    text = "Indication: pneumothorax. Findings: Clear lungs. Comparison: effusion last week. Impression: Normal."
    assert numbers(ReportFindings(), text, "Clear lungs.")["micro-f1"] == 1


CASES = [
    ("a", "p1", "Pneumothorax. Fracture.", "Pneumothorax."),
    ("b", "p1", "Pneumothorax.", "No pneumothorax. Ascites."),
    ("c", "p2", "Pneumothorax.", "Pneumothorax."),
    ("d", "p3", "Normal.", "Normal."),
]


def table(flip: bool = False, cases: Sequence[tuple[str, str, str, str]] = CASES) -> ScoreTable:
    metric = ReportFindings()
    scores: list[Score] = []
    for name, group, target, text in cases:
        scores += metric.score(said(target if flip else text, name), sample(target, name=name, group=group))
    return ScoreTable.build(
        scores,
        {name: "report" for name, *_ in cases},
        {name: group for name, group, *_ in cases},
        {value.name: metric for value in metric.values},
        num_resamples=200,
        seed=0,
    )


def test_micro_and_macro_over_samples() -> None:
    # Pneumothorax: 2 found, 1 missed: F1 4/5. Fracture: missed, 0. Ascites (and the effusion it is a kind of): invented, 0.
    assert measure(table(), "findings/macro-f1").value == pytest.approx((4 / 5 + 0 + 0 + 0) / 4)
    assert measure(table(), "findings/micro-f1").value == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    changed = difference(table(), table(flip=True), "findings/macro-f1")
    assert changed.second == 1, "ascites was never there, and is not counted"
    assert changed.low is not None


def test_a_row_for_each_finding() -> None:
    rows = {row.finding: row for row in count_findings(table())}
    assert set(rows) == {"pneumothorax", "fracture", "ascites", "effusion"}
    row = rows["pneumothorax"]
    assert (row.num_reference, row.num_found, row.num_missed, row.num_invented) == (3, 2, 1, 0)
    assert row.recall is not None
    assert row.precision is not None
    assert row.f1 is not None
    assert (row.recall.value, row.precision.value, row.f1.value) == (pytest.approx(2 / 3), 1, pytest.approx(4 / 5))
    assert row.recall.num_groups == 2
    assert row.recall.low is not None
    assert row.recall.low <= 2 / 3
    assert (row.title_zh, row.body_part) == ("气胸", "Chest")
    assert rows["ascites"].num_invented == 1
    assert rows["ascites"].recall is not None
    assert rows["ascites"].recall.value is None, "no reference claims it"


def test_recall_is_as_uncertain_as_the_groups_that_have_the_finding() -> None:
    """Found in all of three patients, and invented in thirty others: those say nothing of how often it is found."""
    true = [(f"t{number}", f"t{number}", "Left pneumothorax.", "Left pneumothorax.") for number in range(3)]
    invented = [(f"i{number}", f"i{number}", "Normal.", "Left pneumothorax.") for number in range(30)]
    (row,) = (row for row in count_findings(table(cases=[*true, *invented])) if row.finding == "pneumothorax")
    assert row.recall is not None
    assert (row.recall.value, row.recall.num_groups) == (1, 3)
    assert row.recall.low == pytest.approx(1 - bound_without_exceptions(3))
    assert row.precision is not None
    assert row.precision.num_groups == 33


def test_placed_statistics_come_back() -> None:
    score = table().scores["findings/macro-f1"]["b"]
    assert finding_outcomes(score) == {"pneumothorax": "missed", "ascites": "invented", "effusion": "invented"}
    again = Score.model_validate_json(score.model_dump_json())
    assert statistics_of([again]).sum() == 3
    assert statistics_of([again]).shape == (1, 3 * 3), "only the findings that occur"


# -------------------------------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 3.2 x 2.1 cm mass", [("length", 32), ("length", 21)]),
        ("3.2 cm x 21 mm", [("length", 32), ("length", 21)]),
        ("大小约8mm×6mm", [("length", 8), ("length", 6)]),
        ("直径约1.5厘米", [("length", 15)]),
        ("a 5-mm nodule, 3-5 mm apart", [("length", 5), ("length", 3), ("length", 5)]),
        ("occupying 4.1% of it, 4,1 % or 4.1 percent", [("share", 4.1)] * 3),
        ("1,200 ml of fluid, 30cc", [("volume", 1200), ("volume", 30)]),
        ("-80 HU, 45 Hounsfield units", [("density", -80), ("density", 45)]),
        ("SUVmax of 3.4", [("uptake", 3.4)]),
        ("Cobb angle 25 degrees, 角度约20°", [("angle", 25), ("angle", 20)]),
        ("L4, T2-weighted, 3 nodules, 2024-01-02, 5 months, 10 mmHg, C5", []),
        ("9" * 5000 + " mm", []),
        ("1 x " * 5000, []),
    ],
)
def test_measurements_are_read_in_one_unit(text: str, expected: list[tuple[str, float]]) -> None:
    assert [(found.kind, pytest.approx(found.value)) for found in read_quantities(text)] == expected


def test_measurements_are_paired_within_the_tolerance() -> None:
    found = numbers(Measurements(), "Nodule of 1.0 cm and 20 mm, 4 %.", "Nodule of 10 mm and 2.3 cm, 50 ml.")
    # 10 and 10 mm agree, 20 and 23 mm differ by 15 %, the rest has no partner.
    assert (found["precision"], found["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (found["f1"], found["exact-f1"], found["error"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 0)
    near = numbers(Measurements(), "30 mm", "2.8 cm")
    assert (near["f1"], near["exact-f1"]) == (1, 0)
    assert near["error"] == pytest.approx(2 / 30)
    assert numbers(Measurements(), "3 mm", "4 mm")["f1"] == 1, "1 mm"
    assert numbers(Measurements(), "No size.", "None.") == {}
    assert numbers(Measurements(), "No size.", "5 mm")["precision"] == 0


def test_no_pairing_has_more_pairs() -> None:
    lengths = [Quantity("length", value) for value in (10.0, 11.0)], [Quantity("length", value) for value in (11.0, 12.0)]
    assert len(pair_quantities(*lengths)) == 2
    assert len(pair_quantities(*lengths, exact=True)) == 1


# ------------------------------------------------------------------------------------------------------------ sections


def test_sections_by_their_headings() -> None:
    opening, found = read_sections("CHEST\n**Findings:** Clear.\n## Impression\nNormal.\nTechnique: PA")
    assert opening == "CHEST"
    assert found == {"findings": "Clear.", "impression": "Normal.", "technique": "PA"}
    assert read_sections("检查所见：双肺清晰。印象：未见异常。")[1] == {"findings": "双肺清晰。", "impression": "未见异常。"}
    assert read_sections("【影像表现】\n清晰\n【诊断意见】\n正常")[1] == {"findings": "清晰", "impression": "正常"}
    assert read_sections("The findings are normal")[1] == {}
    assert about_this_study("Indication: cough") == "Indication: cough"


def test_sections_that_a_report_should_have() -> None:
    found = numbers(ReportSections(), "Findings: a. Impression: b.", "Findings: a.")
    assert (found["complete"], found["f1"]) == (0, pytest.approx(2 / 3))
    assert numbers(ReportSections(), "Findings: a. Impression: b.", "所见：甲。印象：乙。")["complete"] == 1
    assert numbers(ReportSections(), "Findings: a. Impression: b.", "Findings: a. Impression:")["complete"] == 0
    assert set(numbers(ReportSections(), "No headings.", "Findings: a.").values()) == {None}


# -------------------------------------------------------------------------------------------------- terms, fields


def test_terms_against_everyday_words() -> None:
    found = numbers(Terminology(), "A hyperdense subdural hematoma.", "A bright spot, hyperdense.")
    assert found["recall"] == pytest.approx(1 / 2)
    plain = numbers(Terminology(), "A hyperdense lesion.", "An area of differing density.")
    assert (plain["share"], plain["recall"]) == (0, 0)
    assert numbers(Terminology(), "高密度影。", "密度不同。")["share"] == 0
    assert numbers(Terminology(), "A hyperdense lesion.", "Something.")["share"] is None


@pytest.mark.parametrize(
    ("answer", "modality", "organ"),
    [
        ("An MRI of the head", 1, 1),
        ("头颅磁共振图像", 1, 1),
        ("A CT of the brain", 0, 1),
        ("CT or MRI of the liver", 0, 0),
        ("a picture", 0, 0),
    ],
)
def test_modality_and_organ(answer: str, modality: int, organ: int) -> None:
    found = numbers(ModalityOrgan(), "An MR image of the brain.", answer, {"modality": "MR", "organ": "brain"})
    assert found == {"modality-accuracy": modality, "organ-accuracy": organ}


def test_an_organ_lies_in_its_region_and_not_the_other_way_round() -> None:
    known = {"organ": "abdomen"}
    assert numbers(ModalityOrgan(), "CT of the abdomen", "the liver", known)["organ-accuracy"] == 1
    assert numbers(ModalityOrgan(), "the liver", "the abdomen", {"organ": "liver"})["organ-accuracy"] == 0
    assert numbers(ModalityOrgan(), "the liver", "the liver") == {}
    assert set(numbers(ModalityOrgan(), "a picture", "the liver", {"organ": "liver"}).values()) == {None}


@pytest.mark.parametrize("metric", [ReportFindings(), Measurements(), ReportSections(), Terminology(), ModalityOrgan()])
@pytest.mark.parametrize("text", ["x" * 1_000_000, "5 mm x " * 100_000, "No effusion:\n" * 50_000, "左肺" * 100_000])
def test_a_very_long_answer_is_only_long(metric: Any, text: str) -> None:
    target = "Findings: A 5 mm hyperdense nodule of the brain on CT. Impression: Nodule."
    scores = metric.score(said(text), sample(target, {"modality": "CT", "organ": "brain"}))
    assert all(score.value is None or np.isfinite(score.value) for score in scores)


def test_columns_keep_placed_statistics() -> None:
    from medtune.evaluation.score_columns import ScoreColumns, parts_of

    scores = [table().scores["findings/macro-f1"][name] for name, *_ in CASES]
    columns = ScoreColumns()
    # In two parts of different lengths, as two processes give them.
    columns.add(["a", "b"], parts_of(list(enumerate(scores[:2]))))
    columns.add(["c", "d"], parts_of(list(enumerate(scores[2:]))))
    for score in scores:
        kept = columns["findings/macro-f1"][score.sample_id]
        assert (kept.statistics, kept.places, kept.width) == (score.statistics, score.places, score.width)
