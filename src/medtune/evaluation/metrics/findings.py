"""Which findings an answer claims that the reference claims too: report content without any model."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cache
from typing import TYPE_CHECKING, Literal

from medtune.evaluation.metrics.additive import check_name, mean_of, mean_score, reference, share, unscored
from medtune.language import msg
from medtune.tasks.reading.assertions import Assertions, findings, read_assertions
from medtune.tasks.reading.sections import about_this_study
from medtune.types import MetricValue, Prediction, Sample, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CELLS", "Outcome", "ReportFindings", "coarser_outcomes", "finding_outcomes", "named_coarser"]

Outcome = Literal["found", "missed", "invented"]

CELLS: tuple[Outcome, ...] = ("found", "missed", "invented")
"""The counts of one finding, in the order in which they stand in the statistics of ``findings/macro-f1``."""


class ReportFindings:
    """Findings of the answer against those of the reference, both read by :func:`medtune.tasks.reading.assertions.read_assertions`.

    A finding is *claimed* where a text calls it present or possible; the kinds above it are claimed with it (a subdural hematoma is
    an intracranial hemorrhage is a hemorrhage: hierarchical precision and recall of Kiritchenko, Matwin & Famili 2005), so that a
    coarser answer is half right. Per sample and finding: *found* (both claim it), *missed* (the reference alone), *invented* or
    hallucinated (the answer alone). Over a set of samples, with the sums of these:

    - ``micro-precision`` (0 to 1, higher is better): found / (found + invented), over all findings together.
    - ``micro-recall`` (0 to 1, higher is better): found / (found + missed).
    - ``micro-f1`` (0 to 1, higher is better): 2 found / (2 found + missed + invented).
    - ``macro-f1`` (0 to 1, higher is better): the plain mean of the F1 of every finding that at least one reference or answer
      claims (Yang 1999, doi:10.1023/A:1009982220290): a rare finding counts as much as a common one.

    For a person a subdural hematoma is one finding and not three. By a convention of medtune these count each text's *most
    specific* findings alone, of which no other claimed finding of the text is a kind:

    - ``missed`` (0 to 1000 per report, lower is better): mean number of those of the reference that the answer neither claims nor
      names coarser.
    - ``coarser`` (0 to 1000 per report, neither end is better): mean number of those of the reference that the answer does not
      claim, while one of its own is a finding that they are a kind of ("a hemorrhage" for a subdural hematoma: less was said than
      is true, and nothing false). It falls where such a finding is named, and where it is missed. A sibling is no coarser name:
      for pneumonia "consolidation" is a missed and an invented finding.
    - ``invented`` (0 to 1000 per report, lower is better): mean number of those of the answer that the reference does not claim.
      An answer more specific than the reference ("pneumonia" for an opacity) claims what nobody has said, and is one of these. An
      empty answer has invented nothing, and is unscored here and in ``coarser``.

    Conventions of medtune, likewise of sums:

    - ``contradicted`` (0 to 1, lower is better): findings on which one text claims what the other denies / findings that both texts
      speak of, present or denied. Embeddings and n-grams hardly see these.
    - ``side-accuracy`` (0 to 1, higher is better): those with the same side (left, right, both) / the references' claimed findings
      with a side that the answer claims too; a side left out is wrong.
    - ``certainty-accuracy`` (0 to 1, higher is better): those that are present in both or possible in both / findings that both
      claim.

    A sample's own value of the F1s is that of the sample, and 1 where there was nothing to find and nothing was claimed. A
    reference in which the tables see neither a finding nor a statement of normality is unscored: the number of scored samples says
    how far the tables reach. Indication, technique and comparison sections are not read. What the tables cannot see is said in
    ``docs/metrics-report-content.md``; a model-based metric (RadGraph, GREEN) sees more, and has errors of its own.
    """

    name = "findings"
    values: tuple[MetricValue, ...] = (
        share("findings/micro-f1", msg("Findings, F1")),
        share("findings/macro-f1", msg("Findings, mean F1 of each")),
        share("findings/micro-precision", msg("Findings, precision")),
        share("findings/micro-recall", msg("Findings, recall")),
        MetricValue(
            name="findings/invented",
            title=msg("Hallucinated findings").template,
            direction="lower",
            low=0.0,
            high=1000.0,
            unit="per report",
        ),
        MetricValue(
            name="findings/missed",
            title=msg("Missed findings").template,
            direction="lower",
            low=0.0,
            high=1000.0,
            unit="per report",
        ),
        MetricValue(
            name="findings/coarser",
            title=msg("Findings named by a broader word").template,
            direction="neither",
            low=0.0,
            high=1000.0,
            unit="per report",
        ),
        share("findings/contradicted", msg("Findings contradicted"), direction="lower"),
        share("findings/side-accuracy", msg("Side of findings")),
        share("findings/certainty-accuracy", msg("Certainty of findings")),
    )

    def score(self, prediction: Prediction, sample: Sample) -> tuple[Score, ...]:
        truth = read_assertions(about_this_study(reference(sample)))
        if not truth:
            return tuple(unscored(sample, value.name) for value in self.values)
        text = prediction.generation.text
        answer = read_assertions(about_this_study(text))
        wanted, claimed = truth.claimed, answer.claimed
        found, missed, invented = wanted & claimed, wanted - claimed, claimed - wanted
        counts = (float(len(found)), float(len(missed)), float(len(invented)))
        empty = not text.strip()
        own = 0.0 if empty else _f1(*counts)
        explanation = " ".join([f"−{name}" for name in sorted(missed)] + [f"+{name}" for name in sorted(invented)])
        return (
            Score(sample_id=sample.id, metric="findings/micro-f1", value=own, statistics=counts, explanation=explanation),
            _placed(sample, own, found, missed, invented),
            *_shares(sample, counts, empty),
            *_numbers(sample, wanted, claimed, empty),
            *_agreements(sample, truth, answer, found),
        )

    def aggregate(self, name: str, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """``micro-f1`` takes (found, missed, invented); ``macro-f1`` the same of each finding that any text claims, (..., 3 F)."""
        import numpy as np

        check_name(name, self.values)
        totals = np.asarray(totals, dtype=np.float64)
        if name == "findings/micro-f1":
            return _f1_of(totals)
        if name == "findings/macro-f1":
            each = _f1_of(totals.reshape(*totals.shape[:-1], -1, len(CELLS)))
            known = np.isfinite(each)
            count = known.sum(axis=-1)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(count > 0, np.where(known, each, 0.0).sum(axis=-1) / count, np.nan)
        return mean_of(totals)


def finding_outcomes(score: Score) -> dict[str, Outcome]:
    """Finding -> what became of it in one sample, from its score on ``findings/macro-f1``; empty for one
    that is unscored, or in which neither text claims a finding."""
    # The score of a report without findings holds one place with a count of 0.
    if not any(score.statistics):
        return {}
    names = tuple(findings())
    return {names[place // len(CELLS)]: CELLS[place % len(CELLS)] for place in score.places}


def named_coarser(wanted: Set[str], claimed: Set[str]) -> frozenset[str]:
    """The most specific findings of a reference that an answer does not claim, but names by a finding that they are kinds of.

    Args:
        wanted: What the reference claims, with all that it is a kind of.
        claimed: What the answer claims, likewise.
    """
    known, said = findings(), _most_specific(claimed)
    return frozenset(name for name in _most_specific(wanted) - claimed if not said.isdisjoint(known[name].kinds_of))


def coarser_outcomes(outcomes: Mapping[str, Outcome]) -> frozenset[str]:
    """:func:`named_coarser` of what :func:`finding_outcomes` gives."""
    wanted, claimed = ({name for name, seen in outcomes.items() if seen != other} for other in ("invented", "missed"))
    return named_coarser(wanted, claimed)


def _most_specific(claimed: Set[str]) -> frozenset[str]:
    known = findings()
    return frozenset(claimed) - {broader for name in claimed for broader in known[name].kinds_of}


def _numbers(sample: Sample, wanted: frozenset[str], claimed: frozenset[str], empty: bool) -> tuple[Score, ...]:
    coarser = len(named_coarser(wanted, claimed))
    missed, invented = len(_most_specific(wanted) - claimed) - coarser, len(_most_specific(claimed) - wanted)
    if not empty:
        counts = {"invented": invented, "missed": missed, "coarser": coarser}
        return tuple(mean_score(sample, f"findings/{name}", number) for name, number in counts.items())
    return (
        unscored(sample, "findings/invented"),
        mean_score(sample, "findings/missed", missed) if missed else unscored(sample, "findings/missed"),
        unscored(sample, "findings/coarser"),
    )


@cache
def _place() -> dict[str, int]:
    return {name: number * len(CELLS) for number, name in enumerate(findings())}


def _placed(sample: Sample, value: float, *sets: frozenset[str]) -> Score:
    first = _place()
    places = sorted(first[name] + cell for cell, names in enumerate(sets) for name in names)
    # A report in which there is nothing to find still is one: a place with a count of 0.
    return Score(
        sample_id=sample.id,
        metric="findings/macro-f1",
        value=value,
        statistics=(1.0,) * len(places) or (0.0,),
        places=tuple(places) or (0,),
        width=len(CELLS),
    )


def _f1(found: float, missed: float, invented: float) -> float:
    whole = 2 * found + missed + invented
    return 2 * found / whole if whole else 1.0


def _f1_of(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) -> (...), NaN where nothing was found, missed or invented."""
    import numpy as np

    twice = 2 * totals[..., 0]
    whole = twice + totals[..., 1] + totals[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, twice / whole, np.nan)


