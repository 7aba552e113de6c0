"""LLaMA-Factory's numbers, made with its own code (nltk 3.10.4, jieba 0.42.1, rouge-chinese 1.0.3), against ours."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import warnings

import pytest

from medtune.evaluation.metrics.jieba_words import jieba_words
from medtune.evaluation.metrics.llamafactory import LlamaFactoryMetric, bleu_4, predict_timing, rouge
from medtune.evaluation.metrics.unseen_words import unseen_words
from medtune.types import Generation, Message, Prediction, Sample

SAME = object()

# prediction, label, ROUGE-1, ROUGE-2, ROUGE-L, BLEU-4 with the label as it is, BLEU-4 with label + newline. None = not known.
VECTORS = [
    ("yes", SAME, 100, 0, 100, 84.0896, 60.2529),
    ("A", SAME, 100, 0, 100, 35.3553, 13.0065),
    ("No", SAME, 100, 0, 100, None, 36.0645),
    ("no", "yes", 0, 0, 0, 0, 0),
    ("", "abc", 0, 0, 0, 0, 0),
    ("abc", "", 0, 0, 0, 0, 0),
    ("", "", 0, 0, 0, 0, 0),
    ("No acute cardiopulmonary abnormality.", SAME, 100, 100, 100, 100, 97.3335),
    (
        "There is no pneumothorax. Heart size is normal.",
        "Heart size is normal. There is no pneumothorax or pleural effusion.",
        84.2105,
        66.6667,
        43.4783,
        61.2581,
        59.9685,
    ),
    (
        "X-ray shows 5.2 cm mass; SUV 3.4, T2-weighted.",
        "X-ray shows 5.3 cm mass; SUV 3.4, T2-weighted.",
        92.8571,
        85.7143,
        93.3333,
        94.2778,
        92.2504,
    ),
    ("右肺上叶可见结节。", "右肺上叶可见小结节，边界清。", 75, 42.8571, 75, 39.0367, 34.9316),
    ("右肺上叶可见结节。", SAME, 100, 100, 100, None, 89.4839),
    ("What? ? Is it?", "What? Is it?", 100, 88.8889, 90.9091, 81.4244, None),
    ("<think>\n\n</think>\n\nNormal chest.", "Normal chest.", 54.5455, 36.3636, 40.0, 37.551, None),
    ("Normal chest.", "<think>\n\n</think>\n\nNormal chest.", 54.5455, 36.3636, 40.0, None, 21.4711),
    ("the the the the", "the cat", 66.6667, 0, 33.3333, 17.3958, None),
]


def _sample(target: str) -> Sample:
    return Sample(
        id="s",
        task="text-qa",
        messages=(Message(role="user", content="?"), Message(role="assistant", content=target)),
        target=target,
        group="g",
        source="t",
    )


@pytest.mark.parametrize(("prediction", "label", "rouge_1", "rouge_2", "rouge_l", "plain", "newline"), VECTORS)
def test_parity_vector(
    prediction: str, label: str, rouge_1: float, rouge_2: float, rouge_l: float, plain: float | None, newline: float | None
) -> None:
    label = prediction if label is SAME else label
    expected = {"rouge-1": rouge_1, "rouge-2": rouge_2, "rouge-l": rouge_l}
    # Four decimals, as LLaMA-Factory rounds each sample; the vectors were typed with at most four.
    assert rouge(prediction, label) == pytest.approx(expected, abs=1e-9)
    assert rouge(prediction, label + "\n") == pytest.approx(expected, abs=1e-9), "the newline must not touch ROUGE"
    if plain is not None:
        assert bleu_4(prediction, label) == pytest.approx(plain, abs=1e-9)
    if newline is not None:
        assert bleu_4(prediction, label + "\n") == pytest.approx(newline, abs=1e-9)


def test_the_metric_reports_both_newline_modes() -> None:
    prediction = Prediction(sample_id="s", generation=Generation(id="s", text="yes", finish_reason="stop"))
    numbers = {score.metric: score.value for score in LlamaFactoryMetric().score(prediction, _sample("yes"))}
    assert numbers == {
        "llamafactory/bleu-4": 84.0896,
        "llamafactory/bleu-4-newline": 60.2529,
        "llamafactory/rouge-1": 100.0,
        "llamafactory/rouge-2": 0.0,
        "llamafactory/rouge-l": 100.0,
    }


def test_the_run_is_the_mean_of_rounded_samples() -> None:
    import numpy as np

    metric = LlamaFactoryMetric()
    pairs = [(p, p if label is SAME else label) for p, label, *_ in VECTORS]
    scores = [
        score
        for prediction, label in pairs
        if label
        for score in metric.score(
            Prediction(sample_id="s", generation=Generation(id="s", text=prediction, finish_reason="stop")), _sample(label)
        )
        if score.metric == "llamafactory/bleu-4"
    ]
    total = np.sum([score.statistics for score in scores], axis=0)
    assert metric.aggregate("llamafactory/bleu-4", total) == pytest.approx(np.mean([score.value for score in scores]), abs=1e-9)
    assert all(score.value == round(score.value, 4) for score in scores if score.value is not None)


def _random_text(draw: random.Random) -> str:
    words = [
        "no",
        "acute",
        "右肺",
        "结节。",
        "5.2%",
        "。",
        "……",
        "......",
        "?",
        "！",
        "”",
        "\n",
        " ",
        "T2",
        "mass",
        "mass.",
        "可见",
        "-",
        "\t",
    ]
    return draw.choice(["", " "]).join(draw.choice(words) for _ in range(draw.randrange(1, 40)))


def test_bleu_equals_the_package_on_random_text() -> None:
    """The arithmetic is our own: against nltk's, to the last decimal that is reported."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    draw = random.Random(1)
    zeros = 0
    for _ in range(400):
        prediction, label = ("".join(draw.choices("ab右。 \n", k=draw.randrange(0, 14))) for _ in range(2))
        expected = sentence_bleu([list(label)], list(prediction), smoothing_function=SmoothingFunction().method3)
        assert bleu_4(prediction, label) == round(100 * expected, 4)
        zeros += expected == 0
    assert 0 < zeros < 200


