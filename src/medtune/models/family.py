"""A model family as data: how it is recognised and loaded, what its parts are called, how it writes boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medtune.errors import ModelError
from medtune.language import msg
from medtune.models.config import Scope
from medtune.plugins import names, resolve

BoxConvention = Literal["relative-1000", "pixels", "none"]


@dataclass(frozen=True, slots=True)
class Family:
    """What differs from one family to another.

    Attributes:
        name: As registered.
        model_types: Values of ``model_type`` in ``config.json`` that it answers to; empty for ``auto``.
        auto_class: Class of transformers that loads it.
        scopes: Part -> regular expression, matched from the start of a parameter's or module's full name. The first part
            that matches owns the name.
        box_convention: How its base model was taught to write boxes.
        pictures: ``none``, ``patches`` (Qwen-VL's grid of merged patches) or ``processor`` (the model's own processor
            counts the tokens).
        image_token: Stands once in the rendered chat template for each picture; None where the model reads no pictures.
        template_options: Given to the chat template.
        notes: Known differences, for the documentation.
    """

    name: str
    model_types: tuple[str, ...]
    auto_class: Literal["AutoModelForImageTextToText", "AutoModelForCausalLM"]
    scopes: Mapping[Scope, str]
    box_convention: BoxConvention
    pictures: Literal["none", "patches", "processor"]
    image_token: str | None
    template_options: Mapping[str, bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def scope_of(self, name: str) -> Scope | None:
        """The part of the model that a module or parameter belongs to, None for what no part claims."""
        for scope, pattern in self.scopes.items():
            if re.match(pattern, name):
                return scope
        return None


def find_family(config: Mapping[str, Any], wanted: str | None) -> Family:
    """The family named in the recipe, or the one that answers to the model's ``model_type``, or ``auto``.

    Raises:
        ModelError: The named family does not answer to this model.
    """
    model_type = str(config.get("model_type", ""))
    if wanted is not None:
        family: Family = resolve("family", wanted)
        if family.model_types and model_type not in family.model_types:
            raise ModelError(
                msg(
                    "The model is of type {model_type}, which the family {family} does not read.",
                    model_type=model_type,
                    family=wanted,
                ),
                key="model.family",
                remedy=msg("Leave model.family out: it is found from the model's config.json."),
            )
        return family
    for name in names("family"):
        family = resolve("family", name)
        if model_type in family.model_types:
            return family
    return resolve("family", "auto")  # type: ignore[no-any-return]
