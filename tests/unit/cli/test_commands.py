"""The commands: exit codes, messages, JSON, help."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import source_files
from medtune import api
from medtune.cli import _take_language, main
from medtune.errors import DataError, MedtuneError
from medtune.language import msg

pytestmark = pytest.mark.usefixtures("workplace")

COMMANDS = [
    *([name] for name in ("demo", "prepare", "validate", "plan", "train", "evaluate", "compare", "chat")),
    ["review"],
    *([name] for name in ("sweep", "advise", "deidentify", "doctor")),
    *(["recipe", name] for name in ("list", "show", "copy", "diff")),
    *(["runs", name] for name in ("list", "show")),
    ["export", "dataset"],
]


def run(*arguments: str) -> int:
    """The exit code of ``medtune`` with these arguments, in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    code = end.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def medtune(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medtune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, **environment})


# ---------------------------------------------------------------------------------------------------------------- language


@pytest.mark.parametrize(
    ("given", "chosen", "rest"),
    [
        (["--lang", "zh", "train", "x"], "zh", ["train", "x"]),
        (["train", "--lang=en", "x"], "en", ["train", "x"]),
        (["train", "x", "--lang", "zh"], "zh", ["train", "x"]),
        (["--lang", "fr", "train"], None, ["--lang", "fr", "train"]),
        (["train", "x", "--lang"], None, ["train", "x", "--lang"]),
        (["train", "--", "--lang", "zh"], None, ["train", "--", "--lang", "zh"]),
        (["train"], None, ["train"]),
    ],
)
def test_the_language_may_stand_anywhere(given: list[str], chosen: str | None, rest: list[str]) -> None:
    assert _take_language(given) == (chosen, rest)


def test_help_is_in_the_reader_s_language() -> None:
    assert "Example: medtune train demo" in medtune("train", "--help", MEDTUNE_LANG="en").stdout
    assert "示例：medtune train demo" in medtune("train", "--help", MEDTUNE_LANG="zh").stdout
    assert "列出自带的配方" in medtune("recipe", "--help", "--lang", "zh", MEDTUNE_LANG="en").stdout


def test_errors_are_in_the_reader_s_language() -> None:
    result = medtune("train", "nowhere.yaml", LC_ALL="zh_CN.UTF-8", MEDTUNE_LANG="")
    assert (result.returncode, result.stdout) == (2, "")
    assert "文件：nowhere.yaml" in result.stderr


def test_another_language_is_refused() -> None:
    assert run("--lang", "fr", "recipe", "list") == 2


# -------------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_of_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    text = capsys.readouterr().out
    assert f"medtune {' '.join(command)}" in text.split("\n\n")[-1]
    assert "<str>" not in text


