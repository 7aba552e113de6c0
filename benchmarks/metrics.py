"""Scoring of many predictions: medtune's own path against the plain loop over jieba, rouge-chinese and nltk.

The predictions are synthetic: sentences put together from lists of words and numbers, English and Chinese, and a second text that
changes some of the words of the first. They stand for the time that texts of such lengths take, and for nothing else.

The plain loop does what LLaMA-Factory's metric does for each sample (jieba, rouge-chinese's ``get_scores``, nltk's
``sentence_bleu`` over characters), and nothing more. medtune reads ``predictions.jsonl``, reads every answer with its task,
computes its metrics and writes ``scores.jsonl``: the metrics of that loop, and with them all others that the tasks name. Both
have the same cores.

``python benchmarks/metrics.py`` prints seconds, processor seconds, ratios, the largest difference of a sample's number, and peak
memory at 10,000 and at all samples. The loop is timed on ``--plain`` samples, spread evenly, and scaled: it is a sum over samples.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ENGLISH = (  # noqa: SIM905
    "there is a an no of in on with and within at the left right upper lower middle lobe lung lungs clear heart "
    "size normal enlarged mildly moderate severe small large focal diffuse opacity consolidation nodule mass lesion "
    "effusion pneumothorax pleural hilar mediastinal contour unremarkable stable unchanged compared to prior "
    "examination hyperdense hypodense region occupying approximately percent area image suggesting possible "
    "hemorrhage edema infarct frontal temporal parietal occipital ventricle midline shift bone fracture acute "
    "chronic degenerative changes spine aorta calcified tortuous tube line catheter tip projecting over cavoatrial "
    "junction recommend follow-up"
).split()
CHINESE = (  # noqa: SIM905
    "右肺 左肺 上叶 下叶 中叶 可见 未见 明显 结节 肿块 斑片状 高密度影 低密度影 边界 清晰 模糊 大小 约 胸腔 "
    "积液 心影 增大 纵隔 居中 淋巴结 肿大 双侧 肋膈角 锐利 变钝 支气管 血管 纹理 增粗 紊乱 脑室 脑沟 中线 "
    "结构 移位 额叶 颞叶 枕叶 出血 梗死 水肿 骨质 破坏 占位 考虑 建议 复查 增强 扫描 强化 不均匀 图像 区域 "
    "面积 百分之 位于 形态 规则 不规则 正常 异常 信号 提示 可能 慢性 急性 炎症 改变 术后"
).split()


def sentence(draw: random.Random, language: str, number: int) -> list[str]:
    """Words of one text, without blanks in Chinese; with numbers, so that no two texts are alike."""
    found: list[str] = []
    pool = ENGLISH if language == "en" else CHINESE
    while len(found) < number:
        word = draw.choice(pool)
        if draw.random() < 0.05:
            word = f"{draw.randrange(1, 99)}.{draw.randrange(10)}" + draw.choice(["%", "cm", " mm", ""])
        if draw.random() < 0.12:
            word += draw.choice(".,;" if language == "en" else "，。；")
        found.append(word)
    return found


def changed(draw: random.Random, words: list[str], language: str) -> list[str]:
    """Another text that shares about half of the words."""
    pool = ENGLISH if language == "en" else CHINESE
    found = [word if draw.random() < 0.55 else draw.choice(pool) for word in words]
    return found[: max(1, int(len(found) * draw.uniform(0.7, 1.0)))]


def pairs(count: int) -> Iterator[tuple[str, str, str]]:
    """(task, answer, reference): four in ten English reports of 30 to 90 words, four in ten Chinese ones of as many words (about
    twice the characters), one in ten a short open answer, one in ten yes or no."""
    for number in range(count):
        draw = random.Random(number)
        kind = number % 10
        if kind < 8:
            language = "en" if kind < 4 else "zh"
            words = sentence(draw, language, draw.randrange(30, 91))
            blank = " " if language == "en" else ""
            yield "report", blank.join(changed(draw, words, language)), blank.join(words)
        elif kind == 8:
            words = sentence(draw, "en", draw.randrange(1, 5))
            yield "open-vqa", " ".join(changed(draw, words, "en")), " ".join(words)
        else:
            yield "closed-vqa", draw.choice(["Yes", "No.", "yes, there is", "是", "未见"]), draw.choice(["yes", "no"])


# ------------------------------------------------------------------------------------------------------------ the plain loop


def plain(numbers: list[tuple[str, str]]) -> list[tuple[float, float, float, float]]:
    """(ROUGE-1, ROUGE-2, ROUGE-L, BLEU-4) of each (answer, reference)."""
    import jieba
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_chinese import Rouge

    found = []
    for answer, reference in numbers:
        words, wanted = list(jieba.cut(answer)), list(jieba.cut(reference))
        if " ".join(words).split() and " ".join(wanted).split():
            scores = Rouge().get_scores(" ".join(words), " ".join(wanted))[0]
            rouge = [scores[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]
        else:
            rouge = [0.0, 0.0, 0.0]
        bleu = sentence_bleu([list(reference)], list(answer), smoothing_function=SmoothingFunction().method3)
        found.append(tuple(round(100 * value, 4) for value in (*rouge, bleu)))
    return found


def prepare_plain() -> None:
    """What the loop needs before the clock starts."""
    warnings.simplefilter("ignore")
    import jieba

    jieba.setLogLevel(60)
    jieba.initialize()
    import nltk.translate.bleu_score
    import rouge_chinese

    del nltk, rouge_chinese


def plain_timed(numbers: list[tuple[str, str]]) -> tuple[float, list[tuple[float, float, float, float]]]:
    """With the processor seconds that it took."""
    before = time.process_time()
    found = plain(numbers)
    return time.process_time() - before, found


def time_plain(chosen: list[tuple[str, str]], processes: int) -> tuple[float, float, list[tuple[float, float, float, float]]]:
    """Seconds and processor seconds of the loop as it is written, or divided among processes that were started before."""
    with get_context("spawn").Pool(processes, initializer=prepare_plain) as pool:
        pool.map(plain, [chosen[:1]] * processes, chunksize=1)
        started = time.perf_counter()
        parts = pool.map(plain_timed, [chosen[start::processes] for start in range(processes)], chunksize=1)
        seconds = time.perf_counter() - started
    found = [(0.0, 0.0, 0.0, 0.0)] * len(chosen)
    for start, (_, part) in enumerate(parts):
        found[start::processes] = part
    return seconds, sum(processor for processor, _ in parts), found


# ------------------------------------------------------------------------------------------------------------------ medtune


def write_files(folder: Path, count: int) -> None:
    """The rows of a split and the predictions, the latter not in the rows' order."""
    from medtune.data.dataset import write_row
    from medtune.types import Generation, Message, Prediction, Sample

    folder.mkdir(parents=True)
    with (folder / "test.jsonl").open("w", encoding="utf-8") as rows, (folder / "predictions.jsonl").open("w") as predictions:
        for number, (task, answer, reference) in enumerate(pairs(count)):
            name = f"s{number:07d}"
            turns = (Message(role="user", content="What is seen?"), Message(role="assistant", content=reference))
            sample = Sample(id=name, task=task, messages=turns, target=reference, group=f"g{number // 3}", source="synthetic")
            rows.write(write_row(sample) + "\n")
            generation = Generation(id=name, text=answer, finish_reason="stop")
            predictions.write(Prediction(sample_id=name, generation=generation).model_dump_json() + "\n")


