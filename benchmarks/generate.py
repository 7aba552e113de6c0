"""Answers a second of ``medtune evaluate`` beside LLaMA-Factory's ``predict``, and beside what the card's memory allows.

Run on a machine with a GPU::

    python benchmarks/generate.py --model CONFIG --tokenizer FOLDER --work FOLDER --out generate.json --peer-site FOLDER

``CONFIG``, ``--work``, ``--peer-python`` and ``--peer-site`` are those of ``benchmarks/train.py``. The model has random weights
(speed and memory are measured, never quality), and its output head never chooses an end token, so that every answer has 256 tokens:
the head's rows of the special tokens are zeros (``material.py --endless``). Pictures are grey JPEGs of 512 x 512 pixels. Greedy.

Stages, in the order in which they run (``--only`` chooses), each in a process of its own:

- ``train``: one optimizer step of ``medtune train``, because ``evaluate`` wants an adapter. Not measured.
- ``inside``: where the time goes: the generator alone, at several numbers of rows (``decoding.py``).
- ``agreement``: whether base and tuned model answer as transformers' ``generate`` does (``agreement.py``).
- ``batch-16``: ``medtune evaluate`` with LLaMA-Factory's batch size, twelve batches. Base and tuned model, each timed by itself,
  from the first request on.
- ``batch-auto``: the same with as many rows as medtune chooses.
- ``peer``: LLaMA-Factory, ``do_predict``, ``predict_with_generate``, batch 16, without an adapter: compare it with medtune's base.
  Its first batch counts for nothing, the later ones do. It draws as the model's ``generation_config.json`` says, if there is one.

The bound: a step has to read the decoder's and the head's weights once, and the keys and values of every row; the milliseconds that
this takes at the bandwidth of a copy on the same card. A share of it compares that with the whole time of an evaluation, reading
pictures and prompts included, divided by the steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from peer import Stages
from stages import append_results, data_section, read_results, run

HERE = Path(__file__).parent
PEER_BATCH = 16
TEST_SHARE = 0.95
STAGES = ("train", "inside", "agreement", "batch-16", "batch-auto", "peer")


class Benchmark(Stages):
    """The stages of one model, and where their results go."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options, test=TEST_SHARE, endless=True)
        self.run = self.work / "runs" / "tuned"

    def train(self) -> list[dict[str, Any]]:
        shutil.rmtree(self.run, ignore_errors=True)
        recipe = self.work / "tuned.yaml"
        recipe.write_text(
            f"name: tuned\n{data_section(self.work, TEST_SHARE)}"
            f"model: {{base: '{self.work / 'model'}'}}\nadapter: {{kind: lora, rank: 8, alpha: 16}}\n"
            f"run: {{folder: '{self.run}'}}\n"
            f"train: {{max_steps: 1, vision_cache: none, compile: false, evaluate_every: never, keep_best: false}}\n"
            f"generation: {{sampling: {{max_new_tokens: {self.options.new_tokens}}}}}\n",
            encoding="utf-8",
        )
        fault = self.medtune("train", recipe, name="train")
        return [{"setting": "", "fault": fault}]

    def evaluate(self, stage: str) -> list[dict[str, Any]]:
        rows = stage.removeprefix("batch-")
        samples = self.options.samples if rows == "auto" else 12 * int(rows)
        fault = self.medtune(
            "evaluate",
            self.run,
            "--overwrite",
            f"generation.batch_size={rows}",
            f"evaluation.max_samples={samples}",
            "evaluation.controls=[]",
            "evaluation.num_resamples=100",
            "evaluation.metrics=[chrf]",  # what is scored, and how long that takes, is not measured here
            name=stage,
        )
        found = []
        for label in ("base", "tuned"):
            asked = self.run / "evaluations" / label / "asked.json"
            if not asked.is_file():
                continue
            told = json.loads(asked.read_text(encoding="utf-8"))
            lines = (asked.parent / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
            answers = [json.loads(line)["generation"] for line in lines]
            tokens = sum(answer["num_generated_tokens"] or 0 for answer in answers)
            row = {
                "setting": f"batch {rows}, {label}",
                "fault": fault,
                "rows": told["batch_size"],
                "samples": len(answers),
                "failed": sum(answer["finish_reason"] == "error" for answer in answers),
                "tokens_each": tokens / max(1, len(answers)),
                "prompt_tokens": sum(answer["num_prompt_tokens"] or 0 for answer in answers) / max(1, len(answers)),
                "seconds": told["seconds"],
            }
            if told["seconds"]:
                row["samples_per_second"] = len(answers) / told["seconds"]
            found.append(row)
        return found or [{"setting": f"batch {rows}", "fault": fault}]

    def inside(self) -> list[dict[str, Any]]:
        options = ["--new-tokens", str(self.options.new_tokens), *(["--kernels"] if self.options.kernels else [])]
        rows = ["--rows", *map(str, self.options.rows_inside)]
        return self.of_script("inside", "decoding.py", [*options, *rows], "{model_asked}, {rows} rows")

    def agreement(self) -> list[dict[str, Any]]:
        return self.of_script("agreement", "agreement.py", [], "{model_asked}, {dtype}")

    def of_script(self, stage: str, script: str, options: list[str], setting: str) -> list[dict[str, Any]]:
        """What a script of this folder measures of the run; it writes a list of results."""
        out = self.work / f"{stage}.json"
        out.unlink(missing_ok=True)
        fault = run([sys.executable, HERE / script, self.run, out, *options], self.work / f"{stage}.log", **self.given())
        rows: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else []
        return [{"setting": setting.format(**row), "fault": fault, **row} for row in rows] or [{"setting": "", "fault": fault}]

    def peer(self) -> list[dict[str, Any]]:
        options = self.options
        settings = {
            "do_predict": True,
            "predict_with_generate": True,
            "eval_dataset": "speed_test",
            "max_samples": options.peer_batches * PEER_BATCH,
            "max_new_tokens": options.new_tokens,
            "per_device_eval_batch_size": PEER_BATCH,
        }
        row, fault = self.run_peer("peer", settings)
        ends = row.pop("batch_ends", [])
        row |= {"setting": f"batch {PEER_BATCH}", "fault": fault, "rows": PEER_BATCH, "tokens_each": options.new_tokens}
        row["batch_seconds"] = [round(end - start, 2) for start, end in itertools.pairwise(ends)]
        if row["batch_seconds"]:
            row["samples_per_second"] = PEER_BATCH * len(row["batch_seconds"]) / sum(row["batch_seconds"])
        return [row]

    def medtune(self, *words: str | Path, name: str) -> str | None:
        return run([sys.executable, "-m", "medtune", *words], self.work / f"{name}.log", **self.given())

    def given(self) -> dict[str, Any]:
        return {"limit": self.limit(), "environment": self.environment}

    def main(self) -> None:
        stages = {"train": self.train, "inside": self.inside, "agreement": self.agreement, "peer": self.peer}
        for stage in self.options.only:
            if self.limit() < 20:
                print(f"{stage}: not started, {self.deadline - time.monotonic():.0f} s are left of --budget", flush=True)
                continue
            started = time.monotonic()
            rows = stages[stage]() if stage in stages else self.evaluate(stage)
            program = "LLaMA-Factory" if stage == "peer" else "medtune"
            for row in rows:
                row |= {"model": self.name, "stage": stage, "program": program, "wall_seconds": time.monotonic() - started}
                row["machine"] = self.made["versions"]
                row["weight_bytes"] = 2 * (self.made["text_weights"] + self.made["head_weights"])
            print(f"{stage}: {time.monotonic() - started:.0f} s", *([rows[0]["fault"]] if rows[0]["fault"] else []), flush=True)
            append_results(self.options.out, rows, names=("model", "stage", "setting"))


def table(rows: list[dict[str, Any]]) -> str:
    """Two tables in Markdown: evaluations beside the peer, and the inside of the generator."""
    parts = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        peer = next((row.get("samples_per_second") for row in own if row["stage"] == "peer"), None)
        inside = [row for row in own if row["stage"] == "inside" and "bandwidth" in row]
        lines = [
            f"### {model}",
            "",
            "| program | setting | rows | samples/s | against the peer | share of the bound |",
            "|---|---|---|---|---|---|",
        ]
        for row in own:
            if row["stage"] in ("train", "inside", "agreement"):
                continue
            speed = row.get("samples_per_second")
            ratio = f"{speed / peer:.1f}" if speed and peer else "-"
            share = f"{speed * bound_seconds(row, inside[0]):.0%}" if speed and inside else "-"
            told = "-" if speed is None else f"{speed:.2f}"
            lines.append(f"| {row['program']} | {row['setting']} | {row.get('rows', '-')} | {told} | {ratio} | {share} |")
        if inside:
            head = (
                "model",
                "rows",
                "prefill s",
                "ms a step",
                "of the bound",
                "ms a step without graphs",
                "wait s",
                "capture s",
                "peak GiB",
            )
            lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
            for row in inside:
                share = 1000 * step_bound(row, row["rows"], row["prompt_tokens"] + row["new_tokens"] / 2) / row["step_ms"]
                eager = "-" if row.get("eager_step_ms") is None else f"{row['eager_step_ms']:.2f}"
                cells = (
                    row["model_asked"],
                    row["rows"],
                    f"{row['prefill_seconds']:.2f}",
                    f"{row['step_ms']:.2f}",
                    f"{share:.0%}",
                    eager,
                )
                more = (f"{row['wait_seconds']:.2f}", f"{row['capture_seconds']:.2f}", f"{row['peak_gib']:.1f}")
                lines.append("| " + " | ".join(map(str, (*cells, *more))) + " |")
            lines += ["", f"Copy bandwidth {inside[0]['bandwidth'] / 1e12:.2f} TB/s."]
        agreed = [row for row in own if row["stage"] == "agreement" and "equal" in row]
        if agreed:
            columns = ("model, type", "answers equal to transformers'", "in common", "with float32", "transformers' with float32")
            lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            for row in agreed:
                shares = [row[name] for name in ("shared", "shared_exact", "plain_shared_exact")]
                told_shares = ["-" if share is None else f"{share:.0%}" for share in shares]
                lines.append("| " + " | ".join((row["setting"], f"{row['equal']} of {row['answers']}", *told_shares)) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def step_bound(inside: dict[str, Any], rows: int, tokens: float) -> float:
    """Seconds that a step's reading takes: weights, and ``tokens`` keys and values of each row."""
    seconds: float = (inside["weight_bytes"] + rows * tokens * inside["bytes_per_slot"]) / inside["bandwidth"]
    return seconds


def bound_seconds(row: dict[str, Any], inside: dict[str, Any]) -> float:
    """Seconds a sample at the bound: all steps of a full batch, divided by its rows."""
    tokens = inside["prompt_tokens"] + row["tokens_each"] / 2
    return step_bound(inside, row["rows"], tokens) * row["tokens_each"] / row["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder with config.json of the model")
    parser.add_argument("--tokenizer", type=Path, help="folder with its tokenizer")
    parser.add_argument("--work", type=Path, help="folder with room for the weights, such as /dev/shm; used again if it is there")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of results")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peer-site", type=Path, help="folder with LLaMA-Factory's packages, for PYTHONPATH")
    parser.add_argument("--peer-batches", type=int, default=3, help="of which the first counts for nothing")
    parser.add_argument("--layers", type=int, help="decoder layers, for both programs")
    parser.add_argument("--rows", type=int, default=560, help="pictures")
    parser.add_argument("--samples", type=int, default=512, help="of the stage batch-auto")
    parser.add_argument("--rows-inside", type=int, nargs="+", default=[16, 64, 128, 256], help="of the stage inside")
    parser.add_argument("--kernels", action="store_true", help="stage inside: write down the kernels of a step too")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--limit", type=float, default=600, help="seconds for a stage")
    parser.add_argument("--budget", type=float, default=86_400, help="seconds for all of it; no stage runs longer")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers: a rehearsal on the CPU")
    parser.add_argument("--table", action="store_true", help="only print the tables of --out")
    options = parser.parse_args()
    if not options.table:
        if not (options.model and options.tokenizer and options.work):
            parser.error("--model, --tokenizer and --work are needed, or --table")
        Benchmark(options).main()
    print(table(read_results(options.out)))


if __name__ == "__main__":
    main()