@pytest.mark.parametrize("command", [["deidentify"], ["export", "dataset"]], ids=" ".join)
def test_help_names_no_type_of_the_program(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(*command, "--help")
    shown = capsys.readouterr().out
    assert "<path>" not in shown
    assert "<int range>" not in shown


def test_the_help_of_deidentify_lists_what_can_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    from typing import get_args

    from medtune.imaging.deidentify.choices import Option

    run("deidentify", "--help")
    shown = re.sub(r"\s+", "", capsys.readouterr().out)
    assert [name for name in get_args(Option) if name not in shown] == []


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    lines = text.split("Commands:")[1].split("Example:")[0].splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ") and line.strip() and line[2] != " "]
    road = ["demo", "prepare", "validate", "plan", "train", "evaluate", "compare", "chat"]
    assert listed == [*road, "review", "sweep", "advise", "deidentify", "doctor", "export", "recipe", "runs"]


@pytest.mark.parametrize(
    ("arguments", "english", "chinese"),
    [
        (["trian"], "There is no command trian. Did you mean train?", "没有命令 trian。是否想写 train？"),
        (["recipe", "xyzzy"], "There is no command xyzzy. Known: list, show, copy, diff.", "没有命令 xyzzy。"),
        (["train"], "RECIPE is missing.", "缺少 RECIPE。"),
        (["train", "demo", "--resme"], "There is no option --resme. Did you mean --resume?", "没有选项 --resme。"),
        (["runs", "show", "one", "two"], "There is no place for two.", "多余的参数：two"),
        (["chat", "--adapter"], "The option --adapter needs a value.", "选项 --adapter 需要一个值。"),
        (["plan", "demo", "--price", "-1"], "--price: '-1' must be at least 0.", "--price：'-1' 不得小于 0。"),
        (["plan", "demo", "--num-gpus", "two"], "--num-gpus: A whole number is expected, not 'two'.", "--num-gpus：此处应为整数"),
        (["chat", "--base-only=1"], "The option --base-only takes no value.", "选项 --base-only 不接受值。"),
        (["chat", "--base-only", "--side-by-side"], "--base-only leaves no tuned model", "--base-only 时没有微调后的模型"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(
    arguments: list[str], english: str, chinese: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(english)
    assert "--help" in output.err or arguments[0] == "chat"
    monkeypatch.setenv("MEDTUNE_LANG", "zh")
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(chinese)


def test_a_chinese_help_page_has_no_english_headings() -> None:
    page = medtune("train", "--help", MEDTUNE_LANG="zh").stdout
    assert page.startswith("用法: medtune train [选项] ")
    assert not any(word in page for word in ("Usage", "Options:", "Arguments:", "required", "Show this"))


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    assert run("prepare", "small.yaml", f"data.folder={folder}") == 2
    assert capsys.readouterr().err.splitlines()[1:3] == [
        "Nothing can be written here: a part of the path is a file, not a folder",
        f"  file: {folder}",
    ]


def test_a_full_disk_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "datasets/x/train.jsonl")

    monkeypatch.setattr(api, "prepare", fail)
    assert run("prepare", "small.yaml") == 2
    assert capsys.readouterr().err.splitlines() == [
        "The file system refuses: no space is left",
        "  file: datasets/x/train.jsonl",
        "  what to do: Free some space, or name another place.",
    ]


def test_ctrl_c_is_said_in_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "prepare", stop)
    assert run("prepare", "small.yaml") == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "train", stop)
    shutil.copytree("runs/small", "elsewhere", ignore=shutil.ignore_patterns("checkpoints"))
    assert run("train", "elsewhere", "train.log_every=1", "--resume") == 130
    assert capsys.readouterr().err == "Go on with: medtune train elsewhere train.log_every=1 --resume\nInterrupted.\n"
    shutil.rmtree("elsewhere")
    assert run("train", "small.yaml", "train.log_every=1") == 130
    assert capsys.readouterr().err == "Go on with: medtune train runs/small --resume\nInterrupted.\n"
    monkeypatch.setattr(api, "evaluate", stop)
    assert run("evaluate", "runs/small", "evaluation.num_resamples=9", "--overwrite") == 130
    assert capsys.readouterr().err == "Go on with: medtune evaluate runs/small evaluation.num_resamples=9\nInterrupted.\n"
    monkeypatch.setattr(api, "sweep", stop)
    assert run("sweep", "small.yaml", "adapter.rank=2", "--trials=3", "--workers", "2", "--keep-checkpoints") == 130
    expected = "Go on with: medtune sweep small.yaml adapter.rank=2 --trials 3 --workers 2 --keep-checkpoints\nInterrupted.\n"
    assert capsys.readouterr().err == expected


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from medtune import __version__

    assert run("--version") == 0
    assert capsys.readouterr().out == f"medtune {__version__}\n"


# -------------------------------------------------------------------------------------------------------------- exit codes


def test_a_fault_of_the_user_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DataError(msg("The file exists already."), file="a.jpg", sample="s1", key="data.x", remedy=msg("Give another name."))

    monkeypatch.setattr(api, "prepare", fail)
    assert run("prepare", "small.yaml") == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "The file exists already.",
        "  file: a.jpg",
        "  sample: s1",
        "  recipe key: data.x",
        "  what to do: Give another name.",
    ]


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api, "prepare", fail)
    with pytest.raises(ZeroDivisionError):
        main(["prepare", "small.yaml"])


def test_validate_exits_with_1_on_errors_and_strict_also_on_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate", "datasets/small") == 0
    assert run("validate", "datasets/small", "--strict") == 1
    capsys.readouterr()
    faulty = tmp_path / "faulty"
    shutil.copytree("datasets/small", faulty)
    next((faulty / "images").rglob("*.*g")).unlink()
    assert run("validate", str(faulty), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert any(issue["severity"] == "error" for issue in found["issues"])
    assert isinstance(found["issues"][0]["message"], str)


def test_findings_are_shown_by_kind_with_the_errors_first(capsys: pytest.CaptureFixture[str]) -> None:
    from medtune.cli.tables import print_validation
    from medtune.types import Issue, ValidationReport

    def issue(code: str, severity: Any, number: int) -> Issue:
        remedy = msg("Give another name.")
        return Issue(code=code, severity=severity, message=msg("Scoring"), remedy=remedy, sample=f"s{number}", file="train.jsonl:1")

    found = [issue("blank", "warning", number) for number in range(9)]
    found.insert(4, issue("gone", "error", 9))
    print_validation(ValidationReport(dataset="d", num_rows={"train": 10}, issues=tuple(found), checks=("rows",)))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "error gone",
        "train.jsonl:1, s9: Scoring",
        "Give another name.",
        "warning blank x9",
        *(f"train.jsonl:1, s{number}: Scoring" for number in range(5)),
        "... and 4 more; --json lists them.",
        "Give another name.",
        "Rows: 10. Checks: 1. Errors: 1. Warnings: 9.",
    ]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    command = [
        sys.executable,
        "-m",
        "medtune",
        "train",
        "small.yaml",
        f"run.folder={folder}",
        "train.max_steps=100000",
        "train.log_every=1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 600
        while not _logged(folder / "events.jsonl") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "--resume" in error
    assert api.show_run(folder).record.status == "interrupted"


def _logged(path: Path) -> bool:
    return path.is_file() and '"log"' in path.read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------- results


def test_prepare_says_what_the_data_set_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "small.yaml") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line[:1].isalpha())
    manifest = api.prepare("small.yaml").manifest
    assert lines[
        "rows"
    ].strip() == f"train {manifest.num_samples['train']}, validation {manifest.num_samples['validation']}, test " + str(
        manifest.num_samples["test"]
    )
    assert lines["hash"].strip() == manifest.hash


