"""README and docs: every command is run or checked, every Python block is run, every link leads somewhere.

A fenced ``bash`` or ``console`` block is executed, page by page, in a temporary directory. One that needs a GPU, a download or
minutes has ``<!-- not run: reason -->`` above it; then its commands are checked against the command line itself: the
subcommand exists, its options are real, a shipped recipe takes the overrides that are written after it, a make target exists.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BIN = Path(sys.executable).parent

# Pages with fewer blocks than these have lost some to a typing mistake in a fence, or to a change of this file's parser.
NUM_RUN = 3
NUM_NOT_RUN = 5
NUM_PYTHON = 6


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def commands(self) -> list[list[str]]:
        """The commands of a shell block: lines after ``$`` in a console block, all lines in a bash block."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@cache
def blocks() -> tuple[Block, ...]:
    found: list[Block] = []
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        start: int | None = None
        fence = language = ""
        for number, line in enumerate(lines):
            opening = re.fullmatch(r"\s*(`{3,})(\S*)\s*", line)
            if start is None and opening:
                start, fence, language = number, opening.group(1), opening.group(2)
            elif start is not None and line.strip() == fence:
                marked = re.fullmatch(r"<!-- not run: (.+) -->", lines[start - 1].strip()) if start else None
                text = "\n".join(lines[start + 1 : number])
                found.append(Block(page, start + 1, language, text, marked.group(1) if marked else None))
                start = None
        assert start is None, f"{page.name}: the block of line {start} does not end"
    return tuple(found)


def shell_blocks() -> list[Block]:
    return [block for block in blocks() if block.language in ("bash", "console")]


def pages_to_run(languages: tuple[str, ...]) -> list[Path]:
    """Pages with blocks that are run. A translated page has the same blocks (test_language_pairs.py): once is enough."""
    pages = {block.page for block in blocks() if block.language in languages and block.not_run is None}
    return sorted(page for page in pages if not page.name.endswith(".zh-CN.md"))


