"""The recipe: one YAML file per run, composed of the rooms' settings.

Read with :func:`load_recipe`, written with :func:`dump_recipe`. A recipe is frozen; what follows from it (the folder of the
data set, the folder of the run) is computed by functions and never written back.

Relative paths in a recipe are relative to the current directory, not to the recipe's own place: a recipe can be copied
anywhere and run from the project's folder, and a run folder that was moved still finds ``datasets/``.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from medtune.data.config import DataSettings
from medtune.errors import RecipeError
from medtune.evaluation.config import EvaluationSettings
from medtune.generation.config import GenerationSettings
from medtune.language import Text, msg
from medtune.models.config import AdapterSettings, LoraSettings, ModelSettings
from medtune.schema import below, faults, fill_tags, options, tagged
from medtune.training.config import DistributedSettings, NoDistribution, TrainSettings
from medtune.types import Settings

__all__ = [
    "Recipe",
    "RunSettings",
    "Setting",
    "SettingDifference",
    "dataset_folder",
    "diff_settings",
    "dump_recipe",
    "explain",
    "find_recipe",
    "load_recipe",
    "make_recipe",
    "read_head",
    "read_yaml",
    "recipe_schema",
    "rename",
    "run_folder",
    "shipped_recipes",
]

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class RunSettings(Settings):
    """Where the results go."""

    name: Name | None = None
    """Name of the run; the recipe's name when left out. Give each variant of a recipe its own."""
    folder: Path | None = None
    """The run folder; `runs/<name of the run>` when left out."""


class Recipe(Settings):
    """Everything that one run needs: the data, the model, how it is tuned, and how it is judged."""

    name: Name
    """Letters, digits, `.`, `_` and `-`; names the folders of data set and run. The file's name when left out."""
    title: str = ""
    """One line for lists and reports."""
    data: DataSettings
    """Which sources become the data set, and how it is split."""
    model: ModelSettings
    """The base model and how it sees a picture."""
    adapter: AdapterSettings = LoraSettings()
    """Which weights are trained."""
    train: TrainSettings = TrainSettings()
    """The optimiser's settings."""
    distributed: DistributedSettings = NoDistribution()
    """How the training is spread over devices."""
    generation: GenerationSettings = GenerationSettings()
    """How answers are generated."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured, and against which controls."""
    run: RunSettings = RunSettings()
    """Where the results go."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a recipe, explained. ``description`` is in English; ``Text(description)`` renders it for the reader."""

    key: str
    value: Any
    default: Any
    """None also where there is no default."""
    description: str
    changed: bool
    """The value differs from the default."""


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A setting in which two recipes differ; None where one of them does not have it."""

    key: str
    first: Any
    second: Any


def dataset_folder(recipe: Recipe) -> Path:
    """Where the data set of the recipe lies: ``data.folder``, else ``datasets/<recipe name>``."""
    return recipe.data.folder or Path("datasets") / recipe.name


def run_folder(recipe: Recipe) -> Path:
    """Where the run of the recipe lies: ``run.folder``, else ``runs/<run.name, else recipe name>``."""
    return recipe.run.folder or Path("runs") / (recipe.run.name or recipe.name)


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with medtune. The name is the path below ``recipes/`` without ``.yaml``.

    ``<name>.sweep.yaml`` beside a recipe is no recipe but the search space of :func:`medtune.api.sweep`.
    """
    root = Path(str(resources.files("medtune") / "recipes"))
    files = [path for path in sorted(root.rglob("*.yaml")) if not path.name.endswith(".sweep.yaml")]
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files}


def find_recipe(path_or_name: str | Path) -> Path:
    """The file of a recipe: a YAML file, a run folder (its ``recipe.yaml``), or the name of a shipped recipe.

    Raises:
        RecipeError: There is no such file and no such name; the nearest name is given.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    shipped = shipped_recipes()
    name = str(path_or_name)
    if name in shipped:
        return shipped[name]
    if path.suffix in (".yaml", ".yml") or path.is_dir() or len(path.parts) > 1:
        raise RecipeError(
            msg("There is no recipe in this place."), file=path, remedy=msg("`medtune recipe list` shows the shipped recipes.")
        )
    nearest = difflib.get_close_matches(name, shipped, n=1, cutoff=0.5)
    if nearest:
        remedy = msg("Did you mean {nearest}? Known: {known}.", nearest=nearest[0], known=", ".join(shipped))
    else:
        remedy = msg("Give the path of a YAML file or one of: {known}.", known=", ".join(shipped))
    raise RecipeError(msg("There is no recipe named {name!r}.", name=name), remedy=remedy)


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        path_or_name: As :func:`find_recipe` takes it.
        overrides: ``section.key=value``; the value is read as YAML (``train.learning_rate=2e-4``, ``data.transforms=[]``),
            list entries by number (``data.sources.0.max_samples=100``). Another ``kind`` of a section
            (``distributed.kind=none``) takes the settings away that only the former kind has.

    Raises:
        RecipeError: The file is missing or not YAML, or settings are wrong: every fault is listed with its dotted key.
    """
    path = find_recipe(path_or_name)
    data = read_yaml(path)
    data.setdefault("name", path.stem)
    return make_recipe(data, overrides, file=path)


