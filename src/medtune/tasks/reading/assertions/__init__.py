"""Findings in reports, with negation, uncertainty and side, from tables of phrases and without any model."""

from medtune.tasks.reading.assertions.scope import Assertion, Assertions, Side, Status, read_assertions
from medtune.tasks.reading.assertions.vocabulary import Coverage, Finding, coverage, findings

__all__ = ["Assertion", "Assertions", "Coverage", "Finding", "Side", "Status", "coverage", "findings", "read_assertions"]
