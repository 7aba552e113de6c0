"""Faults and keys of settings classes, on classes made for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from medtune.language import msg
from medtune.schema import below, faults, fill_tags, keys
from medtune.types import Settings


class Low(Settings):
    kind: Literal["low"] = "low"
    rank: Annotated[int, Field(gt=0)] = 8
    folder: Path | None = None


class High(Settings):
    kind: Literal["high"] = "high"
    share: float = 0.5

    @model_validator(mode="after")
    def _check(self) -> High:
        if self.share > 2:
            raise ValueError(msg("There is no kind {given}. Known: {known}.", given="x", known="y"))
        return self


Choice = Annotated[Low | High, Field(discriminator="kind")]


class Entry(Settings):
    name: str
    choice: Choice = High()


class Whole(Settings):
    choice: Choice = Low()
    entries: tuple[Entry, ...] = ()
    mixed: int | Literal["auto"] = "auto"
    weights: dict[str, float] = Field(default={})
    perhaps: Low | None = None


def found(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(fill_tags(Whole, data))
    return {key: text.render("en") for key, text in faults(Whole, caught.value)}


def test_the_tag_of_a_union_is_not_in_the_path() -> None:
    assert found({"choice": {"kind": "low", "rank": 0}}) == {"choice.rank": "0 must be greater than 0."}


def test_a_tag_inside_a_list_is_not_in_the_path_either() -> None:
    data = {"entries": [{"name": "a"}, {"name": "b", "choice": {"kind": "low", "rank": "x"}}]}
    assert found(data) == {"entries.1.choice.rank": "A whole number is expected, not 'x'."}


def test_an_unknown_key_gets_the_nearest_sibling() -> None:
    assert found({"choice": {"kind": "low", "rnak": 3}})["choice.rnak"] == "There is no such setting. Did you mean rank?"


def test_an_unknown_key_gets_the_place_where_it_exists() -> None:
    assert found({"share": 3})["share"].endswith("Did you mean choice.share, entries.choice.share?")


def test_an_unknown_key_without_a_neighbour_gets_the_list() -> None:
    assert found({"perhaps": {"zzz": 1}})["perhaps.zzz"].endswith("Known here: kind, rank, folder.")


def test_an_unknown_kind_is_a_fault_of_the_tag() -> None:
    assert found({"choice": {"kind": "hgih"}})["choice.kind"] == "There is no kind hgih. Did you mean high? Known: low, high."


def test_every_fault_is_found_at_once() -> None:
    data = {"choice": {"kind": "low", "rank": -1, "a": 1}, "entries": [{}], "weights": {"x": "y"}, "perhaps": 3, "mixed": "q"}
    assert set(found(data)) == {"choice.rank", "choice.a", "entries.0.name", "weights.x", "perhaps", "mixed"}


def test_a_validator_may_raise_a_sentence_with_a_translation() -> None:
    assert found({"choice": {"kind": "high", "share": 3}}) == {"choice": "There is no kind x. Known: y."}


@pytest.mark.parametrize(
    ("data", "filled"),
    [
        ({"choice": {"rank": 3}}, {"choice": {"kind": "low", "rank": 3}}),
        ({"choice": {"kind": "high"}}, {"choice": {"kind": "high"}}),
        ({"choice": None}, {"choice": None}),
        ({"weights": {"kind": 1.0}}, {"weights": {"kind": 1.0}}),
    ],
)
def test_a_missing_tag_is_that_of_the_default(data: dict[str, Any], filled: dict[str, Any]) -> None:
    assert fill_tags(Whole, data) == filled


def test_keys_go_through_unions_and_lists() -> None:
    assert set(keys(Whole)) >= {"choice.rank", "choice.share", "entries.name", "entries.choice.folder", "perhaps.rank", "mixed"}


def test_below_finds_the_annotation_of_a_key() -> None:
    assert below(Whole, "mixed") == int | Literal["auto"]
    assert below(Whole, "none") is None
    assert below(Low | High, "rank") is None
