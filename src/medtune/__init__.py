"""medtune: turn a general vision-language model into a medical-imaging assistant, and show with numbers what it became.

The verbs of :mod:`medtune.api` are names of this package too; they are imported when they are first asked for::

    import medtune

    run = medtune.train("demo", ["train.epochs=1"])
    report = medtune.evaluate(run.folder)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from medtune import api
    from medtune.api import (
        DemoResult,
        RunView,
        ShownRecipe,
        SweepResult,
        advise,
        compare,
        compare_page,
        copy_recipe,
        deidentify,
        demo,
        diff_recipes,
        doctor,
        evaluate,
        export_dataset,
        find_run,
        import_review,
        list_recipes,
        list_runs,
        open_chat,
        plan,
        prepare,
        recipe_schema,
        rescore,
        review,
        show_recipe,
        show_run,
        sweep,
        train,
        validate,
    )

__all__ = [
    "DemoResult",
    "RunView",
    "ShownRecipe",
    "SweepResult",
    "__version__",
    "advise",
    "api",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    verbs = import_module("medtune.api")
    return verbs if name == "api" else getattr(verbs, name)


def __dir__() -> list[str]:
    return __all__
