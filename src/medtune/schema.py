"""What a settings class says of itself: which keys it has, where a fault lies, and how the fault is put into words.

pydantic reports a fault under a path that holds the tag of a tagged union (``adapter.lora.rank``). Readers write
``adapter.rank``, so the path is walked along the type annotations and the tags are taken out.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from medtune.errors import system_reason
from medtune.language import Text, msg

__all__ = ["below", "descriptions", "faults", "fill_tags", "first_fault", "keys", "options", "read_fault", "tagged"]

_Loc = tuple[int | str, ...]


def options(annotation: Any) -> tuple[tuple[Any, ...], str | None]:
    """The alternatives of an annotation without ``None``, and the discriminator when it is a tagged union."""
    discriminator: str | None = None
    while get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        for extra in extras:
            if isinstance(extra, FieldInfo) and isinstance(extra.discriminator, str):
                discriminator = extra.discriminator
    if get_origin(annotation) not in (Union, types.UnionType):
        return (() if annotation is type(None) else (annotation,)), discriminator
    found: list[Any] = []
    for member in get_args(annotation):
        inner, tag = options(member)
        found += inner
        discriminator = discriminator or tag
    return tuple(found), discriminator


def tagged(members: Sequence[Any], tag: str, value: Any) -> type[BaseModel] | None:
    """The alternative of a tagged union whose field ``tag`` may be ``value``; None when there is none."""
    for member in members:
        if value in get_args(member.model_fields[tag].annotation):
            assert isinstance(member, type)
            return member
    return None


def below(annotation: Any, name: str) -> Any:
    """The annotation of the setting ``name`` of a settings class; None where ``annotation`` is not one, or has no such setting."""
    model = _only(options(annotation)[0]) if annotation is not None else None
    field = model.model_fields.get(name) if model is not None else None
    return _annotation(field) if field is not None else None


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting below ``model`` as a dotted key; the alternatives of a union one after the other, lists without index."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for member in _models(_annotation(field)):
            yield from keys(member, f"{prefix}{name}.")


def descriptions(model: type[BaseModel]) -> Iterator[str]:
    """What each setting below ``model`` means, in English, on one line; the alternatives of a union one after the other."""
    for field in model.model_fields.values():
        if field.description:
            yield " ".join(field.description.split())
        for member in _models(_annotation(field)):
            yield from descriptions(member)


def fill_tags(model: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with the tag of each tagged union that leaves it out, taken from the field's default.

    ``adapter: {rank: 64}`` means the kind of adapter that would be used without the section.
    """
    filled = dict(data)
    for name, field in model.model_fields.items():
        value = filled.get(name)
        if not isinstance(value, Mapping):
            continue
        members, tag = options(_annotation(field))
        if tag is not None and tag not in value:
            default = getattr(field.get_default(call_default_factory=True, validated_data={}), tag, None)
            if default is not None:
                value = {tag: default, **value}
        chosen = tagged(members, tag, value.get(tag)) if tag is not None else _only(members)
        filled[name] = fill_tags(chosen, value) if chosen is not None else value
    return filled


def faults(model: type[BaseModel], error: ValidationError) -> list[tuple[str, Text]]:
    """Every fault of a validation as (dotted key, sentence), in the order of the settings.

    An unknown key gets the nearest known one beside it; failing that, the places where a setting of that name exists.
    """
    found: dict[tuple[str, str], tuple[str, Text]] = {}
    for entry in error.errors(include_url=False):
        path, parent = _walk(model, entry["loc"])
        context: Mapping[str, Any] = entry.get("ctx", {})
        if entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path = (*path, str(context.get("discriminator", "kind")).strip("'"))
        sentence = _sentence(entry["type"], entry["msg"], context, entry.get("input"))
        if entry["type"] == "extra_forbidden":
            sentence = _unknown(model, parent, str(path[-1]))
        key = ".".join(str(part) for part in path)
        found.setdefault((key, str(sentence)), (key, sentence))
    return list(found.values())