def test_prepare_names_the_first_record_that_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "image,question,answer,patient_id\nmissing.png,Where?,left,1\n" + "".join(
        f"here.png,Where {n}?,left,{n}\n" for n in range(2, 30)
    )
    source_files.picture(0).save(tmp_path / "here.png")
    (tmp_path / "asked.csv").write_text(rows, encoding="utf-8")
    recipe = tmp_path / "mine.yaml"
    source = f"{{source: csv, options: {{path: {tmp_path / 'asked.csv'}, already_deidentified: true}}, task: open-vqa}}"
    recipe.write_text(
        f"data:\n  folder: {tmp_path / 'set'}\n  sources: [{source}]\nmodel: {{base: medtune-nano}}\n", encoding="utf-8"
    )
    assert run("prepare", str(recipe)) == 0
    out = capsys.readouterr().out
    assert "missing.png, asked-1: The picture is missing." in out
    assert f"`medtune validate {tmp_path / 'set'}` lists all" in out
    assert run("validate", str(tmp_path / "nowhere")) == 2
    assert "neither a data set nor a recipe" in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_is_told_so(tmp_path: Path) -> None:
    from medtune.evaluation.evaluate import read_report

    with pytest.raises(MedtuneError, match="has not been evaluated") as caught:
        read_report(tmp_path)
    assert str(tmp_path) in str(caught.value.remedy)


def test_evaluate_prints_the_table_and_where_the_report_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "small") == 0
    text = capsys.readouterr().out
    header = next(line for line in text.splitlines() if "tuned - base" in line)
    assert header.split()[:2] == ["base", "tuned"]
    assert "other pictures" in header
    assert any("closed questions" in line for line in text.splitlines())
    assert "Report: runs/small/report.html" in text


def test_evaluate_as_json_is_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "small", "--json") == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert [condition["label"] for condition in report["conditions"]] == ["base", "base-shuffled", "tuned", "tuned-shuffled"]
    assert "Scoring" in output.err


def test_compare_prints_a_line_for_each_metric(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "small", "runs/small", "--json") == 0
    comparison = json.loads(capsys.readouterr().out)
    overall = [entry for entry in comparison["differences"] if entry["task"] is None]
    assert run("compare", "small", "runs/small") == 0
    text = capsys.readouterr().out
    directed = [metric for metric in comparison["metrics"] if metric["direction"] != "neither"]
    assert sum("↑" in line or "↓" in line for line in text.splitlines()) == len(directed) > 0
    assert len(comparison["metrics"]) == len(overall)
    assert [metric["title"] for metric in comparison["metrics"] if metric["title"] not in text] == []


def test_chat_reads_standard_input() -> None:
    picture = next(Path("vqa-rad/images").glob("*.jpg"))
    command = [
        sys.executable,
        "-m",
        "medtune",
        "chat",
        "generation.sampling.max_new_tokens=2",
        "--side-by-side",
        "--image",
        str(picture),
    ]
    result = subprocess.run(command, input="What is it?\n/exit\n", capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "Base model: tiny" in result.stdout
    assert "Tuned model: tiny + runs/small/adapter" in result.stdout
    assert picture.name in result.stdout


def test_runs_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("runs", "list") == 0
    assert any(line.split()[:3] == ["small", "trained", "tiny"] for line in capsys.readouterr().out.splitlines())
    assert run("runs", "list", "--json") == 0
    assert {record["name"] for record in json.loads(capsys.readouterr().out)} >= {"small"}
    assert run("runs", "show", "small", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["record"]["status"], shown["report"]["run"]) == ("trained", "small")
    assert run("runs", "show", "small") == 0
    assert "Next: medtune chat runs/small" in capsys.readouterr().out
    assert run("runs", "list", "--folder", str(tmp_path)) == 0
    assert "medtune demo" in capsys.readouterr().out


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs/small", tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    assert run("runs", "list", "--folder", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "good  trained" in text
    assert "run.json cannot be read" in text


# ----------------------------------------------------------------------------------------------------------------- recipes


def test_show_prints_the_file_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "show", "small.yaml") == 0
    assert capsys.readouterr().out == Path("small.yaml").read_text(encoding="utf-8")