def make_recipe(data: Mapping[str, Any], overrides: Sequence[str] = (), *, file: Path | None = None) -> Recipe:
    """A recipe from settings as YAML holds them, changed by overrides; see :func:`load_recipe`."""
    settings = copy.deepcopy(dict(data))
    found: list[tuple[str, Text]] = []
    for override in overrides:
        fault = _override(settings, override)
        if fault is not None:
            found.append(fault)
    try:
        recipe = Recipe.model_validate(fill_tags(Recipe, settings))
    except ValidationError as error:
        found += faults(Recipe, error)
    if found:
        raise RecipeError(
            msg("The recipe has {count} faults.", count=len(found)) if len(found) > 1 else msg("The recipe has a fault."),
            faults=found,
            file=file,
            remedy=msg("`medtune recipe show demo --explain` lists every setting."),
        )
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML: every setting in its declared order, defaults written out.

    Reading the text again gives an equal recipe, also with a later medtune whose defaults have changed.
    """
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def read_head(path: Path) -> str:
    """The comment lines at the head of a recipe file (prerequisites, launch line, what an original reported), as they stand."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            break
        lines.append(line)
    return "\n".join(lines).strip("\n")


def rename(text: str, name: str) -> str:
    """Recipe text with another ``name``; comments and layout stay. Text without a name is left as it is: the file names it."""
    return re.sub(r"(?m)^name:.*$", f"name: {name}", text, count=1)


def explain(recipe: Recipe) -> list[Setting]:
    """Every setting of the recipe with its value, its default and what it means, in declared order."""
    return list(_explain(recipe, ""))


def diff_settings(first: Recipe, second: Recipe) -> list[SettingDifference]:
    """The settings in which two recipes differ, in declared order; ``name`` and ``title`` count as settings too."""
    left = {setting.key: setting.value for setting in explain(first)}
    right = {setting.key: setting.value for setting in explain(second)}
    both = dict.fromkeys([*left, *right])
    return [SettingDifference(key, left.get(key), right.get(key)) for key in both if left.get(key) != right.get(key)]


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe (draft 2020-12), for editors and forms."""
    return Recipe.model_json_schema()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses a key written twice: plain PyYAML keeps the last one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is written twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        RecipeError: The file cannot be read, is not YAML, names a key twice, or is no group of settings.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise RecipeError(
            msg("Line {line} is not sound YAML: {detail}", line=line, detail=str(error.problem or error.context)),
            file=path,
            remedy=msg("Look for an open bracket or quote, a missing colon, or a tab in that line and those above it."),
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(msg("The recipe is not UTF-8 text."), file=path, remedy=msg("Save it as UTF-8.")) from error
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(msg("The recipe cannot be read: {detail}", detail=str(error)), file=path) from error
    if not isinstance(data, dict):
        raise RecipeError(msg("A recipe is a group of settings (key: value), and this file is not."), file=path)
    return {str(key): value for key, value in data.items()}


def _override(data: dict[str, Any], override: str) -> tuple[str, Text] | None:
    """Write one override into ``data``; the fault when it cannot be done."""
    key, sign, text = override.partition("=")
    key = key.strip()
    if not sign or not key:
        return override, msg("An override is written section.key=value.")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        return key, msg("The value is not sound YAML: {detail}", detail=str(getattr(error, "problem", None) or error))
    *parents, last = key.split(".")
    place: Any = data
    model: Any = Recipe
    for index, part in enumerate(parents):
        model = below(model, part)
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                return key, msg(
                    "{parent} is a list of {count} entries, counted from 0.", parent=".".join(parents[:index]), count=len(place)
                )
            place = place[int(part)]
            continue
        if not isinstance(place, dict):
            return key, msg("{parent} is not a group of settings.", parent=".".join(parents[:index]))
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            return key, msg("{parent} is a list of {count} entries, counted from 0.", parent=".".join(parents), count=len(place))
        place[int(last)] = value
    elif isinstance(place, dict):
        members, tag = options(model) if model is not None else ((), None)
        if last == tag and place.get(tag) != value:
            _keep_common(place, members, tag, value)
        place[last] = value
    else:
        return key, msg("{parent} is not a group of settings.", parent=".".join(parents))
    return None


def _keep_common(place: dict[str, Any], members: Sequence[Any], tag: str, value: Any) -> None:
    """Take from ``place`` the settings of the former kind that the new kind ``value`` does not have."""
    known = {name for member in members for name in member.model_fields}
    chosen = tagged(members, tag, value)
    if chosen is not None:
        for name in [name for name in place if name in known and name not in chosen.model_fields]:
            del place[name]


def _explain(settings: BaseModel, prefix: str) -> Iterator[Setting]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _explain(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and all(isinstance(item, BaseModel) for item in value):
            for index, item in enumerate(value):
                yield from _explain(item, f"{prefix}{name}.{index}.")
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
            changed = field.is_required() or value != default
            yield Setting(f"{prefix}{name}", _plain(value), _plain(default), " ".join((field.description or "").split()), changed)


def _plain(value: Any) -> Any:
    """A value as YAML would show it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value
