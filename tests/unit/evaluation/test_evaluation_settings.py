from __future__ import annotations

import pytest
from pydantic import ValidationError

from medtune.evaluation.config import EvaluationSettings


def test_the_default_asks_the_test_split_with_shuffled_pictures() -> None:
    settings = EvaluationSettings()
    assert (settings.split, settings.controls, settings.num_resamples) == ("test", ("shuffled",), 2000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"controls": ["shuffled", "shuffled"]},
        {"controls": ["none"]},
        {"subgroups": ["kind", "kind"]},
        {"metrics": ["bleu", "bleu"]},
        {"max_samples": 0},
        {"num_resamples": 10},
        {"split": "dev"},
        {"bootstrap": 3},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluationSettings.model_validate(wrong)
