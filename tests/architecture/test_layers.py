"""Who may import whom: down only, never sideways between rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import medtune

ROOT = Path(medtune.__file__).parent

LEVELS: tuple[tuple[str, ...], ...] = (
    ("cli", "server", "web"),
    ("api",),
    ("hpo",),
    ("assembly",),
    ("recipe", "environment"),
    ("evaluation", "training"),
    ("generation", "retrieval"),
    ("models",),
    ("tasks", "data"),
    ("imaging",),
    ("ground",),
)
SHARED_ROOM = {
    "types": "ground",
    "errors": "ground",
    "plugins": "ground",
    "runs": "ground",
    "language": "ground",
    "schema": "ground",
    "__main__": "cli",
}
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "datasets",
    "pyarrow",
    "cv2",
    "jieba",
    "nltk",
    "matplotlib",
    "PIL",
    "numpy",
    "accelerate",
    "optuna",
}

MODULES = sorted(ROOT.rglob("*.py"))


def room_of(module: str) -> str:
    part = module.split(".")[1]
    return SHARED_ROOM.get(part, part)


def name_of(path: Path) -> str:
    return ".".join(("medtune", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "medtune":
                yield from ((node.lineno, f"medtune.{alias.name}") for alias in node.names if not alias.name.startswith("__"))
            else:
                yield node.lineno, node.module or ""


def test_every_room_has_a_level() -> None:
    rooms = {room_of(name) for name in map(name_of, MODULES) if name != "medtune"}
    assert rooms <= set(LEVEL), f"no level for {sorted(rooms - set(LEVEL))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path))
def test_imports_go_down(path: Path) -> None:
    name = name_of(path)
    wrong = []
    for line, imported in imports(path):
        if not imported.startswith("medtune.") or name == "medtune":
            continue
        here, there = room_of(name), room_of(imported)
        if here != there and LEVEL[there] <= LEVEL[here]:
            wrong.append(f"line {line}: {name} ({here}) imports {imported} ({there})")
    assert wrong == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "config.py"], ids=lambda path: name_of(path))
def test_settings_import_nothing_heavy(path: Path) -> None:
    heavy = [(line, name) for line, name in imports(path) if name.split(".")[0] in HEAVY]
    assert heavy == []
    # What a settings file imports from its own house must be as light as itself.
    house = {name for _, name in imports(path) if name.startswith("medtune.")}
    assert all(name.endswith(".config") or room_of(name) == "ground" for name in house), house


def test_the_rule_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from medtune.training.train import train\n    from medtune import api, __version__\n")
    assert list(imports(path)) == [(2, "medtune.training.train"), (3, "medtune.api")]
    assert LEVEL[room_of("medtune.training.train")] == LEVEL[room_of("medtune.evaluation.evaluate")]