def test_show_resolves_with_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "show", "small.yaml", "adapter.rank=3") == 0
    assert "\n  rank: 3\n" in capsys.readouterr().out


def test_show_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "show", "small.yaml", "--explain") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("adapter.rank: 8") + 1].startswith("    ")


def test_show_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "show", "small.yaml", "--schema") == 0
    assert "train" in json.loads(capsys.readouterr().out)["properties"]


def test_copy_and_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.yaml"
    assert run("recipe", "copy", "small.yaml", str(target)) == 0
    assert str(target) in capsys.readouterr().out
    target.write_text(target.read_text(encoding="utf-8").replace("max_steps: 2", "max_steps: 3"), encoding="utf-8")
    assert run("recipe", "diff", "small.yaml", str(target), "--json") == 0
    found = {entry["key"]: (entry["first"], entry["second"]) for entry in json.loads(capsys.readouterr().out)}
    assert found == {"name": ("small", "mine"), "train.max_steps": (2, 3)}
    assert run("recipe", "diff", "small.yaml", "small.yaml") == 0
    assert "equal" in capsys.readouterr().out
    assert run("recipe", "copy", "small.yaml", str(target)) == 2


def test_list_names_every_shipped_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipe", "list") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in api.list_recipes())
    assert run("recipe", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out).keys() == api.list_recipes().keys()


# ------------------------------------------------------------------------------------------------------------------ doctor


def test_doctor_takes_a_package_s_successor_and_speaks_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from medtune.environment import examine

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"httpx": None, "httpx2": there("json")}.get(name, there(name)))
    monkeypatch.setenv("MEDTUNE_LANG", "zh")
    found = {finding.subject: finding.status for finding in examine()}
    assert found["httpx2"] == "ok"
    assert {"内存", "磁盘", "写入"} <= found.keys()


def test_doctor_exits_with_1_when_something_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from medtune.environment import Finding

    found = [
        Finding(
            subject="torch", status="missing", detail=msg("not installed"), remedy=msg("pip install {package}", package="torch")
        )
    ]
    monkeypatch.setattr(api, "doctor", lambda **_: found)
    assert run("doctor") == 1
    line = capsys.readouterr().out
    assert "not installed" in line
    assert "pip install torch" in line
    monkeypatch.setattr(api, "doctor", lambda **_: [found[0].model_copy(update={"status": "note"})])
    assert run("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["status"] == "note"


def test_review_makes_a_page_and_takes_what_readers_send(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert run("review", "small") == 2
    assert "no sample was answered differently by small/base and small/tuned" in capsys.readouterr().err
    # Other tests ask for the latest run.
    request.addfinalizer(lambda: shutil.rmtree("runs/reviewed", ignore_errors=True))
    shutil.copytree("runs/small", "runs/reviewed")
    answers = Path("runs/reviewed/evaluations/tuned/predictions.jsonl")
    answers.write_text(re.sub(r'"text":"', '"text":"Another: ', answers.read_text(encoding="utf-8")), encoding="utf-8")
    assert run("evaluate", "reviewed", "--rescore") == 0
    assert run("review", "reviewed", "--cases", "3") == 0
    assert "Page for the readers: runs/reviewed/review/review.html" in capsys.readouterr().out
    key = json.loads(Path("runs/reviewed/review/key.json").read_text(encoding="utf-8"))
    cases = {case["case"]: {"preference": "a" if case["a"] == "second" else "b"} for case in key["cases"]}
    file = tmp_path / "marks.json"
    marks = {"format": "medtune-review", "version": 1, "review": key["review"], "reader": "Ann", "cases": cases}
    file.write_text(json.dumps(marks), encoding="utf-8")
    assert run("review", "reviewed", str(file)) == 2
    assert "Files of readers are taken with --import." in capsys.readouterr().err
    assert run("review", "reviewed", "--import", str(file)) == 0
    assert "Preference for reviewed/tuned: 1.000" in capsys.readouterr().out
    assert api.show_run("reviewed").report.review.num_second == len(cases)  # type: ignore[union-attr]
    assert "reviewed/tuned" in Path("runs/reviewed/report.html").read_text(encoding="utf-8")
    assert run("review", "reviewed", "--import") == 2


def test_compare_writes_a_page_of_all_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("compare", "small", "runs/small", "runs/small", "--html", str(page)) == 0
    assert f"Page: {page}" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").count('<h2 id="h-pair-') == 2
    assert run("compare", "small", "runs/small", "--html", str(page), "--no-html") == 2
