"""Published ways of scoring visual question answering, defects included, beside one without them.

The same answers get other numbers under other protocols, often by more than tuning changes. These scorers are for comparison with
numbers that were made that way, and are named in ``evaluation.metrics``; no task asks for them by itself. ``strict`` reports the
same values under the rules of the metrics ``closed`` and ``open``, so that each defect is a difference between two numbers.

A question is closed where ``metadata["answer_type"]`` says so; where nothing is said, and always in MedEvalKit, where the reference
is yes or no.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.evaluation.metrics.vqa import ClosedAccuracy
from medtune.evaluation.metrics.words import answer_words
from medtune.language import msg
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LlavaMedV1", "MedEvalKitNoJudge", "Strict"]


class _Protocol:
    """What the three have in common: values are means over the samples that count, 0 to 1."""

    name: str
    values: tuple[MetricValue, ...]

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        check_name(name, self.values)
        return mean_of(totals)

    def _unscored(self, sample: Sample) -> tuple[Score, ...]:
        value = f"{self.name}/closed-accuracy" if sample.task == "closed-vqa" else f"{self.name}/open-exact"
        return (unscored(sample, value),)


class Strict(_Protocol):
    """Closed questions as :class:`.vqa.ClosedAccuracy` reads them, open ones over :func:`.words.answer_words`.

    Every sample with a reference counts, whatever the answer looks like. c words are on both sides, each as often as it stands on
    both; a words in the answer, r in the reference. Formulas as in :mod:`.vqa`, where their sources are.

    - ``accuracy`` (0 to 1, higher is better): right answers / answers to all questions, an open one being right when it matches
      exactly.
    - ``closed-accuracy`` (0 to 1, higher is better): right answers / answers to closed questions (Lau et al. 2018,
      doi:10.1038/sdata.2018.251).
    - ``open-exact`` (0 to 1, higher is better): mean of (answer = reference, word for word), open questions.
    - ``open-precision``, ``open-recall``, ``open-f1`` (0 to 1, higher is better): means of c / a, c / r and 2 c / (a + r), open
      questions (Rajpurkar et al. 2016, arXiv:1606.05250).
    """

    name = "strict"
    values = (
        share("strict/accuracy", msg("Accuracy, all questions (strict)")),
        share("strict/closed-accuracy", msg("Accuracy, closed questions (strict)")),
        share("strict/open-exact", msg("Exact match, open questions (strict)")),
        share("strict/open-precision", msg("Word precision, open questions (strict)")),
        share("strict/open-recall", msg("Word recall, open questions (strict)")),
        share("strict/open-f1", msg("Word F1, open questions (strict)")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        wanted = answer_words(reference(sample))
        if not wanted:
            return self._unscored(sample)
        if _is_closed(sample):
            right = bool(ClosedAccuracy().score(prediction, sample)[0].value)
            return mean_score(sample, "strict/accuracy", right), mean_score(sample, "strict/closed-accuracy", right)
        written = answer_words(prediction.generation.text)
        common = (Counter(wanted) & Counter(written)).total()
        return (
            mean_score(sample, "strict/accuracy", written == wanted),
            mean_score(sample, "strict/open-exact", written == wanted),
            mean_score(sample, "strict/open-precision", common / len(written) if written else 0.0),
            mean_score(sample, "strict/open-recall", common / len(wanted)),
            mean_score(sample, "strict/open-f1", 2 * common / (len(wanted) + len(written))),
        )


class LlavaMedV1(_Protocol):
    """LLaVA-Med's ``llava/eval/run_eval.py`` (microsoft/LLaVA-Med, commit ad758b68; ``run_eval_pvqa.py`` of the tag v1.0.0 alike;
    Li et al. 2023, arXiv:2306.00890).

    Means over the samples that count, a word being counted as below; shares where the script prints per cent.

    - ``closed-accuracy`` (0 to 1, higher is better): answers that hold the reference / answers that are counted.
    - ``open-exact`` (0 to 1, higher is better): mean of distinct reference words in the answer / words of the answer.
    - ``open-precision``, ``open-recall`` (0 to 1, higher is better): mean of h / words of the answer and of h / (h + missed), h
      being the answer's words that the reference has, missed the reference's words that the answer has not.
    - ``open-f1`` (0 to 1, higher is better): mean of 2 p r / (p + r) of the two.

    Its defects, kept:

    * Closed: an answer that holds yes or no and is wrong is not counted at all. A model that always says yes is right every time.
      Here such a sample is unscored, so that the report shows how many were left out.
    * Closed: yes, no and the reference are looked for as *substrings*: "abnormal" holds no. A closed question whose reference is
      neither ("axial") is right only if the answer also happens to hold yes or no.
    * Open: precision and recall count a word as often as the *answer* has it: "right right right" has recall 3/4 of "right lung".
    * Open: "exact match" is the number of distinct reference words in the answer divided by the answer's words.
    * The "open accuracy" of that script needs a list of candidate answers that was never published; it is not reproduced.

    Words after its normalisation, less its list of contractions (dont = don't), which only matters where one side has the
    apostrophe and the other has not.
    """

    name = "llava-med-v1"
    values = (
        share("llava-med-v1/closed-accuracy", msg("Accuracy, closed questions (LLaVA-Med v1, as published)")),
        share("llava-med-v1/open-exact", msg("“Exact match”, open questions (LLaVA-Med v1, as published)")),
        share("llava-med-v1/open-precision", msg("Word precision, open questions (LLaVA-Med v1, as published)")),
        share("llava-med-v1/open-recall", msg("Word recall, open questions (LLaVA-Med v1, as published)")),
        share("llava-med-v1/open-f1", msg("Word F1, open questions (LLaVA-Med v1, as published)")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample)
        if not target.strip():
            return self._unscored(sample)
        wanted, written = _llava_normal(target), _llava_normal(prediction.generation.text)
        if _is_closed(sample):
            name = "llava-med-v1/closed-accuracy"
            if "yes" not in written and "no" not in written:
                return (mean_score(sample, name, 0.0),)
            if wanted in written:
                return (mean_score(sample, name, 1.0),)
            return (unscored(sample, name, "wrong, and left out by the protocol"),)
        # The script normalises once more in each of its metrics.
        answer, truth = (Counter(_llava_normal(text).split()) for text in (written, wanted))
        exact = sum(word in answer for word in truth) / answer.total() if answer else 0.0
        hits = sum(count for word, count in answer.items() if word in truth)
        missed = sum(count for word, count in truth.items() if word not in answer)
        precision, recall = (hits / answer.total(), hits / (hits + missed)) if hits else (0.0, 0.0)
        return (
            mean_score(sample, "llava-med-v1/open-exact", exact),
            mean_score(sample, "llava-med-v1/open-precision", precision),
            mean_score(sample, "llava-med-v1/open-recall", recall),
            mean_score(sample, "llava-med-v1/open-f1", 2 * precision * recall / (precision + recall) if hits else 0.0),
        )


class MedEvalKitNoJudge(_Protocol):
    """MedEvalKit's scoring of VQA-RAD, SLAKE and PathVQA without its GPT judge (alibaba-damo-academy/MedEvalKit, ``utils.py``,
    2026; Xu et al. 2025, arXiv:2506.07044).

    Means over samples. p and r are distinct words of both sides / distinct words of the answer, and / those of the reference.

    - ``accuracy`` (0 to 1, higher is better): right answers / answers to all questions.
    - ``closed-accuracy`` (0 to 1, higher is better): right answers / answers where the reference is yes or no.
    - ``open-exact`` (0 to 1, higher is better): mean of (answer = reference, letter for letter in lower case).
    - ``open-precision`` (0 to 1, higher is better): in fact the mean of 2 p r / (p + r).
    - ``open-recall`` (0 to 1, higher is better): in fact the mean of p.
    - ``open-f1`` (0 to 1, higher is better): in fact the mean of r.

    Its defects, kept:

    * Closed: yes and no are looked for as *substrings*, and exactly one of them has to be found: "Yes, the lung is abnormal" is
      wrong where yes is right, and "the heart is normal" is right where no is.
    * Open: an answer is right when it is the reference letter for letter, in lower case, with its full stop.
    * Open: the function returns (F1, precision, recall) and is read as (precision, recall, F1), so that ``open-precision`` is F1,
      ``open-recall`` is precision and ``open-f1`` is recall.
    * With the judge, closed hits of SLAKE are counted twice in the overall accuracy. Not reproduced: without the judge they are
      not.

    Words are distinct words between blanks. Where that code ends with an exception (an empty answer) the sample counts 0. Its BLEU
    and ROUGE are not reproduced. Published tables of Lingshu were made *with* the judge and cannot be compared.
    """

    name = "medevalkit-nojudge"
    values = (
        share("medevalkit-nojudge/accuracy", msg("Accuracy, all questions (MedEvalKit without judge, as published)")),
        share("medevalkit-nojudge/closed-accuracy", msg("Accuracy, closed questions (MedEvalKit without judge, as published)")),
        share("medevalkit-nojudge/open-exact", msg("Exact match, open questions (MedEvalKit without judge, as published)")),
        share("medevalkit-nojudge/open-precision", msg("“Precision” (in fact F1), open questions (MedEvalKit without judge)")),
        share("medevalkit-nojudge/open-recall", msg("“Recall” (in fact precision), open questions (MedEvalKit without judge)")),
        share("medevalkit-nojudge/open-f1", msg("“F1” (in fact recall), open questions (MedEvalKit without judge)")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        target = reference(sample).lower().strip()
        if not target:
            return self._unscored(sample)
        response = _kit_response(_kit_extract(prediction.generation.text).lower().strip())
        if target in ("yes", "no"):
            plain = response.replace("\n", "").replace(".", "")
            right = ("yes" in plain) != ("no" in plain) and target in plain
            return (
                mean_score(sample, "medevalkit-nojudge/accuracy", right),
                mean_score(sample, "medevalkit-nojudge/closed-accuracy", right),
            )
        written, wanted = set(response.lower().split()), set(target.split())
        common = len(written & wanted)
        precision, recall = (common / len(written), common / len(wanted)) if common else (0.0, 0.0)
        f1 = 2 * precision * recall / (precision + recall) if common else 0.0
        exact = response == target
        return (
            mean_score(sample, "medevalkit-nojudge/accuracy", exact),
            mean_score(sample, "medevalkit-nojudge/open-exact", exact),
            mean_score(sample, "medevalkit-nojudge/open-precision", f1),
            mean_score(sample, "medevalkit-nojudge/open-recall", precision),
            mean_score(sample, "medevalkit-nojudge/open-f1", recall),
        )


def _is_closed(sample: Sample) -> bool:
    said = str(sample.metadata.get("answer_type") or "").strip().upper()
    return said == "CLOSED" if said in ("OPEN", "CLOSED") else reference(sample).strip().lower().rstrip(".") in ("yes", "no")


# --------------------------------------------------------------------------------------------------------------- LLaVA-Med

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_POINT = re.compile(r"\.(?!\d)")
_POINTS_REMOVED = 32
"""re.UNICODE, which that script passes where the number of replacements belongs."""
_DIGITS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AS_DIGITS = {word: str(value) for value, word in enumerate(_DIGITS)} | {"zero": "0"}


def _llava_normal(text: str) -> str:
    """Lower case, marks away (or a blank in their place), articles away, numbers up to ten as digits (Antol et al. 2015)."""
    text = text.lower()
    numbers = _COMMA_IN_NUMBER.search(text) is not None
    # Whether a mark leaves a blank is decided for the whole text, by whether it touches one anywhere.
    places = {ord(mark): "" if numbers or mark + " " in text or " " + mark in text else " " for mark in _MARKS}
    plain = _POINT.sub("", text.translate(places), count=_POINTS_REMOVED)
    words = (_AS_DIGITS.get(word, word) for word in plain.split())
    return " ".join(word for word in words if word not in ("a", "an", "the")).replace(",", "")


# -------------------------------------------------------------------------------------------------------------- MedEvalKit

_PATTERNS = (
    "**answer**:",
    "**answer**",
    "*answer*:",
    "**answer:**",
    "answer is",
    "answer:",
    "答案:",
    "final answer",
    "final answer is",
)


def _kit_extract(text: str) -> str:
    boxed = _kit_boxed(text)
    if boxed != "None":
        return boxed
    return _kit_tagged(text) if "<answer>" in text else text


def _kit_response(text: str) -> str:
    if "boxed" in text:
        text = _kit_boxed(text)
    elif "<answer>" in text:
        text = _kit_tagged(text)
    for pattern in _PATTERNS:
        if pattern in text:
            text = text.split(pattern)[-1]
    return text


def _kit_boxed(text: str) -> str:
    r"""What stands in the last ``\boxed{...}``; the word None where there is none or it is not closed."""
    start = text.rfind("\\boxed{")
    depth = 0
    for place in range(start + len("\\boxed{") - 1, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : place]
    return "None"


def _kit_tagged(text: str) -> str:
    return " ".join(re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)).strip() or text
