"""What must not be loaded to say hello."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "PIL", "accelerate", "cv2", "datasets", "deepspeed", "fastapi", "httpx", "jieba", "matplotlib", "nltk", "numpy",
    "optuna", "pandas", "peft", "pyarrow", "sacrebleu", "safetensors", "scipy", "starlette", "torch", "transformers",
    "uvicorn",
}  # fmt: skip

HELP = "from medtune.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code"


def loaded(code: str) -> set[str]:
    """The modules in ``sys.modules`` after ``code`` in a new interpreter."""
    program = f"{code}\nimport json, sys\nsys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stderr.splitlines()[-1]))


def test_the_package_alone_loads_nothing() -> None:
    assert loaded("import medtune") & (HEAVY | {"pydantic", "yaml", "typer", "rich"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_neither_models_nor_settings(arguments: list[str]) -> None:
    assert loaded(HELP.format(arguments=arguments)) & (HEAVY | {"pydantic", "yaml", "rich"}) == set()


@pytest.mark.parametrize("arguments", [["train", "--help"], ["recipe", "--help"], ["recipe", "show", "--help"], ["chat", "--help"]])
def test_help_of_a_command_loads_nothing_behind_it(arguments: list[str]) -> None:
    # typer itself may load pydantic to describe parameters.
    assert loaded(HELP.format(arguments=arguments)) & (HEAVY | {"yaml", "medtune.api", "medtune.types", "medtune.recipe"}) == set()


@pytest.mark.parametrize("module", ["recipe", "api", "types", "plugins", "runs", "environment"])
def test_the_shared_modules_load_nothing_heavy(module: str) -> None:
    assert loaded(f"import medtune.{module}") & HEAVY == set()


def test_reading_a_recipe_loads_nothing_heavy() -> None:
    code = (
        "from medtune.recipe import dump_recipe, make_recipe\n"
        "dump_recipe(make_recipe({'name': 'a', 'data': {'sources': [{'source': 'phantom'}]}, 'model': {'base': 'b'}}))"
    )
    assert loaded(code) & HEAVY == set()
