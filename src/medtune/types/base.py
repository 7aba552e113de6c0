"""What the other nouns stand on: the bases of settings and documents, and two constants."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

IMAGE_MARK = "<image>"
"""Stands in a message where a picture belongs. The same mark as LLaMA-Factory's."""

IGNORE_INDEX = -100
"""The label of a token that carries no loss (PyTorch's ``cross_entropy`` default)."""


class Settings(BaseModel):
    """Base of every recipe section: frozen, unknown keys refused, a docstring under each field is its description.

    Not pydantic-strict on purpose: PyYAML reads ``2e-4`` as a string, and lax mode turns it into the number meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Document(BaseModel):
    """Base of everything medtune writes to disk: frozen; an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