def score(folder: Path, metrics: tuple[str, ...] | None, processes: int | None) -> dict[str, Any]:
    """Read, score and write, as `medtune evaluate --rescore` does; in a process of its own, from its imports on."""
    started = time.perf_counter()
    import numpy as np

    from medtune.data.dataset import RowSequence
    from medtune.evaluation.predictions import read_predictions
    from medtune.evaluation.score import Metrics, score_file

    samples = RowSequence(folder / "test.jsonl", {})
    stored = read_predictions(folder / "predictions.jsonl", {sample.id for sample in samples})
    found = score_file(samples, stored.predictions, Metrics(metrics), folder / "scores.jsonl", processes=processes)
    seconds = time.perf_counter() - started
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(usage.ru_utime + usage.ru_stime for usage in used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    numbers = {
        name: [score.value for score in found.columns[f"llamafactory/{name}"].values()]
        for name in ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
    }
    np.save(folder / "numbers.npy", np.array(list(numbers.values())).T)
    return {
        "seconds": seconds,
        "processor": processor,
        "values": len(found.columns),
        "parent_mib": peak[0] / 1024,
        "child_mib": peak[1] / 1024,
    }


def scored_apart(folder: Path, metrics: str, processes: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(folder), "--metrics", metrics, "--processes", str(processes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    import numpy as np

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--plain", type=int, default=10_000, help="samples that the plain loop is timed on")
    parser.add_argument("--sets", nargs="+", default=["llamafactory", "all"], help="which metrics are timed")
    parser.add_argument("--child", type=Path)
    parser.add_argument("--metrics", default="llamafactory")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.child is not None:
        chosen_metrics = None if options.metrics == "all" else tuple(options.metrics.split(","))
        print(json.dumps(score(options.child, chosen_metrics, options.processes)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_files(folder / "large", options.count)
        write_files(folder / "small", options.small)
        every = max(options.count // options.plain, 1)
        # A stride that is no multiple of ten kinds would miss some of them: whole tens are taken.
        chosen = [number for number in range(options.count) if (number // 10) % every == 0]
        texts = list(pairs(options.count))
        some = [texts[number][1:] for number in chosen]
        scale = options.count / len(some)
        print(
            f"{options.count} synthetic predictions, {options.processes} cores; plain loop on {len(some)} of them, times {scale:g}"
        )
        ours = {}
        for metrics in options.sets:
            for name in ("small", "large"):
                ours[metrics, name] = result = scored_apart(folder / name, metrics, options.processes)
                print(
                    f"medtune, {metrics}, {options.small if name == 'small' else options.count}: {result['seconds']:.1f} s, "
                    f"{result['processor']:.1f} processor s, "
                    f"{result['values']} values; peak {result['parent_mib']:.0f} MiB, largest child {result['child_mib']:.0f} MiB"
                )
        numbers = np.load(folder / "large" / "numbers.npy")
        for processes in dict.fromkeys((1, options.processes)):
            seconds, processor, expected = time_plain(some, processes)
            seconds, processor = seconds * scale, processor * scale
            print(f"plain loop, {processes} process(es): {seconds:.1f} s, {processor:.1f} processor s for all", end="; ")
            print(
                ", ".join(
                    f"{metrics}: medtune is {seconds / ours[metrics, 'large']['seconds']:.1f} times as fast"
                    for metrics in options.sets
                )
            )
        apart = np.abs(numbers[chosen] - np.array(expected)).max()
        print(f"largest difference of a sample's ROUGE-1, ROUGE-2, ROUGE-L or BLEU-4: {apart:.3g}")
        if apart > 1e-9:
            sys.exit("the numbers differ")


if __name__ == "__main__":
    main()
