"""Rows that are longer than what training or the model takes."""

from __future__ import annotations

from collections.abc import Mapping

from medtune.data.checks.check import Check, Context, Place
from medtune.errors import MedtuneError
from medtune.language import Text, msg
from medtune.types import Sample, Severity

__all__ = ["RowLength"]


class RowLength(Check):
    """Rows are counted in the model's own tokens, the pictures by their sizes in the index. Keeps nothing."""

    names = ("row-length",)
    codes = frozenset({"row-too-long", "not-encodable"})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        limits = context.limits
        measured = limits.max_tokens is not None or limits.context is not None
        self._count = limits.count_tokens if measured else None

    def row(self, sample: Sample, place: Place) -> None:
        limits = self.context.limits
        # Rows of test are asked, not trained on: the model's context is all that limits them.
        able = (limits.context,) if place.split == "test" else (limits.context, limits.max_tokens)
        limit = min((tokens for tokens in able if tokens is not None), default=None)
        if self._count is None or limit is None:
            return

        def found(code: str, severity: Severity, message: Text, remedy: Text | None) -> None:
            self.findings.add(code, severity, message, remedy, split=place.split, sample=sample.id, file=str(place))

        try:
            tokens = self._count(sample)
        except MedtuneError as error:
            found("not-encodable", "error", error.what, error.remedy)
            return
        if tokens <= limit:
            return
        message = msg("The row has {tokens} tokens; {max_tokens} fit.", tokens=tokens, max_tokens=limit)
        if place.split != "test" and limits.too_long == "leave-out":
            remedy = msg("Training leaves it out and lists it in left_out.jsonl of the run, because of train.too_long=leave-out.")
            found("row-too-long", "warning", message, remedy)
        elif limit == limits.context:
            remedy = msg("This is all that the model can read: lower model.max_pixels, or leave the row out.")
            found("row-too-long", "error", message, remedy)
        else:
            remedy = msg(
                "Lower model.max_pixels, raise train.max_tokens, leave such rows out (train.too_long=leave-out), "
                "or shorten them in the source. Rows are never cut in silence."
            )
            found("row-too-long", "error", message, remedy)

    def conclude(self) -> Mapping[str, Text]:
        return {"row-length": msg("No model was given, so the rows were not measured.")} if self._count is None else {}
