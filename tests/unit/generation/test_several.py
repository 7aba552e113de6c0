"""Real processes on the CPU."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medtune.errors import GenerationError
from medtune.generation import several
from medtune.generation.echo import EchoGenerator
from medtune.generation.several import SeveralProcesses, Workers, deal, places
from medtune.types import Event, Generation, Message, Request, Sampling

TESTS = Path(__file__).parents[2]


def ask(name: str, text: str = "What is this?", *images: Any, **options: Any) -> Request:
    return Request(name, (Message(role="user", content="<image>" * len(images) + text),), images, **options)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def workers(tmp_path: Path, heard: list[Event]) -> Iterator[Workers]:
    made = Workers([None, None], "several_models:telling", {}, logs=tmp_path / "logs", listener=heard.append)
    yield made
    made.close()


def test_each_request_is_dealt_once_and_the_work_evenly() -> None:
    for count in range(20):
        requests = [ask(f"r{n}", "x" * (n * n)) for n in range(count)]
        parts = deal(requests, 3)
        assert sorted(request.id for part in parts for request in part) == sorted(request.id for request in requests)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    loads = [
        sum(len(request.messages[0].content) for request in part) for part in deal([ask(f"r{n}", "x" * n) for n in range(300)], 4)
    ]
    assert max(loads) / min(loads) < 1.01
    assert deal(requests, 3) == deal(requests[::-1], 3)


def test_one_process_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "visible_gpus", lambda: ["2", "3", "5"])
    assert places(None) == ["2", "3", "5"]
    assert places(2) == ["2", "3"]
    assert places(8) == ["2", "3", "5"]
    assert places(None, gpus_each=2) == ["2,3"]
    monkeypatch.setattr(several, "visible_gpus", list)
    assert places(None) == [None]
    assert places(2) == [None, None]


def test_two_processes_share_the_requests_of_two_models(workers: Workers, heard: list[Event], tmp_path: Path) -> None:
    picture = tmp_path / "slice.png"
    Image.new("L", (20, 30), 7).save(picture)
    sampling = Sampling(max_new_tokens=9)
    requests = [ask(f"r{n}", f"question {n}", sampling=sampling, score_tokens=("yes",)) for n in range(11)]
    requests += [ask("file", "?", picture), ask("bytes", "?", picture.read_bytes()), ask("open", "?", Image.new("RGB", (3, 3)))]
    base = SeveralProcesses(workers, "base", pytest.fail)
    tuned = SeveralProcesses(workers, "tuned", pytest.fail, last=True)
    for label, generator in (("base", base), ("tuned", tuned)):
        found = {generation.id: generation.text for generation in generator.generate(requests)}
        assert len(found) == len(requests)
        assert found["r3"] == f"{label}: question 3 [] 9 ('yes',)"
        assert found["file"] == f"{label}: <image>? ['slice.png'] 256 ()"
        assert found["bytes"] == f"{label}: <image>? [{picture.stat().st_size}] 256 ()"
        generator.close()
    assert tuned.batch_size == 8
    assert [event.text.render("en") for event in heard if event.kind == "phase" and event.text] == ["Loading base", "Loading tuned"]
    notes = sorted(event.text.render("en") for event in heard if event.kind == "note" and event.text)
    assert notes == ["made base", "made base", "made tuned", "made tuned"]


def test_models_are_loaded_before_they_are_asked(workers: Workers, heard: list[Event], tmp_path: Path) -> None:
    generator = SeveralProcesses(workers, "tuned", None)
    generator.load(4)
    assert [event.kind for event in heard].count("phase") == 1  # the process tells of it once
    before = sorted((tmp_path / "logs").glob("worker-*.log"))
    assert len(before) == 2
    assert len(list(generator.generate([ask(f"r{number}") for number in range(4)]))) == 4
    assert [event.kind for event in heard].count("phase") == 1
    made: list[str] = []
    alone = SeveralProcesses(workers, "tuned", lambda: made.append("once") or EchoGenerator())
    alone.load(1)
    assert made == ["once"]
    assert len(list(alone.generate([ask("one")]))) == 1
    assert made == ["once"]


def test_names_of_files_that_are_no_text(workers: Workers, tmp_path: Path) -> None:
    """A file's name is bytes; what is no UTF-8 of it travels too, and nobody waits for it in vain."""
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/lung-\xff.png"))
    generations = list(SeveralProcesses(workers, "tuned", pytest.fail).generate([ask("odd", "?", odd), ask("even", "?")]))
    assert {generation.id for generation in generations} == {"odd", "even"}


