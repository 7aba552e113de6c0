"""What a module says is public is what it defines without an underscore."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import medtune
from medtune import api

ROOT = Path(medtune.__file__).parent


def declared(tree: ast.Module) -> set[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            return set(ast.literal_eval(node.value))
    return None


def defined(tree: ast.Module) -> set[str]:
    """Functions and classes without an underscore."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    return {name for name in found if not name.startswith("_")}


def bound(tree: ast.Module) -> set[str]:
    """Every name of the module's top level, imports and constants too."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return names


MODULES = [path for path in sorted(ROOT.rglob("*.py")) if declared(ast.parse(path.read_text(encoding="utf-8"))) is not None]
FRONT = ("environment.py", "errors.py", "language.py", "plugins.py", "recipe.py", "runs.py", "schema.py")
"""Modules that other people's code imports: what has no underscore there is a promise, and is listed."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_public_name_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    listed = declared(tree) or set()
    assert listed - bound(tree) == set()
    assert sorted(listed) == sorted({name for name in listed if name.startswith("__") or not name.startswith("_")})


@pytest.mark.parametrize("name", FRONT)
def test_the_front_lists_all_that_is_public(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    assert defined(tree) - (declared(tree) or set()) == set()


def test_the_verbs_are_listed() -> None:
    # given.py is what the verbs share; the rest of the package is verbs, and what they return.
    files = [path for path in (ROOT / "api").glob("*.py") if path.name != "given.py"]
    assert len(files) > 5
    assert set().union(*(defined(ast.parse(path.read_text(encoding="utf-8"))) for path in files)) - set(api.__all__) == set()


def test_the_package_offers_the_verbs() -> None:
    assert set(medtune.__all__) == {"__version__", "api", *api.__all__}
    for name in api.__all__:
        assert getattr(medtune, name) is getattr(api, name)
    assert set(medtune.__all__) <= set(dir(medtune))


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = medtune.trian


def test_every_verb_has_a_docstring_and_prints_nothing() -> None:
    assert all(inspect.getdoc(getattr(api, name)) for name in api.__all__)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "api").glob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert len(calls) > 100
    assert not any(isinstance(call.func, ast.Name) and call.func.id in ("print", "exit") for call in calls)