def first_fault(error: ValidationError) -> Text:
    """What is wrong with a single value, such as one of the command line, for which no settings class speaks."""
    entry = error.errors(include_url=False)[0]
    return _sentence(entry["type"], entry["msg"], entry.get("ctx", {}), entry.get("input"))


def read_fault(error: Exception) -> Text:
    """Why a stored file, or a line of one, cannot be used: the system's reason, where it stops being JSON, its first faulty field.

    Args:
        error: What reading it as text, as JSON or as a document raised.
    """
    match error:
        case OSError():
            return system_reason(error)
        case UnicodeDecodeError():
            return msg("it is not UTF-8 text")
        case json.JSONDecodeError():
            return _not_json(error.lineno, error.colno)
        case RecursionError():
            return msg("it is nested too deeply")
        case ValidationError():
            found = error.errors(include_url=False)
            first = _document_fault(found[0]["type"], found[0]["loc"], found[0])
            return first if len(found) == 1 else msg("{count} faults, the first: {fault}", count=len(found), fault=first)
        case KeyError():
            return msg("{field} is missing", field=str(error.args[0]))
        case TypeError() | AttributeError():
            return msg("a value is of the wrong kind")
        case _:
            said = error.args[0] if error.args else ""
            return said if isinstance(said, Text) else msg("{detail}", detail=(str(said) or type(error).__name__).splitlines()[0])


def _not_json(line: int, column: int) -> Text:
    if line == 1:  # often one line of many, of which its caller gives the number
        return msg("it is not valid JSON (character {column})", column=column)
    return msg("it is not valid JSON (line {line}, column {column})", line=line, column=column)


def _document_fault(kind: str, loc: _Loc, entry: Mapping[str, Any]) -> Text:
    context: Mapping[str, Any] = entry.get("ctx", {})
    field = ".".join(str(part) for part in loc)
    if kind == "json_invalid":
        place = re.search(r"line (\d+) column (\d+)", str(context.get("error", "")))
        return _not_json(int(place[1]), int(place[2])) if place else msg("it is not valid JSON")
    if kind == "missing":
        return msg("{field} is missing", field=field)
    if kind == "extra_forbidden":
        return msg("{field} is not known here", field=field)
    if kind == "model_type" and not field:
        return msg("it is not a JSON object")
    fault = _sentence(kind, entry["msg"], context, entry.get("input"))
    return msg("{field}: {fault}", field=field, fault=fault) if field else fault


def _annotation(field: FieldInfo) -> Any:
    # pydantic moves the discriminator of Annotated[A | B, Field(discriminator=...)] from the annotation to the field.
    return Annotated[field.annotation, field] if field.discriminator is not None else field.annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for member in options(annotation)[0]:
        if isinstance(member, type) and issubclass(member, BaseModel):
            found.append(member)
        elif get_origin(member) in (tuple, list, Sequence):
            found += [inner for argument in get_args(member) if argument is not Ellipsis for inner in _models(argument)]
    return found


def _only(members: Sequence[Any]) -> type[BaseModel] | None:
    models = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
    return models[0] if len(models) == 1 else None


def _walk(model: type[BaseModel], loc: _Loc) -> tuple[_Loc, type[BaseModel] | None]:
    """``loc`` without union tags, and the settings class that its last part is (or is not) a field of."""
    path: list[int | str] = []
    annotation: Any = model
    parent: type[BaseModel] | None = None
    for part in loc:
        members, tag = options(annotation) if annotation is not None else ((), None)
        if tag is not None:
            annotation = tagged(members, tag, part)
            continue
        if len(members) > 1:  # a plain union: the part names the alternative that was tried
            chosen = [member for member in members if getattr(member, "__name__", "") == part]
            annotation = chosen[0] if chosen else None
            continue
        member = members[0] if members else None
        path.append(part)
        parent = None
        if isinstance(member, type) and issubclass(member, BaseModel):
            parent = member
            field = member.model_fields.get(str(part))
            annotation = _annotation(field) if field is not None else None
        elif get_origin(member) in (tuple, list, Sequence):
            inner = [argument for argument in get_args(member) if argument is not Ellipsis]
            annotation = inner[min(int(part), len(inner) - 1)] if inner and isinstance(part, int) else None
        elif get_origin(member) in (dict, Mapping):
            annotation = get_args(member)[1]
        else:
            annotation = None
    return tuple(path), parent