def name(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


def environment() -> dict[str, str]:
    """As a user's, without the variables of this test run, and with this medtune first on the path."""
    kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS") if key in os.environ}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "MEDTUNE_LANG": "en"}


def test_the_blocks_are_found() -> None:
    languages = {block.language for block in blocks()}
    assert languages <= {"bash", "console", "python", "yaml", "json", "text"}, "a block in a language that nothing here looks at"
    assert sum(block.not_run is None for block in shell_blocks()) >= NUM_RUN
    assert sum(block.not_run is not None for block in shell_blocks()) >= NUM_NOT_RUN
    assert sum(block.language == "python" for block in blocks()) >= NUM_PYTHON
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run:") for page in PAGES)
    assert marks == sum(block.not_run is not None for block in shell_blocks()), "a mark that is not right above a shell block"


@pytest.mark.parametrize("page", pages_to_run(("bash", "console")), ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    for block in shell_blocks():
        if block.page == page and block.not_run is None:
            for command in block.commands():
                result = subprocess.run(
                    command,
                    cwd=tmp_path,
                    env=environment(),
                    capture_output=True,
                    text=True,
                    timeout=900,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
                assert result.returncode == 0, f"{name(block)}: {shlex.join(command)}\n{result.stdout}{result.stderr}"


@pytest.mark.slow
def test_the_road_of_the_readme_runs(tmp_path: Path) -> None:
    """The block that needs a model, data and a GPU, with a tiny model, a few rows and the CPU written into its recipe."""
    from source_files import picture, write_vqa_rad
    from tiny_models import tiny_model

    write_vqa_rad(tmp_path / "data" / "vqa-rad", num_images=24)
    tiny_model(tmp_path / "tiny", "qwen2-vl")
    picture(0).save(tmp_path / "scan.png")
    small = {
        "model": {"base": "tiny"},
        "train": {"max_steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "num_workers": 0},
        "data": {"split": {"fractions": {"train": 0.5, "validation": 0.25, "test": 0.25}}},
        "generation": {"sampling": {"max_new_tokens": 8}},
        "evaluation": {"max_samples": 6, "num_resamples": 100, "controls": ["shuffled"]},
    }
    block = next(block for block in shell_blocks() if block.page.name == "README.md" and "medtune compare" in block.text)
    assert len(block.commands()) == 10
    for command in block.commands():
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=900,
            input="Where?\n/exit\n",
            check=False,
        )
        assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}{result.stderr}"
        if "copy" in command:
            recipe = yaml.safe_load((tmp_path / "mine.yaml").read_text(encoding="utf-8"))
            for section, values in small.items():
                recipe[section] |= values
            recipe["model"]["dtype"] = recipe["train"]["precision"] = "float32"
            (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for run in ("mine", "rank16"):
        assert (tmp_path / "runs" / run / "report.html").is_file()


@pytest.mark.parametrize("block", shell_blocks(), ids=name)
def test_the_commands_of_a_block_exist(block: Block) -> None:
    copies: dict[str, str] = {}
    for command in block.commands():
        check_command(command, copies)


def check_command(words: list[str], copies: dict[str, str]) -> None:
    """Look a command up. ``copies`` remembers which shipped recipe a file of this page was copied from."""
    program = Path(words[0]).name
    if program == "medtune":
        check_medtune(words[1:], copies)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in words[1:]:
            if "=" in word:
                assert re.search(rf"\$\({word.partition('=')[0]}\)", makefile), f"the Makefile does not use {word}"
            else:
                assert re.search(rf"(?m)^{re.escape(word)}:", makefile), f"the Makefile has no target {word}"
    elif program == "pip":
        extras = re.findall(r"\.\[([\w,]+)\]", " ".join(words))
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in ",".join(extras).split(",") if extras else []:
            assert re.search(rf"(?m)^{extra} = \[", project), f"pyproject.toml has no extra {extra}"
    elif program == "python" and words[1] == "-c":
        compile(words[2], "-c", "exec")
    elif program == "python":
        assert words[1] == "-m", "only modules and short programs can be looked up"
        assert importlib.util.find_spec(words[2]) is not None, f"there is no module {words[2]}"
    else:
        assert program in ("pre-commit", "git", "cd"), f"nothing here can check {words[0]!r}"


def medtune_command() -> Any:
    """The command line as a tree: a group has ``commands``, every command has ``params``."""
    import typer

    from medtune.cli.app import app

    return typer.main.get_command(app)


def check_medtune(words: list[str], copies: dict[str, str]) -> None:
    from medtune.recipe import load_recipe, shipped_recipes

    command = medtune_command()
    path = ["medtune"]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{' '.join(path)} has no command {words[0]}"
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"-h", "--help"}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{' '.join(path)} has no option {word}"
    arguments = [word for word in words if not word.startswith("-")]
    if path[1:] == ["recipe", "copy"]:
        assert arguments[0] in shipped_recipes(), f"there is no recipe {arguments[0]}"
        copies[arguments[1]] = arguments[0]
        return
    overrides = [word for word in arguments if re.match(r"[a-z_]+\.[\w.]+=", word)]
    recipe = next((copies.get(word, word) for word in arguments if copies.get(word, word) in shipped_recipes()), None)
    if recipe is not None:
        load_recipe(recipe, overrides)
    else:
        assert not overrides, f"{overrides} cannot be checked without a shipped recipe"


@pytest.mark.parametrize("page", pages_to_run(("python",)), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    code = "\n\n".join(block.text for block in blocks() if block.page == page and block.language == "python")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("block", [block for block in blocks() if block.language in ("yaml", "json")], ids=name)
def test_data_blocks_can_be_parsed(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    else:
        yaml.safe_load(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"(?m)^#+ (.+)$", file.read_text(encoding="utf-8"))
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_both_readmes_show_the_same_commands_and_recipes() -> None:
    shown = {}
    for readme in ("README.md", "README.zh-CN.md"):
        page = ROOT / readme
        commands = [command for block in shell_blocks() if block.page == page for command in block.commands()]
        shown[readme] = (commands, set(re.findall(r"`(\w*qwen\w*)`", page.read_text(encoding="utf-8"))))
    assert shown["README.md"] == shown["README.zh-CN.md"]
    assert shown["README.md"][1], "the table of the reference systems"


def test_the_readme_names_every_reference_recipe_and_every_verb() -> None:
    from medtune.recipe import load_recipe, shipped_recipes

    verbs = list(medtune_command().commands)
    assert "prepare" in verbs
    for readme in ("README.md", "README.zh-CN.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        for recipe in shipped_recipes():
            if load_recipe(recipe).title.startswith("R"):
                assert f"`{recipe}`" in text, f"{readme}: {recipe}"
        for verb in verbs:
            assert re.search(rf"(?m)^\| `{verb}\b", text), f"{readme}: {verb} has no row in the table"


def test_the_data_page_names_every_source_option_and_check() -> None:
    from medtune.data.validate import CHECKS
    from medtune.plugins import BUILT_IN, resolve

    page = (ROOT / "docs" / "data-formats.md").read_text(encoding="utf-8")
    for source in BUILT_IN["source"]:
        row = next((line for line in page.splitlines() if line.startswith(f"| `{source}` |")), None)
        assert row is not None, source
        if not source.startswith("phantom"):
            options = set(re.findall(r"`(\w+)`", row.split("|")[4]))
            assert options == set(resolve("source", source).model_fields), source
    assert [check for check in CHECKS if f"`{check}`" not in page] == []


def test_the_evaluation_page_names_every_metric_with_its_values() -> None:
    from medtune.plugins import BUILT_IN, resolve

    rows = {
        line.split("`")[1]: re.findall(r"`([\w.-]+)`", line.rsplit("|", 2)[1])
        for line in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and line.count("|") == 4
    }
    for metric in BUILT_IN["metric"]:
        assert set(rows.get(metric, [])) == {value.name.partition("/")[2] for value in resolve("metric", metric)().values}, metric


def test_the_installation_page_and_the_doctor_name_every_optional_part() -> None:
    """An extra that nobody names is one that nobody installs."""
    import tomllib

    from medtune.environment import examine

    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    assert {extra for extra in extras if f"`pip install -e '.[{extra}]'`" not in page} == set()
    subjects = {finding.subject for finding in examine()}
    packages = {
        "bitsandbytes",
        "deepspeed",
        "modelscope",
        "optuna",
        "python-gdcm",
        "radeval",
        "rapidocr-onnxruntime",
        "ray",
        "zstandard",
    }
    assert packages <= subjects
    assert len(packages) == len(extras - {"dev", "openai"}), "an extra that the doctor does not look for"


def test_the_architecture_page_names_every_room_and_every_module_beside_them() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "medtune"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(rooms) > 8
    assert [name for name in sorted(rooms | modules) if f"`{name}`" not in page] == []


def test_the_page_on_recipes_names_every_setting_of_train() -> None:
    from medtune.training.config import DdpSettings, DeepSpeedSettings, FsdpSettings, TrainSettings

    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    section = page.partition("## The section `train`")[2].partition("\n## ")[0]
    assert [name for name in TrainSettings.model_fields if f"`{name}`" not in section] == []
    section = page.partition("## Several GPUs")[2]
    distributed = {name for kind in (DdpSettings, DeepSpeedSettings, FsdpSettings) for name in kind.model_fields}
    assert [name for name in sorted(distributed) if f"{name}" not in section] == []


def test_the_architecture_page_names_every_test_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    assert [name for name in sorted(folders) if f"`tests/{name}/" not in page] == []
