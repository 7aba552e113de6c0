"""The rows of a data set with their pictures' bytes, one after the other."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medtune.data.dataset import Dataset, write_row
from medtune.errors import DataError, system_reason
from medtune.language import msg
from medtune.types import ImageRef, Sample, SplitName

__all__ = ["Rows", "row_of"]


class Rows:
    """Reads a data set for a writer. ``written`` counts the rows that :meth:`of` gave out, by split; ``tell`` hears of each."""

    def __init__(self, dataset: Dataset, tell: Callable[[str, int], None]) -> None:
        self.name = dataset.manifest.name
        self.splits: tuple[SplitName, ...] = dataset.splits
        self.written: Counter[str] = Counter()
        self._dataset = dataset
        self._tell = tell

    def of(self, split: SplitName) -> Iterator[Sample]:
        """The samples of a split, in file order.

        Raises:
            DataError: A row cannot be used; file, line and sample are named.
        """
        for sample in self._dataset.rows(split):
            self.written[split] += 1
            self._tell(split, self.written[split])
            yield sample

    def again(self, split: SplitName) -> Iterator[Sample]:
        """The same once more, not counted."""
        return self._dataset.rows(split)

    def picture(self, ref: ImageRef, sample: Sample) -> bytes:
        """The encoded bytes of a picture.

        Raises:
            DataError: It is missing, or has changed since the data set was made.
        """
        stored = self._dataset.picture(ref)
        try:
            content = stored.read_bytes() if isinstance(stored, Path) else stored
        except OSError as error:
            raise DataError(
                msg("The picture cannot be read: {error}", error=str(system_reason(error))),
                file=self._dataset.image_path(ref),
                sample=sample.id,
                remedy=msg("Prepare the data set again."),
            ) from error
        if hashlib.sha256(content).hexdigest() != ref.sha256:
            raise DataError(
                msg("The picture {path} is not the one that was prepared: its sha256 is another.", path=ref.path),
                file=self._dataset.image_path(ref),
                sample=sample.id,
                remedy=msg("Prepare the data set again."),
            )
        return content


def row_of(sample: Sample) -> dict[str, Any]:
    """The row as the split file has it: ``metadata`` is JSON text, ``images`` are paths."""
    row: dict[str, Any] = json.loads(write_row(sample))
    return row
