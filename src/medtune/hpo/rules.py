"""What others say of good settings, each with who says it. None of it was measured by medtune: it is there to be tested.

R1 to R4 are the public write-ups whose recipes ship with medtune. They state their rules without intervals, on one data set each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from medtune.hpo.facts import Facts
from medtune.language import Text, msg

__all__ = ["RULES", "Rule"]

_R1 = msg("R1, a public write-up on tuning Qwen3-VL-30B-A3B; a claim without intervals")
_R1_LLAVA = msg("R1, a claim without intervals; LLaVA-1.5 trained so (Liu et al. 2023, arXiv:2310.03744)")
_LLAVA = msg("the training scripts of LLaVA-1.5 with LoRA (Liu et al. 2023, arXiv:2310.03744)")
_RSLORA = msg("Kalajdzievski 2023, arXiv:2312.03732")
_REGRET = msg("Schulman et al. 2025, LoRA Without Regret, thinkingmachines.ai/blog/lora")
_QLORA = msg("Dettmers et al. 2023, arXiv:2305.14314, appendix A.1; its table 9 trained with other values")
_LORA = msg("Hu et al. 2021, arXiv:2106.09685, section 7.2, on GPT-3 with two matrices a layer")

_FIVE, _SIXTEEN = 5_000, 16_000
"""Rows of the data sets that R1 speaks of."""
_NEARER_FIVE = math.sqrt(_FIVE * _SIXTEEN)
"""Below this a data set is nearer, as a ratio, to the smaller one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule about one setting.

    Attributes:
        name: Stable (kebab-case).
        keys: The recipe keys that it is about; a sweep tests it where nothing else differs.
        wanted: What it asks for here.
        has: What the recipe has.
        follows: Whether the recipe does as it says; None = it says nothing of this case.
        order: For a rule that says less is better: of what. Then ``follows`` is always None.
        only_refutable: It says that more is no better, which a sweep can refute and never show.
    """

    name: str
    keys: tuple[str, ...]
    says: Text
    source: Text
    wanted: Callable[[Facts], Text]
    has: Callable[[Facts], str]
    follows: Callable[[Facts], bool | None]
    order: Callable[[Facts], float] | None = None
    only_refutable: bool = False


def _epochs_wanted(facts: Facts) -> Text:
    if facts.num_rows < _NEARER_FIVE:
        return msg("6 to 8 (stated for 5,000 rows; here are {rows})", rows=f"{facts.num_rows:,}")
    return msg("3 (stated for about 16,000 rows; here are {rows})", rows=f"{facts.num_rows:,}")


def _epochs_follow(facts: Facts) -> bool:
    return 6 <= facts.epochs <= 8 if facts.num_rows < _NEARER_FIVE else facts.epochs == 3


def _dropout_wanted(facts: Facts) -> float:
    return 0.05 if facts.num_rows <= 10_000 else 0.0


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:g}"


RULES: tuple[Rule, ...] = (
    Rule(
        name="epochs",
        keys=("train.epochs", "train.max_steps"),
        says=msg("About 16,000 rows: 3 epochs, the fourth overfits. About 5,000: 6 to 8."),
        source=_R1,
        wanted=_epochs_wanted,
        has=lambda facts: _number(round(facts.epochs, 2)),
        follows=_epochs_follow,
    ),
    Rule(
        name="rank-32",
        keys=("adapter.rank",),
        says=msg("From rank 8 to 32 fine detail gets better."),
        source=_R1,
        wanted=lambda _: msg("32 or more"),
        has=lambda facts: _number(facts.rank),
        follows=lambda facts: None if facts.rank is None else facts.rank >= 32,
    ),
    Rule(
        name="rank-64",
        keys=("adapter.rank",),
        says=msg("Beyond rank 64 nothing is gained."),
        source=_R1,
        wanted=lambda _: msg("64 or less"),
        has=lambda facts: _number(facts.rank),
        follows=lambda facts: None if facts.rank is None else facts.rank <= 64,
        only_refutable=True,
    ),
    Rule(
        name="rank-small",
        keys=("adapter.rank",),
        says=msg("A very small rank does as well as a large one."),
        source=_LORA,
        wanted=lambda _: msg("8 or less"),
        has=lambda facts: _number(facts.rank),
        follows=lambda facts: None if facts.rank is None else facts.rank <= 8,
        only_refutable=True,
    ),
    Rule(
        name="alpha",
        keys=("adapter.alpha",),
        says=msg("alpha is twice the rank."),
        source=_R1_LLAVA,
        wanted=lambda facts: msg("{alpha}", alpha="-" if facts.rank is None else 2 * facts.rank),
        has=lambda facts: _number(facts.alpha),
        follows=lambda facts: None if facts.rank is None else facts.alpha == 2 * facts.rank,
    ),
    Rule(
        name="rslora",
        keys=("adapter.rslora",),
        says=msg("Large ranks learn more when the update is scaled by 1/sqrt(rank) instead of 1/rank."),
        source=_RSLORA,
        wanted=lambda _: msg("adapter.rslora for large ranks"),
        has=lambda facts: "-" if facts.rslora is None else str(facts.rslora).lower(),
        # The paper draws no line; R1's rule ends at 64, so that is where this one begins to matter.
        follows=lambda facts: None if facts.rank is None or facts.rank < 64 else facts.rslora,
    ),
    Rule(
        name="dropout",
        keys=("adapter.dropout",),
        says=msg("Dropout 0.05 up to 10,000 rows, else none."),
        source=_R1,
        wanted=lambda facts: msg("{dropout}", dropout=_dropout_wanted(facts)),
        has=lambda facts: _number(facts.dropout),
        follows=lambda facts: None if facts.dropout is None else facts.dropout == _dropout_wanted(facts),
    ),
    Rule(
        name="dropout-qlora",
        keys=("adapter.dropout",),
        says=msg("Dropout 0.05 helps models of 7B and 13B, not those of 33B and 65B."),
        source=_QLORA,
        wanted=lambda _: msg("0.05 up to 13B"),
        has=lambda facts: _number(facts.dropout),
        follows=lambda facts: None if facts.dropout is None else facts.dropout == 0.05,
    ),
    Rule(
        name="learning-rate-r1",
        keys=("train.learning_rate",),
        says=msg("The learning rate is 5e-5."),
        source=_R1,
        wanted=lambda _: msg("5e-05"),
        has=lambda facts: _number(facts.learning_rate),
        follows=lambda facts: math.isclose(facts.learning_rate, 5e-5),
    ),
    Rule(
        name="learning-rate-llava",
        keys=("train.learning_rate",),
        says=msg("The learning rate of LoRA is 2e-4."),
        source=_LLAVA,
        wanted=lambda _: msg("0.0002"),
        has=lambda facts: _number(facts.learning_rate),
        follows=lambda facts: None if facts.rank is None else math.isclose(facts.learning_rate, 2e-4),
    ),
    Rule(
        name="targets",
        keys=("adapter.targets",),
        says=msg("Every linear layer of the language model gets an adapter, not only attention."),
        source=_REGRET,
        wanted=lambda _: msg("language among the targets"),
        has=lambda facts: ", ".join(facts.targets) or "-",
        follows=lambda facts: None if facts.rank is None else "language" in facts.targets,
    ),
    Rule(
        name="schedule",
        keys=("train.schedule",),
        says=msg("The learning rate falls as a cosine; a line is no better."),
        source=_R1_LLAVA,
        wanted=lambda _: msg("cosine"),
        has=lambda facts: facts.schedule,
        follows=lambda facts: facts.schedule == "cosine",
    ),
    Rule(
        name="warm-up",
        keys=("train.warmup_ratio", "train.warmup_steps"),
        says=msg("The learning rate rises over the first 3 % of the steps."),
        source=_R1_LLAVA,
        wanted=lambda _: msg("3 %"),
        has=lambda facts: f"{100 * facts.warmup_ratio:.3g} %",
        follows=lambda facts: abs(facts.warmup_ratio - 0.03) * facts.num_steps < 1,
    ),
    Rule(
        name="rows-per-step",
        keys=("train.batch_size", "train.gradient_accumulation_steps"),
        says=msg("At the same epochs, fewer rows in an optimizer step give better answers (4 instead of 32 on each device)."),
        source=_R1,
        wanted=lambda _: msg("fewer"),
        has=lambda facts: _number(facts.rows_per_step),
        follows=lambda _: None,
        order=lambda facts: facts.rows_per_step,
    ),
    Rule(
        name="zero-stage",
        keys=("distributed.zero_stage",),
        says=msg("ZeRO-2 where memory allows; ZeRO-3 wants more rows in a step, a longer warm-up and a lower learning rate."),
        source=msg(
            "R1, a claim without intervals. ZeRO divides memory, not mathematics (Rajbhandari et al. 2020, arXiv:1910.02054)"
        ),
        wanted=lambda _: msg("2 where memory allows"),
        has=lambda facts: _number(facts.zero_stage),
        follows=lambda facts: None if facts.zero_stage is None else facts.zero_stage < 3,
    ),
)