def test_processes_end_with_the_object(tmp_path: Path) -> None:
    """Where the evaluation failed between two models, nobody closes the workers."""
    workers = Workers([None, None], "several_models:telling", {}, logs=tmp_path)
    list(SeveralProcesses(workers, "base", pytest.fail).generate([ask("a"), ask("b")]))
    processes = [worker.process for worker in workers._workers]
    assert [process.poll() for process in processes] == [None, None]
    del workers
    gc.collect()
    assert all(process.poll() is not None for process in processes)


def test_a_dead_process_ends_with_one_message_and_nothing_is_lost(workers: Workers, tmp_path: Path) -> None:
    generator = SeveralProcesses(workers, "tuned", pytest.fail)
    requests = [ask(f"r{n}", "x" * (20 - n)) for n in range(10)]
    dying = [*requests, ask("last", "die")]  # the shortest: the last of its process's part
    part = next(part for part in deal(dying, 2) if any(request.id == "last" for request in part))
    got: list[Generation] = []
    with pytest.raises(GenerationError, match=r"answered on CPU ended \(SIGKILL\); 1 of its requests") as caught:
        got.extend(generator.generate(dying))
    assert {request.id for request in part} - {"last"} <= {generation.id for generation in got}
    assert caught.value.file == str(tmp_path / "logs" / f"worker-{deal(dying, 2).index(part)}.log")
    assert not workers._workers, "the others are ended"
    missing = [request for request in requests if request.id not in {generation.id for generation in got}]
    again = list(generator.generate(requests))
    assert len(again) == len(requests)
    assert len({generation.id for generation in got}) + len(missing) == len(requests)


def test_a_fault_in_a_process_comes_here_as_it_is(workers: Workers) -> None:
    generator = SeveralProcesses(workers, "tuned", pytest.fail)
    with pytest.raises(GenerationError) as caught:
        list(generator.generate([ask("a"), ask("b", "fail")]))
    assert caught.value.what.template == "There is no question."
    assert caught.value.sample == "b"
    assert caught.value.remedy is not None
    assert caught.value.remedy.render("zh") != caught.value.remedy.render("en")


def test_a_fault_of_the_program_stands_in_the_log(workers: Workers) -> None:
    with pytest.raises(GenerationError, match=r"ended \(1\)") as caught:
        list(SeveralProcesses(workers, "tuned", pytest.fail).generate([ask("a"), ask("b", "break")]))
    assert caught.value.file is not None
    log = Path(caught.value.file).read_text()
    assert "a fault of the program" in log
    assert "libraries print" in log


def test_few_requests_are_answered_here(tmp_path: Path) -> None:
    workers = Workers([None, None], "several_models:telling", {}, logs=tmp_path / "logs", min_share=32)
    made: list[EchoGenerator] = []

    def alone() -> EchoGenerator:
        made.append(EchoGenerator())
        return made[-1]

    generator = SeveralProcesses(workers, "tuned", alone)
    assert [g.text for g in generator.generate([ask(f"r{n}", "hello") for n in range(40)])] == ["hello"] * 40
    assert "".join(generator.stream(ask("a", "hello"))) == "hello"
    assert len(made) == 1
    assert not (tmp_path / "logs").exists()
    assert workers.num_for(64) == 2
    assert workers.num_for(10_000) == 2
    assert workers.num_for(0) == 1


def test_a_reader_who_leaves_ends_the_processes(tmp_path: Path) -> None:
    workers = Workers([None, None], "several_models:telling", {"seconds": 0.05}, logs=tmp_path)
    generations = SeveralProcesses(workers, "tuned", pytest.fail).generate([ask(f"r{n}") for n in range(400)])
    next(generations)
    pids = [worker.process.pid for worker in workers._workers]
    started = time.perf_counter()
    generations.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - started < 5
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
