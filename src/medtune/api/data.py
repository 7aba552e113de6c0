"""The verbs of data: prepare, validate, export, de-identify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medtune import assembly
from medtune.api.given import RecipeLike, is_data, recipe_of
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Event, Listener, Sample, ValidationReport

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset
    from medtune.data.export.export import Exported
    from medtune.imaging.deidentify.run import Deidentified
    from medtune.imaging.deidentify.settings import DeidentifySettings


def prepare(
    recipe: RecipeLike, overrides: Sequence[str] = (), *, overwrite: bool = False, listener: Listener | None = None
) -> Dataset:
    """Make the data set of a recipe; one that was made with the same settings is used again.

    Args:
        overwrite: Make it anew where the folder exists.

    Raises:
        DataError: The folder holds a data set made with other settings, or a source cannot be read.
    """
    return assembly.make_dataset(recipe_of(recipe, overrides), listener, overwrite=overwrite)


def export_dataset(
    folder: str | Path, out: str | Path, *, to: str, max_shard_bytes: int | None = None, listener: Listener | None = None
) -> Exported:
    """Write a data set folder in another form, into a new folder of this machine.

    Args:
        to: ``llamafactory``, ``webdataset`` or ``parquet``.
        max_shard_bytes: Of a tar or Parquet file; 1 GB when left out.

    Raises:
        DataError: ``folder`` is not a data set, ``out`` is in use, the form is unknown, or a picture has changed.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.export.export import EXPORT_FORMATS, MAX_SHARD_BYTES
    from medtune.data.export.export import export_dataset as export

    form = next((known for known in EXPORT_FORMATS if known == to), None)
    if form is None:
        raise DataError(
            msg("Data sets are not written as {form!r}.", form=to), remedy=msg("Known: {known}.", known=", ".join(EXPORT_FORMATS))
        )
    dataset = Dataset.open(Path(folder))
    return export(dataset, Path(out), form, max_shard_bytes=max_shard_bytes or MAX_SHARD_BYTES, listener=listener)


def validate(
    target: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    html: Path | bool = False,
    ocr: bool = False,
    fix: Path | None = None,
    fix_terms: bool = False,
    listener: Listener | None = None,
) -> ValidationReport:
    """Check a data set and list every finding; what was found is kept in its ``validation.json``, which ``train`` reads.

    Args:
        target: The folder of a data set; or a recipe, whose data set is made first when it is missing, and whose model says
            how many tokens each row takes (its configuration is read, its weights are not).
        html: Write the findings as a page to browse; True = ``validation.html`` in the data set folder, if that can be written.
        ocr: Look for text in the pictures too (extra ``ocr``); takes long.
        fix: Write a cleaned copy of the data set here, with ``fixes.jsonl``; no folder appears where there is nothing to do.
        fix_terms: Replace phrases that have one standard term in that copy.

    Raises:
        DataError: The folder is not a data set, or ``fix`` exists already.
        MissingDependencyError: ``ocr`` without its packages.
    """
    from medtune.data.dataset import Dataset
    from medtune.data.fix import Faults, check_target
    from medtune.data.validate import validate as check
    from medtune.data.validation_file import keep

    faults: list[Faults] = []
    extra = (lambda context: Faults(context, into=faults),) if fix is not None else ()
    if isinstance(target, (str, Path)) and is_data(Path(target)):
        dataset = Dataset.open(Path(target))
        if fix is not None:
            check_target(dataset, fix)
        report = check(dataset, ocr=ocr, extra=extra, listener=listener)
        keep(dataset, report)
        assembly.show_findings(dataset, report, faults, html=html, fix=fix, fix_terms=fix_terms, listener=listener)
        return report
    if isinstance(target, (str, Path)) and len(Path(target).parts) > 1 and not Path(target).exists():
        what = msg("There is neither a data set nor a recipe in this place.")
        raise DataError(what, file=Path(target), remedy=msg("`medtune prepare RECIPE` makes a data set."))
    from medtune.models.encoder import load_encoder

    loaded = recipe_of(target, overrides)
    encoder = load_encoder(loaded.model)  # cheap, so its faults come first
    dataset = assembly.make_dataset(loaded, listener)
    if fix is not None:
        check_target(dataset, fix)

    def count_tokens(sample: Sample) -> int:
        return encoder.count_tokens(sample.messages, [(image.width, image.height) for image in sample.images], sample_id=sample.id)

    assembly.say(listener, Event("phase", msg("Checking the data set")))
    report = check(
        dataset,
        count_tokens=count_tokens,
        max_tokens=loaded.train.max_tokens,
        context=encoder.max_tokens,
        too_long=loaded.train.too_long,
        faulty_records=loaded.data.faulty_records,
        limits=loaded.data.limits,
        num_workers=loaded.data.num_workers,
        ocr=ocr,
        extra=extra,
        listener=listener,
    )
    keep(dataset, report, faulty_records=loaded.data.faulty_records, limits=loaded.data.limits)
    assembly.show_findings(dataset, report, faults, html=html, fix=fix, fix_terms=fix_terms, listener=listener)
    return report


def deidentify(
    source: str | Path,
    target: str | Path,
    *,
    settings: DeidentifySettings | None = None,
    key_file: Path | None = None,
    num_workers: int = 1,
    listener: Listener | None = None,
) -> Deidentified:
    """De-identify a DICOM file or a folder of them (PS3.15, Annex E) into another folder; see docs/deidentify.md.

    Args:
        source: Only read.
        target: New, or of an earlier call with the same key and settings, which goes on.
        settings: What is kept, and how hard text in pixels is looked for.
        key_file: Of the pseudonyms; by default ``pseudonym.key`` in the user's configuration folder, made when it is missing.
        num_workers: Processes.

    Raises:
        DataError: There is no ``source``; one of source, target and key lies in another; ``target`` holds something else, or
            was made with another key or other settings.
        RunError: Another process works on ``target``, or nothing can be written there.
    """
    from medtune.imaging.deidentify.run import deidentify as run

    return run(
        Path(source).expanduser(),
        Path(target).expanduser(),
        settings=settings,
        key_file=key_file,
        num_workers=num_workers,
        listener=listener,
    )
