"""A benchmark's stages: each a process of its own within a limit of time, each with its results on disk when it ends."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from material import write_pictures

HERE = Path(__file__).parent


def run(command: list[str | Path], log: Path, *, limit: float, environment: dict[str, str]) -> str | None:
    """Run a command and what it starts; None, or why it did not end well."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    if code == 0:
        return None
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return f"cut after {limit:.0f} s" if code is None else f"exit code {code}: {end}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left: loading processes and workers would hold the GPU's memory during the next stage."""
    left: list[psutil.Process] = []
    # Workers on several devices are in a session of their own, which the signal to the group does not reach.
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(left, timeout=30)


def read_events(run_folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's ``events.jsonl``; none where there is no such file."""
    file = run_folder / "events.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_results(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return rows


def append_results(file: Path, rows: list[dict[str, Any]], *, names: tuple[str, ...]) -> None:
    """Add rows to a file of results, in place of those that have the same values under all ``names``."""

    def key(row: dict[str, Any]) -> list[Any]:
        return [row[name] for name in names]

    replaced = [key(row) for row in rows]
    kept = [row for row in read_results(file) if key(row) not in replaced]
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps([*kept, *rows], indent=1), encoding="utf-8")
    partial.replace(file)


def make(
    options: argparse.Namespace, work: Path, *, limit: float, environment: dict[str, str], test: float = 0.0, endless: bool = False
) -> dict[str, Any]:
    """Model folder, pictures and data set in ``work``, unless an earlier call has left them there.

    Args:
        options: ``model``, ``tokenizer``, ``layers``, ``tiny`` and ``rows`` of the command line.
        test: Share of the rows that is not for training.
        endless: See :func:`material.write_model`.

    Returns:
        What ``material.py`` says of the model and the machine.
    """
    work.mkdir(parents=True, exist_ok=True)
    note, shard, recipe = work / "model.json", work / "train-0.parquet", work / "data.yaml"

    def must(command: list[str | Path], name: str) -> None:
        started = time.monotonic()
        fault = run(command, work / f"{name}.log", limit=limit, environment=environment)
        if fault:
            raise SystemExit(f"{name}: {fault}")
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)

    if not note.is_file():
        shutil.rmtree(work / "model", ignore_errors=True)
        command: list[str | Path] = [sys.executable, HERE / "material.py", options.model, options.tokenizer, work / "model"]
        command += ["--layers", str(options.layers)] if options.layers else []
        command += ["--tiny"] if options.tiny else []
        command += ["--endless"] if endless else []
        must(command, "model")
        said = (work / "model.log").read_text(encoding="utf-8").splitlines()
        note.write_text([line for line in said if line.startswith('{"parameters"')][-1], encoding="utf-8")
    if not (work / "data").is_dir():
        write_pictures(shard, options.rows)
        recipe.write_text(f"name: speed\nmodel: {{base: '{work / 'model'}'}}\n{data_section(work, test)}", encoding="utf-8")
        must([sys.executable, "-m", "medtune", "prepare", recipe], "data")
    made: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    return made


def data_section(work: Path, test: float = 0.0) -> str:
    """The recipe's ``data`` section of that data set; but for a share for testing, all of it is for training."""
    return (
        f"data: {{folder: '{work / 'data'}', sources: [{{source: medtrinity, options: {{path: '{work / 'train-0.parquet'}'}}}}],"
        f" split: {{fractions: {{train: {1 - test:g}, validation: 0.0, test: {test:g}}}}}}}\n"
    )
