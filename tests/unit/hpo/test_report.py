"""What a sweep says at its end: the verdict, the table, the page and the pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medtune.errors import RunError
from medtune.hpo import plots
from medtune.hpo.advise import VERDICTS, judge_rule
from medtune.hpo.config import Space
from medtune.hpo.facts import facts_of
from medtune.hpo.page import render_page
from medtune.hpo.plots import PLOTS, _side_by_side, draw_all
from medtune.hpo.report import REPORT_FILE, SweepReport, SweptData, read_report, summarize
from medtune.hpo.rules import RULES
from medtune.hpo.study import Trial
from medtune.hpo.table import rows
from medtune.hpo.trial import SeedRun
from medtune.language import msg
from medtune.recipe import make_recipe

RECIPE = make_recipe({"name": "r", "data": {"sources": [{"source": "phantom"}]}, "model": {"base": "medtune-nano"}})
SPACE = Space.model_validate(
    {
        "parameters": {"adapter.rank": {"choices": [32, 128]}, "train.schedule": {"choices": ["linear"]}},
        "sampler": "one-at-a-time",
        "seeds": 3,
    }
)


def trial(number: int, key: str, value: object, *values: float, state: str = "complete") -> Trial:
    runs = tuple(SeedRun(seed=seed, value=each) for seed, each in enumerate(values))
    settings = {key: value} if key else {}
    overrides = (f"{key}={value}",) if key else ()
    error = msg("Interrupted.") if state == "failed" else None
    losses = {50: 2.0} if state == "pruned" else {}
    return Trial(number, state, settings, overrides, runs, error, losses=losses)  # type: ignore[arg-type]


def report(*trials: Trial, direction: str = "lower", rows_of_data: int = 120) -> SweepReport:
    return summarize(
        trials,
        recipe="r",
        base_model="medtune-nano",
        data=SweptData(name="d", hash="0" * 16, synthetic=True, num_train_rows=rows_of_data, num_validation_rows=9),
        space=SPACE,
        own={"adapter.rank": 8, "train.schedule": "cosine"},
        direction=direction,  # type: ignore[arg-type]
        num_planned=4,
        importance={},
        versions={"medtune": "0"},
    )


OWN = trial(0, "", None, 1.00, 1.10, 1.20)


def test_a_gain_that_every_seed_shows_is_told_from_chance() -> None:
    found = report(OWN, trial(1, "adapter.rank", 32, 0.80, 0.90, 1.001))
    assert (found.best, found.verdict) == (1, "better")
    assert found.best_difference is not None
    assert found.best_difference.mean == pytest.approx(-0.1997, abs=1e-3)


def test_a_gain_within_the_seeds_is_not() -> None:
    found = report(OWN, trial(1, "adapter.rank", 32, 1.10, 0.90, 1.10))
    assert (found.best, found.verdict) == (1, "not-distinguishable")
    assert any("cannot be told" in note.render("en") for note in found.notes)


def test_the_best_of_many_must_pass_a_higher_bar() -> None:
    lucky = trial(1, "adapter.rank", 32, 0.90, 1.05, 1.12)
    alone = report(OWN, trial(1, "adapter.rank", 32, 0.95, 1.04, 1.14))
    among = report(
        OWN, trial(1, "adapter.rank", 32, 0.95, 1.04, 1.14), *(trial(n, "adapter.rank", n, 2.0, 2.0, 2.0) for n in range(2, 22))
    )
    assert (alone.verdict, among.verdict) == ("better", "not-distinguishable")
    assert report(OWN, lucky).best == 1


def test_one_seed_decides_nothing() -> None:
    found = report(trial(0, "", None, 1.0), trial(1, "adapter.rank", 32, 0.5))
    assert (found.best, found.verdict) == (1, "unknown")


def test_higher_can_be_better() -> None:
    found = report(OWN, trial(1, "adapter.rank", 32, 1.50, 1.61, 1.70), direction="higher")
    assert (found.best, found.verdict) == (1, "better")
    assert rows(found)[0].standing == "better"


def test_pruned_and_failed_trials_have_no_value_and_stand_last() -> None:
    found = report(trial(1, "adapter.rank", 32, state="pruned"), trial(2, "adapter.rank", 128, state="failed"), OWN)
    assert [row.number for row in rows(found)] == [0, 1, 2]
    assert found.best == 0
    assert rows(found)[2].error is not None


def test_the_page_is_whole_in_both_languages_and_loads_nothing(tmp_path: Path) -> None:
    found = report(OWN, trial(1, "adapter.rank", 32, 0.8, 0.9, 1.0), trial(2, "train.schedule", "linear", 1.1, 1.1, 1.3))
    draw_all(found, tmp_path)
    assert [name for name in PLOTS if (tmp_path / name).is_file()] == ["trials.png", "settings.png"], "no importance in a design"
    page = render_page(found, tmp_path)
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    for words in (
        "the recipe's own settings",
        "配方自身的设置",
        "Every trial with its interval",
        "每次试验及其区间",
        "adapter.rank=32",
    ):
        assert words.replace("'", "&#39;") in page


def test_the_report_reads_back(tmp_path: Path) -> None:
    found = report(OWN, trial(1, "adapter.rank", 32, state="pruned"))
    (tmp_path / REPORT_FILE).write_text(found.model_dump_json(), encoding="utf-8")
    assert read_report(tmp_path) == found
    with pytest.raises(RunError, match=r"no sweep\.json"):
        read_report(tmp_path / "elsewhere")


# ---------------------------------------------------------------------------------------------------------------- rules

BY_NAME = {rule.name: rule for rule in RULES}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((0.80, 0.90, 1.001), "confirmed"), ((1.20, 1.30, 1.401), "contradicted"), ((1.1, 0.9, 1.1), "cannot-tell")],
)
def test_a_rule_is_judged_by_trials_that_differ_in_its_setting_alone(values: tuple[float, ...], verdict: str) -> None:
    decoy = trial(2, "train.schedule", "linear", 0.1, 0.1, 0.1)
    tested = judge_rule(BY_NAME["rank-32"], report(OWN, trial(1, "adapter.rank", 32, *values), decoy), RECIPE)
    assert tested.verdict == verdict
    assert tested.num_trials == 2


def test_a_rule_that_nothing_was_compared_for_was_not_tried() -> None:
    found = report(OWN, trial(1, "adapter.rank", 32, 0.8, 0.9, 1.0))
    assert judge_rule(BY_NAME["dropout"], found, RECIPE).verdict == "not-tried"


def test_no_gain_beyond_a_rank_can_be_refuted_but_not_shown() -> None:
    worse = report(OWN, trial(1, "adapter.rank", 128, 2.00, 2.10, 2.20))
    better = report(OWN, trial(1, "adapter.rank", 128, 0.50, 0.60, 0.701))
    assert judge_rule(BY_NAME["rank-64"], worse, RECIPE).verdict == "cannot-tell"
    assert judge_rule(BY_NAME["rank-64"], better, RECIPE).verdict == "contradicted"


def test_fewer_rows_a_step_is_judged_among_the_trials() -> None:
    found = report(OWN, trial(1, "train.batch_size", 1, 0.80, 0.90, 1.001))
    assert judge_rule(BY_NAME["rows-per-step"], found, RECIPE).verdict == "confirmed"


def test_one_seed_confirms_no_rule() -> None:
    found = report(trial(0, "", None, 1.0), trial(1, "adapter.rank", 32, 0.5))
    assert judge_rule(BY_NAME["rank-32"], found, RECIPE).verdict == "cannot-tell"


def test_rules_read_the_size_of_the_data() -> None:
    def wanted(name: str, num_rows: int) -> str:
        return BY_NAME[name].wanted(facts_of(RECIPE, num_rows)).render("en")

    assert wanted("epochs", 5_000).startswith("6 to 8")
    assert wanted("epochs", 16_163).startswith("3 ")
    assert (wanted("dropout", 10_000), wanted("dropout", 10_001)) == ("0.05", "0.0")
    facts = facts_of(make_recipe(RECIPE.model_dump(mode="json"), ["train.max_steps=100", "train.warmup_steps=5"]), 800)
    assert (facts.rows_per_step, facts.epochs, facts.warmup_ratio, facts.alpha) == (16, 2.0, 0.05, 16.0)


def test_every_rule_has_a_source_in_both_languages() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.search(r"R1|\d{4}|LLaVA", rule.source.render("en"))
        assert rule.says.render("zh") != rule.says.render("en")
    assert {text.render("zh") for text in VERDICTS.values()} == {"得到证实", "被推翻", "无法判断", "未尝试"}


def test_trials_with_one_value_stand_beside_each_other() -> None:
    places = _side_by_side({0: 0, 1: 0, 2: 0, 3: 1})
    assert places[3] == 1
    assert len({places[number] for number in (0, 1, 2)}) == 3
    assert sum(places[number] for number in (0, 1, 2)) == pytest.approx(0)
    crowded = _side_by_side(dict.fromkeys(range(40), 0))
    assert max(map(abs, crowded.values())) < 0.5, "nearer to their own value than to the next"


def test_every_colour_of_the_dots_is_in_the_legend() -> None:
    own, better, other = OWN, trial(1, "adapter.rank", 32, 0.8, 0.9, 1.0), trial(2, "adapter.rank", 4, 1.1, 1.1, 1.3)
    for found, named in (
        (report(own, better, other), ["the recipe's own settings", "the best", "other settings"]),
        (report(own, better), ["the recipe's own settings", "the best"]),
        (report(own, other), ["the recipe's own settings: the best", "other settings"]),
    ):
        (legend,) = plots._settings(found).legends
        assert [text.get_text() for text in legend.get_texts()] == named