def _unknown(model: type[BaseModel], parent: type[BaseModel] | None, name: str) -> Text:
    siblings = list(parent.model_fields) if parent is not None else []
    elsewhere = [key for key in dict.fromkeys(keys(model)) if key.rpartition(".")[2] == name]
    if elsewhere:
        return msg("There is no such setting here. Did you mean {nearest}?", nearest=", ".join(elsewhere[:3]))
    nearest = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    if nearest:
        return msg("There is no such setting. Did you mean {nearest}?", nearest=nearest[0])
    return msg("There is no such setting. Known here: {known}.", known=", ".join(siblings) or "-")


def _sentence(kind: str, detail: str, context: Mapping[str, Any], given: Any) -> Text:
    shown = _shown(given)
    match kind:
        case "missing":
            return msg("This setting is needed.")
        case "union_tag_invalid":
            tag, known = str(context["tag"]), str(context["expected_tags"]).replace("'", "")
            nearest = difflib.get_close_matches(tag, known.split(", "), n=1, cutoff=0.5)
            if nearest:
                return msg(
                    "There is no kind {given}. Did you mean {nearest}? Known: {known}.", given=tag, nearest=nearest[0], known=known
                )
            return msg("There is no kind {given}. Known: {known}.", given=tag, known=known)
        case "union_tag_not_found":
            return msg("This setting is needed.")
        case "literal_error" | "enum":
            known = str(context["expected"]).replace("'", "").replace(" or ", ", ")
            return msg("{given} is not one of {known}.", given=shown, known=known)
        case "string_type":
            return msg("Text is expected, not {given}. Numbers and yes/no words that are meant as text need quotes.", given=shown)
        case "string_pattern_mismatch":
            return msg("{given} does not follow the pattern {pattern}.", given=shown, pattern=str(context["pattern"]))
        case "int_parsing" | "int_type" | "int_from_float":
            return msg("A whole number is expected, not {given}.", given=shown)
        case "float_parsing" | "float_type" | "finite_number":
            return msg("A number is expected, not {given}.", given=shown)
        case "bool_parsing" | "bool_type":
            return msg("true or false is expected, not {given}.", given=shown)
        case "path_type":
            return msg("A path is expected, not {given}.", given=shown)
        case "tuple_type" | "list_type":
            return msg("A list is expected, not {given}.", given=shown)
        case "dict_type" | "model_type" | "model_attributes_type":
            return msg("A group of settings (key: value) is expected, not {given}.", given=shown)
        case "greater_than":
            return msg("{given} must be greater than {limit}.", given=shown, limit=_plain(context["gt"]))
        case "greater_than_equal":
            return msg("{given} must be at least {limit}.", given=shown, limit=_plain(context["ge"]))
        case "less_than":
            return msg("{given} must be less than {limit}.", given=shown, limit=_plain(context["lt"]))
        case "less_than_equal":
            return msg("{given} must be at most {limit}.", given=shown, limit=_plain(context["le"]))
        case "too_short":
            return msg("{limit} or more entries are needed.", limit=context["min_length"])
        case "value_error" | "assertion_error":
            cause = context.get("error")
            # A room's own validator: ValueError(msg(...)) keeps its translation, a plain ValueError its words.
            if isinstance(cause, Exception) and cause.args and isinstance(cause.args[0], Text):
                return cause.args[0]
            return msg("{detail}", detail=str(cause if cause is not None else detail))
        case _:
            return msg("{detail}", detail=detail)


def _plain(limit: Any) -> Any:
    """0 for 0.0: a limit as a person would write it."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}..."
