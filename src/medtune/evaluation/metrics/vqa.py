"""Answers to questions: closed (yes, no or a choice), multiple choice by letter, and open."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.words import answer_words, holds_run
from medtune.language import msg
from medtune.tasks.asking import question_of
from medtune.tasks.reading.choice import read_choice, read_options, reference_letter
from medtune.tasks.reading.yes_no import read_yes_no
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ChoiceLetter", "ClosedAccuracy", "OpenAnswer"]

_ALTERNATIVE = re.compile(r"\bor\b|/|或|还是", re.IGNORECASE)


class ClosedAccuracy:
    """Closed questions: yes or no, or a choice among words.

    A reference that is yes or no is compared with what the answer *says* (:func:`medtune.tasks.reading.yes_no.read_yes_no`: whole
    words, so that "abnormal" holds no "no", and the question said again, so that "The heart is not enlarged" answers "Is the heart
    enlarged?"). Any other reference has to stand in the answer as whole words, and an answer that offers alternatives ("CT or MRI")
    has to be the reference exactly. Every sample with a reference counts, whatever the answer looks like; one without is unscored.

    - ``accuracy`` (0 to 1, higher is better): right answers / answers, as VQA-RAD reports closed questions (Lau et al. 2018,
      doi:10.1038/sdata.2018.251).

    The others are over yes/no references alone. TP, FP, TN, FN count yes as positive; an answer that is neither yes nor no, or
    both, is the wrong one, so FN or FP.

    - ``sensitivity`` (0 to 1, higher is better): TP / (TP + FN) (Altman & Bland 1994, doi:10.1136/bmj.308.6943.1552).
    - ``specificity`` (0 to 1, higher is better): TN / (TN + FP) (the same).
    - ``mcc`` (-1 to 1, higher is better): (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)) (Matthews 1975,
      doi:10.1016/0005-2795(75)90109-9); 0 for a model that always says the same (Chicco & Jurman 2020,
      doi:10.1186/s12864-019-6413-7).
    - ``yes-rate`` (0 to 1, neither end is better): answers that say yes / answers, the "yes ratio" of POPE (Li et al. 2023,
      arXiv:2305.10355).
    - ``yes-bias`` (0 to 1, lower is better): abs(answers that say yes - references that are yes) / answers, a convention of
      medtune.
    - ``parse-failure`` (0 to 1, lower is better): answers that are neither yes nor no, or both / answers, a convention of medtune.
    """

    name = "closed"
    values: tuple[MetricValue, ...] = (
        share("closed/accuracy", msg("Accuracy, closed questions")),
        MetricValue(name="closed/mcc", title=msg("Matthews correlation, yes/no").template, direction="higher", low=-1.0, high=1.0),
        share("closed/sensitivity", msg("Sensitivity (answer yes)")),
        share("closed/specificity", msg("Specificity (answer no)")),
        share("closed/yes-bias", msg("Share of yes, distance from the true share"), direction="lower"),
        share("closed/yes-rate", msg("Share of answers that are yes"), direction="neither"),
        share("closed/parse-failure", msg("Share of answers that are neither yes nor no"), direction="lower"),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample).strip()
        if not target:
            return (unscored(sample, "closed/accuracy"),)
        text = prediction.generation.text
        truth = _plain_yes_no(target)
        if truth is None:
            right = _says(text, target)
            return (mean_score(sample, "closed/accuracy", right, _compare(_shorten(text), target, right)),)
        answer = prediction.answer if prediction.answer in ("yes", "no") else read_yes_no(text, question_of(sample))
        right = answer == truth
        said_yes, true_yes = float(answer == "yes"), float(truth == "yes")
        # (true yes, false yes, true no, false no); an unreadable answer falls on the wrong side.
        table = (truth == "yes" and right, truth == "no" and not right, truth == "no" and right, truth == "yes" and not right)
        return (
            mean_score(sample, "closed/accuracy", right, _compare(str(answer or _shorten(text)), truth, right)),
            mean_score(sample, "closed/sensitivity" if truth == "yes" else "closed/specificity", right),
            Score(
                sample_id=sample.id,
                metric="closed/mcc",
                value=1.0 if right else -1.0,
                statistics=tuple(float(cell) for cell in table),
            ),
            Score(
                sample_id=sample.id, metric="closed/yes-bias", value=abs(said_yes - true_yes), statistics=(said_yes, true_yes, 1.0)
            ),
            mean_score(sample, "closed/yes-rate", said_yes),
            mean_score(sample, "closed/parse-failure", answer is None),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        check_name(name, self.values)
        totals = np.asarray(totals, dtype=np.float64)
        if name == "closed/yes-bias":
            return mean_of(np.stack([np.abs(totals[..., 0] - totals[..., 1]), totals[..., 2]], axis=-1))
        if name != "closed/mcc":
            return mean_of(totals)
        true_yes, false_yes, true_no, false_no = np.moveaxis(totals, -1, 0)
        margins = (true_yes + false_yes) * (true_yes + false_no) * (true_no + false_yes) * (true_no + false_no)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = (true_yes * true_no - false_yes * false_no) / np.sqrt(margins)
        # A constant model has no correlation with anything (Chicco & Jurman 2020, doi:10.1186/s12864-019-6413-7); a set with one
        # answer only has nothing to correlate with.
        both = (true_yes + false_no > 0) & (true_no + false_yes > 0)
        return np.where(both, np.where(margins > 0, correlation, 0.0), np.nan)


class ChoiceLetter:
    """Multiple choice: whether the answer is the letter of the right option.

    It judges the samples whose reference is a letter from A to J, alone or before its option ("B", "(B)", "B. pneumonia"); others
    get no score. The letter is read by :func:`medtune.tasks.reading.choice.read_choice`, by the words of the options where the
    question lists them.

    - ``accuracy`` (0 to 1, higher is better): right letters / answers, as in PMC-VQA (Zhang et al. 2023, arXiv:2305.10415); an
      answer that names no option, or several, is wrong.
    - ``parse-failure`` (0 to 1, lower is better): answers that name no option, or several / answers, a convention of medtune.
    """

    name = "choice"
    values: tuple[MetricValue, ...] = (
        share("choice/accuracy", msg("Accuracy, multiple choice")),
        share("choice/parse-failure", msg("Share of answers that name no option, or several"), direction="lower"),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample).strip()
        if not target:
            return tuple(unscored(sample, value.name) for value in self.values)
        question = " ".join(message.content for message in sample.prompt if message.role == "user")
        options = read_options(question)
        truth = reference_letter(target, options)
        if truth is None:
            return ()
        answer = read_choice(prediction.generation.text, options)
        right = answer == truth
        return (
            mean_score(sample, "choice/accuracy", right, _compare(answer or _shorten(prediction.generation.text), truth, right)),
            mean_score(sample, "choice/parse-failure", answer is None),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


class OpenAnswer:
    """Open questions over words; means over samples.

    Words after the VQA normalisation (:func:`.words.answer_words`), c in the answer and reference, a in the answer, r in the
    reference. A word counts in c as often as it stands on *both* sides: with the answer's multiplicity alone, "right right right"
    would have recall 1 where "right lung" was asked. A sample without a reference is unscored; an empty answer is 0.

    - ``exact`` (0 to 1, higher is better): mean of (answer = reference, word for word) (Rajpurkar et al. 2016, arXiv:1606.05250,
      section 6.1).
    - ``f1`` (0 to 1, higher is better): mean of 2 c / (a + r) (the same).
    - ``recall`` (0 to 1, higher is better): mean of c / r, what LLaVA-Med reports for open questions (Li et al. 2023,
      arXiv:2306.00890), without its defect (:mod:`.protocols`).
    """

    name = "open"
    values: tuple[MetricValue, ...] = (
        share("open/exact", msg("Exact match, open questions")),
        share("open/f1", msg("Word F1, open questions")),
        share("open/recall", msg("Word recall, open questions")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample)
        wanted, written = answer_words(target), answer_words(prediction.generation.text)
        if not wanted:
            return tuple(unscored(sample, value.name) for value in self.values)
        common = (Counter(wanted) & Counter(written)).total()
        exact = wanted == written
        return (
            mean_score(sample, "open/exact", exact, _compare(_shorten(prediction.generation.text), _shorten(target), exact)),
            mean_score(sample, "open/f1", 2 * common / (len(wanted) + len(written))),
            mean_score(sample, "open/recall", common / len(wanted)),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)


def _plain_yes_no(target: str) -> str | None:
    """yes or no when the reference is nothing else: "no shift" is a choice with words of its own."""
    return read_yes_no(target) if len(answer_words(target)) == 1 or target in ("是的", "不是", "没有", "不存在", "存在") else None


def _says(text: str, target: str) -> bool:
    written, wanted = answer_words(text), answer_words(target)
    if not wanted:
        return text.strip() == target
    return written == wanted or (holds_run(written, wanted) and not _ALTERNATIVE.search(text))


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:59] + "…"


def _compare(answer: str, truth: str, right: bool) -> str:
    return f"{answer or '∅'} {'=' if right else '≠'} {truth}"
