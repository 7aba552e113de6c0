"""Help pages and usage faults in the reader's language: the words that typer and click would say in English."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from medtune.language import Text, msg

__all__ = ["Command", "Group", "usage_fault"]

_HEADINGS = {"Usage": msg("Usage"), "Arguments": msg("Arguments"), "Options": msg("Options"), "Commands": msg("Commands")}

# typer brings its own click in newer versions, so click's classes are reached through typer's.
_BaseContext: Any = TyperCommand.context_class
_BaseFormatter: Any = _BaseContext.formatter_class


class _Formatter(_BaseFormatter):  # type: ignore[misc]
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:  # noqa: ARG002
        super().write_usage(prog, args.replace("[OPTIONS]", f"[{msg('OPTIONS')}]"), prefix=f"{msg('Usage')}: ")

    def write_heading(self, heading: str) -> None:
        super().write_heading(str(_HEADINGS.get(heading, heading)))

    def write_dl(self, rows: Sequence[tuple[str, str]], *arguments: Any, **options: Any) -> None:
        words = {"[required]": f"[{msg('required')}]", "Show this message and exit.": str(msg("Show this page and exit."))}
        shown = []
        for name, text in rows:
            for english, said in words.items():
                text = text.replace(english, said)
            name = re.sub(r"^([A-Z]+) <path>$", r"\1", name)  # an argument that has a name of its own
            name = name.removesuffix(" <str>").removesuffix(" <list[str]>").replace("<list[Path]>", "<path>")
            shown.append((name, re.sub(r"\[default: (.*)\]", rf"[{msg('default')}: \1]", text)))
        super().write_dl(shown, *arguments, **options)


class _Context(_BaseContext):  # type: ignore[misc]
    formatter_class = _Formatter


class Command(TyperCommand):
    """A command whose help speaks the reader's language."""

    context_class = _Context


class Group(TyperGroup):
    """A group of commands whose help speaks the reader's language; an unknown command gets the nearest name."""

    context_class = _Context

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            raise typer.BadParameter(str(_unknown(msg("command {name}", name=args[0]), args[0], list(self.commands))), ctx=ctx)
        return super().resolve_command(ctx, args)


def usage_fault(error: Any) -> str:
    """What was wrong with the command line, and where its help is. ``error`` is one of click's usage errors."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    lines = [str(_sentence(error))]
    if context is not None:
        lines.append(str(msg("  what to do: {remedy}", remedy=f"{context.command_path} --help")))
    return "\n".join(lines)


def _sentence(error: Any) -> Text:
    match type(error).__name__:
        case "NoSuchOption":
            known = [name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts] if error.ctx else []
            return _unknown(
                msg("option {name}", name=error.option_name), error.option_name, [n for n in known if n.startswith("-")]
            )
        case "MissingParameter" if error.param is not None:
            return msg("{name} is missing.", name=error.param.metavar or error.param.name or "?")
        case "BadOptionUsage" if "requires" in error.message:
            return msg("The option {name} needs a value.", name=error.option_name)
        case "BadOptionUsage":
            return msg("The option {name} takes no value.", name=error.option_name)
        case "BadParameter" if error.param is not None:
            return msg("{name}: {detail}", name=_written(error.param), detail=_detail(error))
        case "UsageError" if extra := re.fullmatch(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", error.message):
            return msg("There is no place for {words}.", words=extra[1])
        case _:
            return msg("{detail}", detail=error.message)


def _written(parameter: Any) -> str:
    """An option as it is typed, an argument as the help page calls it: ``--price``, ``RECIPE``."""
    name = str(parameter.opts[-1])
    return name if name.startswith("-") else parameter.metavar or name


def _detail(error: Any) -> str | Text:
    """What is wrong with a value. Newer versions of typer let pydantic look at it, whose sentence is English alone."""
    from pydantic import ValidationError

    from medtune.schema import first_fault

    return first_fault(error.__cause__) if isinstance(error.__cause__, ValidationError) else str(error.message)


def _unknown(thing: Text, name: str, known: Sequence[str]) -> Text:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if nearest:
        return msg("There is no {thing}. Did you mean {nearest}?", thing=str(thing), nearest=nearest[0])
    return msg("There is no {thing}. Known: {known}.", thing=str(thing), known=", ".join(known))
