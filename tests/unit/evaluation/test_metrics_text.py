"""Corpus BLEU against sacrebleu, ROUGE against values worked by hand."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from medtune.evaluation.metrics.lcs import lcs_length
from medtune.evaluation.metrics.ngrams import _counted, matched_ngrams
from medtune.evaluation.metrics.sacrebleu_words import tokens_13a, tokens_zh
from medtune.evaluation.metrics.text import ChrF, CorpusBleu, Rouge
from medtune.evaluation.metrics.words import answer_words, holds_run, words
from medtune.types import Generation, Message, Prediction, Sample


def sample(target: str) -> Sample:
    turns = (Message(role="user", content="?"), Message(role="assistant", content=target))
    return Sample(id="s", task="text-qa", messages=turns, target=target, group="g", source="t")


def said(text: str) -> Prediction:
    return Prediction(sample_id="s", generation=Generation(id="s", text=text, finish_reason="stop"), answer=text)


def corpus(pairs: list[tuple[str, str]]) -> float:
    metric = CorpusBleu()
    scores = [metric.score(said(text), sample(target))[0] for text, target in pairs]
    return float(metric.aggregate("bleu/corpus", np.sum([score.statistics for score in scores], axis=0)))


def test_sums_of_statistics_give_sacrebleus_corpus_score() -> None:
    draw = random.Random(1)
    vocabulary = ["the", "lung", "is", "clear", ".", "no", "effusion", "5.2%", "left", "a", "mass"]
    compared_zero = False
    for _ in range(60):
        pairs = [
            (" ".join(draw.choices(vocabulary, k=draw.randrange(0, 9))), " ".join(draw.choices(vocabulary, k=draw.randrange(1, 9))))
            for _ in range(draw.randrange(1, 6))
        ]
        expected = BLEU(smooth_method="exp").corpus_score([text for text, _ in pairs], [[target for _, target in pairs]]).score
        compared_zero |= expected == 0
        assert corpus(pairs) == pytest.approx(expected, abs=1e-9)
    assert compared_zero, "the case without any match must occur"


def test_chinese_is_compared_by_characters() -> None:
    pairs = [("右肺上叶可见结节。", "右肺上叶可见小结节，边界清。"), ("未见异常。", "未见明显异常。")]
    expected = BLEU(tokenize="zh").corpus_score([text for text, _ in pairs], [[target for _, target in pairs]]).score
    assert corpus(pairs) == pytest.approx(expected, abs=1e-9)
    assert expected > 10


def test_bleu_of_many_sums_at_once_is_each_alone() -> None:
    metric = CorpusBleu()
    totals = np.array([[5, 3, 2, 0, 6, 5, 4, 3, 6, 7], [0, 0, 0, 0, 1, 0, 0, 0, 1, 7], [0] * 10], dtype=float)
    together = metric.aggregate("bleu/corpus", totals)
    alone = [float(metric.aggregate("bleu/corpus", row)) for row in totals]
    assert together == pytest.approx(alone, nan_ok=True)
    assert together[1] == 0
    assert np.isnan(together[2]), "no reference words: no number"


def test_no_reference_is_unscored_and_no_answer_is_zero() -> None:
    # A sample without an answer cannot be built with an empty last turn and target in practice; blank ones can.
    blank = sample(" ")
    for metric in (CorpusBleu(), Rouge()):
        assert all(score.value is None and score.statistics == () for score in metric.score(said("text"), blank))
        assert all(score.value == 0 for score in metric.score(said(""), sample("the lung is clear today")))


def test_rouge_by_hand() -> None:
    numbers = {score.metric: score.value for score in Rouge().score(said("The the cat sat."), sample("the cat, the mat"))}
    # Words: the the cat sat / the cat the mat. Unigrams in common: the, the, cat = 3 of 4 and 4.
    assert numbers["rouge/rouge-1"] == pytest.approx(3 / 4)
    # Bigrams: the-the the-cat cat-sat / the-cat cat-the the-mat: 1 of 3 and 3.
    assert numbers["rouge/rouge-2"] == pytest.approx(1 / 3)
    # Longest common subsequence: the cat (or the the) = 2 of 4 and 4.
    assert numbers["rouge/rouge-l"] == pytest.approx(2 / 4)


def test_repeating_a_word_gains_nothing() -> None:
    numbers = {score.metric: score.value for score in Rouge().score(said("lung lung lung lung"), sample("right lung"))}
    assert numbers["rouge/rouge-1"] == pytest.approx(2 * 1 / (4 + 2))


def test_one_word_references_have_no_bigram() -> None:
    numbers = {score.metric: score.value for score in Rouge().score(said("yes"), sample("yes"))}
    assert numbers == {"rouge/rouge-1": 1.0, "rouge/rouge-2": None, "rouge/rouge-l": 1.0}


def test_lcs_equals_the_table() -> None:
    draw = random.Random(2)
    for _ in range(200):
        first, second = (draw.choices("abcd", k=draw.randrange(0, 70)) for _ in range(2))
        row = [0] * (len(second) + 1)
        for item in first:
            above = row
            row = [0]
            for index, other in enumerate(second):
                row.append(above[index] + 1 if item == other else max(above[index + 1], row[index]))
        assert lcs_length(first, second) == row[-1]


def test_words() -> None:
    assert words("CT图像: 4.1% X-ray, No.") == ["ct", "图", "像", "4.1", "x", "ray", "no"]
    assert answer_words("The two lungs") == ["2", "lungs"]
    assert answer_words("A") == ["a"]
    assert holds_run(["a", "b", "c"], ["b", "c"])
    assert not holds_run(["ab", "c"], ["b", "c"])
    assert not holds_run(["a"], [])


def test_chrf_is_sacrebleus() -> None:
    draw = random.Random(3)
    pieces = ["the ", "lung", " is", "右肺", "结节", "。", "a", " ", "\n", "5.2%"]
    metric = ChrF()
    for _ in range(60):
        pairs = [
            ("".join(draw.choices(pieces, k=draw.randrange(0, 60))), "x" + "".join(draw.choices(pieces, k=draw.randrange(0, 60))))
            for _ in range(draw.randrange(1, 5))
        ]
        scores = [metric.score(said(text), sample(target))[0] for text, target in pairs]
        for score, (text, target) in zip(scores, pairs, strict=True):
            assert score.value == pytest.approx(CHRF().sentence_score(text, [target]).score, abs=1e-9)
        expected = CHRF().corpus_score([text for text, _ in pairs], [[target for _, target in pairs]]).score
        assert metric.aggregate("chrf/chrf2", np.sum([score.statistics for score in scores], axis=0)) == pytest.approx(
            expected, abs=1e-9
        )


def test_a_samples_bleu_is_sacrebleus_sentence_score() -> None:
    draw = random.Random(4)
    vocabulary = ["the", "lung", "is", "clear", ".", "no", "5.2%", "left-sided", "右肺", "&quot;"]
    for _ in range(150):
        text, target = (" ".join(draw.choices(vocabulary, k=draw.randrange(1, 90))) for _ in range(2))
        target = target.replace("右肺", "x")
        expected = BLEU(smooth_method="exp", effective_order=True).sentence_score(text, [target]).score
        assert CorpusBleu().score(said(text), sample(target))[0].value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(tokens_13a, Tokenizer13a()), (tokens_zh, TokenizerZh())])
def test_tokens_are_sacrebleus(ours: Callable[[str], list[str]], theirs: Callable[[str], str]) -> None:
    draw = random.Random(5)
    pieces = [*"ab1.,-&;()[]'\" \n\t\u3000。，右肺→", "&amp;", "<skipped>", "5.2", "1-2", "\u2fe0"]
    for code in range(0x20, 0x10000, 37):
        text = f"a{chr(code)}b{chr(code)}1"
        assert " ".join(ours(text)) == theirs(text)
    for _ in range(500):
        text = "".join(draw.choices(pieces, k=draw.randrange(0, 30)))
        assert " ".join(ours(text)) == theirs(text.rstrip())


def test_sorting_counts_as_counting_does() -> None:
    draw = random.Random(6)
    for _ in range(300):
        first, second = ("".join(draw.choices("abc右 ", k=draw.randrange(50, 90))) for _ in range(2))
        assert matched_ngrams(first, second, 4) == _counted(first, second, 4)
        assert matched_ngrams(list(first), list(second), 4) == _counted(first, second, 4)
    many = "".join(chr(0x4E00 + number) for number in range(2000))
    assert matched_ngrams(many, many, 6) == (2000, 1999, 1998, 1997, 1996, 1995), "too many items for numbers of 64 bits"