def _shares(sample: Sample, counts: tuple[float, float, float], empty: bool) -> tuple[Score, Score]:
    found, missed, invented = counts
    wholes = {"findings/micro-precision": found + invented, "findings/micro-recall": found + missed}
    first, second = (
        Score(sample_id=sample.id, metric=name, value=found / whole, statistics=(found, whole))
        if whole and not (empty and name == "findings/micro-precision")
        else unscored(sample, name)
        for name, whole in wholes.items()
    )
    return first, second


def _agreements(sample: Sample, truth: Assertions, answer: Assertions, found: frozenset[str]) -> tuple[Score, ...]:
    spoken = truth.of.keys() & answer.of.keys()
    against = sorted(name for name in spoken if truth.of[name].is_claimed != answer.of[name].is_claimed)
    sided = [name for name in found if truth.of[name].side is not None]
    same_side = sum(truth.of[name].side == answer.of[name].side for name in sided)
    as_certain = sum(truth.of[name].status == answer.of[name].status for name in found)
    return (
        _ratio(sample, "findings/contradicted", len(against), len(spoken), " ".join(against)),
        _ratio(sample, "findings/side-accuracy", same_side, len(sided)),
        _ratio(sample, "findings/certainty-accuracy", as_certain, len(found)),
    )


def _ratio(sample: Sample, name: str, part: int, whole: int, explanation: str = "") -> Score:
    if not whole:
        return unscored(sample, name)
    return Score(
        sample_id=sample.id, metric=name, value=part / whole, statistics=(float(part), float(whole)), explanation=explanation
    )