def test_rouge_equals_the_package_on_random_text() -> None:
    """The LCS is our own: against rouge-chinese's table on texts full of the marks it splits at."""
    import jieba

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rouge_chinese import Rouge
    jieba.setLogLevel(logging.WARNING)
    draw = random.Random(0)
    compared = 0
    for _ in range(150):
        prediction, label = _random_text(draw), _random_text(draw)
        words = [list(jieba.cut(text)) for text in (prediction, label)]
        if all(" ".join(side).split() for side in words):
            expected = Rouge().get_scores(" ".join(words[0]), " ".join(words[1]))[0]
            expected = {name: round(100 * value["f"], 4) for name, value in expected.items()}
            compared += 1
        else:
            expected = dict.fromkeys(("rouge-1", "rouge-2", "rouge-l"), 0.0)
        assert rouge(prediction, label) == expected
    assert compared > 100


def test_jieba_keeps_quiet() -> None:
    """In a process of its own: jieba binds its log to the standard error of the moment it is imported."""
    code = (
        "import logging; from medtune.evaluation.metrics.llamafactory import rouge; "
        "rouge('右肺', '右肺'); print(logging.getLogger('jieba').level)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() == str(logging.DEBUG), "its own level is put back"


def test_timing_fields_round_like_the_trainer() -> None:
    # 3,233 samples, batches of 4 on 4 devices: ceil(3233 / 16) = 203 steps.
    assert predict_timing(3233, 3581.123456, 4, world_size=4) == {
        "predict_runtime": 3581.1235,
        "predict_samples_per_second": 0.903,
        "predict_steps_per_second": 0.057,
    }
    timing = predict_timing(10, 5.00312345, 3, preparation_seconds=0.00312345)
    assert timing == {
        "predict_model_preparation_time": 0.0031,
        "predict_runtime": 5.0,
        "predict_samples_per_second": 2.0,
        "predict_steps_per_second": 0.8,
    }
    assert predict_timing(3, 0.0, 1) == {"predict_runtime": 0.0}


def test_words_equal_jiebas_on_random_text() -> None:
    """The best path through the dictionary is our own: against the package, on words, rare characters, marks and long runs."""
    import jieba

    from medtune.evaluation.metrics.jieba_words import jieba_words

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    draw = random.Random(2)
    dictionary = sorted(jieba.dt.FREQ)
    pieces = [
        "acute",
        "5.2%",
        "T2-weighted",
        "\n",
        "\r\n",
        " ",
        "\t",
        "。",
        "，",
        "a_b",
        "C++",
        "\u3000",
        "①",
        "é",
        "😀",
        "x" * 70,
        "右肺" * 40,
    ]
    for _ in range(1500):
        text = "".join(
            draw.choice(dictionary)
            if (lot := draw.random()) < 0.5
            else chr(draw.randrange(0x4E00, 0x9FA0))
            if lot < 0.7
            else draw.choice(pieces)
            for _ in range(draw.randrange(25))
        )
        assert jieba_words(text) == list(jieba.cut(text))


def test_unseen_characters_are_cut_as_jieba_cuts_them() -> None:
    from jieba import finalseg

    rng = random.Random(0)
    pieces = ["肺", "结", "见", "是", "无", "鞫", "㐀", "CT", "3.5%", " ", "，", "肿", "占", "约"]
    for _ in range(400):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 40)))
        assert unseen_words(text, finalseg) == list(finalseg.cut(text)), text


@pytest.mark.parametrize("character", ["是", "无"])
def test_a_run_of_unseen_characters_takes_time_in_proportion(character: str) -> None:
    """jieba's own cutting takes 100 times as long."""
    assert "".join(jieba_words(character * 100_000)) == character * 100_000
