"""The ``data`` section of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from medtune.imaging.config import Limits
from medtune.language import msg
from medtune.types import Settings

__all__ = ["DataSettings", "Fractions", "SourceSettings", "SplitSettings", "TransformSettings"]

Name = Annotated[str, Field(min_length=1)]


class SourceSettings(Settings):
    """One source of records."""

    source: Name
    """Registered name of the source, or `package.module:Class`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """The source's own options, e.g. `path`. Relative paths start at the current directory."""
    task: Name | None = None
    """Ask every record of this source as this task, instead of the task that the source names."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Read this many records from the head of the source, those included that are left out later; all when left out."""


class Fractions(Settings):
    """Shares of the groups; they add up to 1."""

    train: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    """Share of the groups that train the model."""
    validation: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the groups that choose the checkpoint."""
    test: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the groups that are touched once, at the end."""

    @model_validator(mode="after")
    def _whole(self) -> Fractions:
        if abs(self.train + self.validation + self.test - 1.0) > 1e-6:
            raise ValueError(msg("train, validation and test must add up to 1."))
        return self


class SplitSettings(Settings):
    """How records are shared out. A group (a patient, where the source knows patients) is never cut by `group-hash`."""

    kind: Literal["group-hash", "official"] = "group-hash"
    """`group-hash`: by a hash of seed and group, so that a group keeps its place when rows are added. `official`: as the
    source assigns; `validate` says which groups and pictures the official splits share. Where an official split names no
    validation rows, `fractions.validation` of its training groups become validation, by the same hash."""
    fractions: Fractions = Fractions()
    """Shares of the groups, for the parts that are drawn by hash."""
    seed: int = 0
    """Another seed is another draw."""
    assigned: Path | None = None
    """A CSV file with the columns `group` and `split`: groups that it names go where it says, the others are drawn. The
    `groups.csv` of an earlier data set keeps every group of it in its place. Only for `group-hash`."""
    fill_strata: bool = True
    """Move the fewest groups possible, so that each task and modality with groups enough has some in every split."""

    @model_validator(mode="after")
    def _list_is_used(self) -> SplitSettings:
        if self.assigned is not None and self.kind == "official":
            raise ValueError(msg("split.assigned is only for kind: group-hash."))
        return self


class TransformSettings(Settings):
    """One picture transform."""

    transform: Name
    """Registered name of the transform, or `package.module:Class`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Its parameters."""


class DataSettings(Settings):
    """Which records become the data set, how they are split, and what is done to their pictures."""

    folder: Path | None = None
    """Where the data set is kept; `datasets/<recipe name>` when left out."""
    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    """One or more sources; their rows are mixed in this order."""
    split: SplitSettings = SplitSettings()
    """How the groups are shared out."""
    transforms: tuple[TransformSettings, ...] = ()
    """Applied to every picture, in this order, before it is stored. Boxes move along."""
    task_options: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    """Options of a task by its name, e.g. another instruction; see the task."""
    limits: Limits = Limits()
    """What a picture file may be at most."""
    faulty_records: Literal["error", "leave-out"] = "error"
    """What training does about records whose picture is missing or damaged, whose image marks are wrong or whose answer is
    empty. They become no rows and are listed in `left_out.jsonl` in either case; `leave-out` goes on without them."""
    storage: Literal["files", "shards"] = "files"
    """`files`: a file for each picture, which other tools (LLaMA-Factory) read as well. `shards`: the pictures of about five
    hundred rows in one tar file each, for sets of which a file system would not like so many files."""
    local_only: bool = False
    """Nothing made from this data set may leave this machine: no remote generator, tracker or hub. Sources whose licence asks for
    it set it by themselves."""
    num_workers: Annotated[int, Field(ge=1, le=256)] = 4
    """Processes that read and store pictures. The result does not depend on it."""
    engine: Literal["local", "ray"] = "local"
    """`ray`: the shards are made by a Ray cluster (`pip install 'medtune[ray]'`), which must see the same files under the same
    paths. The result does not depend on it."""
