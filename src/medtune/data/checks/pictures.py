"""Pictures that are missing, damaged, changed, unused, or all of one grey."""

from __future__ import annotations

from collections.abc import Mapping

from medtune.data.checks.check import Check, Context, PictureFacts, PictureUse
from medtune.data.checks.prints import BLANK
from medtune.language import Text, msg

__all__ = ["Pictures"]


class Pictures(Check):
    """Every picture is decoded; that its bytes are those of the index is not taken as proof that it can be."""

    names = ("pictures",)
    needs = frozenset({"fingerprint"})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._unused = 0

    def picture(self, facts: PictureFacts, use: PictureUse) -> None:
        if use.row is None:
            self._unused += 1
        message: Text | None = None
        if facts.fault is not None:
            code, message, remedy = facts.fault.reason, facts.fault.message, facts.fault.remedy
        elif not facts.intact:
            code, remedy = "image-changed", msg("Prepare the data set again.")
            message = msg("The picture is not the one that was stored: its hash differs.")
        elif facts.measured["fingerprint"]["spread"] < BLANK:
            code, remedy = "image-blank", msg("Look at it; leave its rows out if there is nothing to see.")
            message = msg("The picture has one grey all over.")
        if message is not None:
            self.findings.add(
                code,
                "warning" if code == "image-blank" else "error",
                message,
                remedy,
                split=use.splits[0] if use.splits else None,
                sample=None if use.row is None else self.context.rows.id(use.row),
                file=str(self.context.dataset.folder / facts.ref.path),
            )

    def conclude(self) -> Mapping[str, Text]:
        if self._unused:
            self.findings.add(
                "image-unused", "info", msg("{count} pictures belong to no row.", count=self._unused), count=self._unused
            )
        return {}
