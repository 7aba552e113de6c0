"""The verbs: prepare, validate, train, evaluate, compare, chat, and what is known of recipes, runs and the machine.

A verb takes a recipe (a path, the name of a shipped one, or a :class:`~medtune.recipe.Recipe`) with overrides, or a run (a
folder, the name of a folder in ``runs``, or a :class:`~medtune.runs.Run`). It returns typed objects, prints nothing, and
tells a ``listener`` of its progress. Faults that a user can put right are :class:`~medtune.errors.MedtuneError`.
"""

from __future__ import annotations

from medtune.api.conversation import open_chat
from medtune.api.data import deidentify, export_dataset, prepare, validate
from medtune.api.evaluation import compare, compare_page, evaluate, import_review, rescore, review
from medtune.api.given import find_run
from medtune.api.machine import DemoResult, demo, doctor
from medtune.api.recipes import ShownRecipe, copy_recipe, diff_recipes, list_recipes, show_recipe
from medtune.api.runs import RunView, list_runs, show_run
from medtune.api.training import SweepResult, advise, plan, sweep, train
from medtune.recipe import recipe_schema

__all__ = [
    "DemoResult",
    "RunView",
    "ShownRecipe",
    "SweepResult",
    "advise",
    "compare",
    "compare_page",
    "copy_recipe",
    "deidentify",
    "demo",
    "diff_recipes",
    "doctor",
    "evaluate",
    "export_dataset",
    "find_run",
    "import_review",
    "list_recipes",
    "list_runs",
    "open_chat",
    "plan",
    "prepare",
    "recipe_schema",
    "rescore",
    "review",
    "show_recipe",
    "show_run",
    "sweep",
    "train",
    "validate",
]
