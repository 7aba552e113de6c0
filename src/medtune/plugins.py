"""From a name to an object, lazily: a literal table of built-ins, entry points, or ``package.module:object``.

Nothing is imported before it is asked for, and nothing registers itself. Third parties add names through the entry-point
groups ``medtune.source``, ``medtune.task``, ``medtune.transform``, ``medtune.family``, ``medtune.metric``,
``medtune.generator`` and ``medtune.retriever``.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from importlib import metadata
from typing import Any, Literal

from medtune.errors import PluginError
from medtune.language import msg

__all__ = ["BUILT_IN", "Kind", "names", "resolve", "resolve_stored"]

Kind = Literal["source", "task", "transform", "family", "metric", "generator", "retriever"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "source": {
        "phantom": "medtune.data.sources.phantom:Phantom",
        "phantom-general": "medtune.data.sources.phantom:PhantomGeneral",
        "vqa-rad": "medtune.data.sources.vqa_rad:VqaRad",
        "slake": "medtune.data.sources.slake:Slake",
        "path-vqa": "medtune.data.sources.path_vqa:PathVqa",
        "medtrinity": "medtune.data.sources.medtrinity:MedTrinity",
        "medtrinity-brain": "medtune.data.sources.medtrinity_brain:MedTrinityBrain",
        "nifti": "medtune.data.sources.nifti:Nifti",
        "alpaca": "medtune.data.sources.alpaca:Alpaca",
        "llamafactory": "medtune.data.sources.llamafactory:LlamaFactory",
        "dicom": "medtune.data.sources.dicom:Dicom",
        "sharegpt": "medtune.data.sources.chats:ShareGpt",
        "openai": "medtune.data.sources.chats:OpenAiChat",
        "table": "medtune.data.sources.table:Table",
        "csv": "medtune.data.sources.table:Csv",
        "webdataset": "medtune.data.sources.webdataset:WebDataset",
        "iu-xray": "medtune.data.sources.iu_xray:IuXray",
        "mimic-cxr-jpg": "medtune.data.sources.mimic_cxr:MimicCxrJpg",
    },
    "task": {
        "caption": "medtune.tasks.caption:Caption",
        "caption-details": "medtune.tasks.caption:CaptionDetails",
        "report": "medtune.tasks.report:ReportTask",
        "region": "medtune.tasks.region:Region",
        "region-description": "medtune.tasks.region:RegionDescription",
        "detection": "medtune.tasks.detection:Detection",
        "json-record": "medtune.tasks.json_record:JsonRecord",
        "closed-vqa": "medtune.tasks.vqa:ClosedVqa",
        "open-vqa": "medtune.tasks.vqa:OpenVqa",
        "text-qa": "medtune.tasks.text_qa:TextQa",
        "conversation": "medtune.tasks.conversation:Conversation",
    },
    "transform": {
        "letterbox": "medtune.imaging.transforms:Letterbox",
        "clahe": "medtune.imaging.transforms:Clahe",
        "limit-pixels": "medtune.imaging.transforms:LimitPixels",
    },
    "family": {
        "qwen2-vl": "medtune.models.qwen_vl:QWEN2_VL",
        "qwen2.5-vl": "medtune.models.qwen_vl:QWEN2_5_VL",
        "qwen3-vl": "medtune.models.qwen_vl:QWEN3_VL",
        "qwen3-vl-moe": "medtune.models.qwen_vl:QWEN3_VL_MOE",
        "qwen3": "medtune.models.qwen_text:QWEN3",
        "auto": "medtune.models.auto:AUTO",
    },
    "metric": {
        "llamafactory": "medtune.evaluation.metrics.llamafactory:LlamaFactoryMetric",
        "bleu": "medtune.evaluation.metrics.text:CorpusBleu",
        "chrf": "medtune.evaluation.metrics.text:ChrF",
        "rouge": "medtune.evaluation.metrics.text:Rouge",
        "closed": "medtune.evaluation.metrics.vqa:ClosedAccuracy",
        "open": "medtune.evaluation.metrics.vqa:OpenAnswer",
        "calibration": "medtune.evaluation.metrics.calibration:Calibration",
        "semantic": "medtune.evaluation.metrics.semantic:SemanticSimilarity",
        "radgraph": "medtune.evaluation.metrics.radeval:RadGraph",
        "chexbert": "medtune.evaluation.metrics.radeval:CheXbert",
        "radbert-ct": "medtune.evaluation.metrics.radeval:RadBertCt",
        "green": "medtune.evaluation.metrics.radeval:Green",
        "ratescore": "medtune.evaluation.metrics.radeval:RaTEScore",
        "srrbert": "medtune.evaluation.metrics.radeval:SrrBert",
        "strict": "medtune.evaluation.metrics.protocols:Strict",
        "llava-med-v1": "medtune.evaluation.metrics.protocols:LlavaMedV1",
        "medevalkit-nojudge": "medtune.evaluation.metrics.protocols:MedEvalKitNoJudge",
        "choice": "medtune.evaluation.metrics.vqa:ChoiceLetter",
        "region": "medtune.evaluation.metrics.region:RegionError",
        "findings": "medtune.evaluation.metrics.findings:ReportFindings",
        "measurements": "medtune.evaluation.metrics.measurements:Measurements",
        "sections": "medtune.evaluation.metrics.sections:ReportSections",
        "terminology": "medtune.evaluation.metrics.terminology:Terminology",
        "modality-organ": "medtune.evaluation.metrics.modality_organ:ModalityOrgan",
        "box": "medtune.evaluation.metrics.box:BoxOverlap",
        "json-record": "medtune.evaluation.metrics.json_record:JsonRecordValidity",
    },
    "generator": {
        "hf": "medtune.generation.hf:HfGenerator",
        "vllm": "medtune.generation.vllm:VllmGenerator",
        "openai": "medtune.generation.openai:OpenAiGenerator",
        "echo": "medtune.generation.echo:EchoGenerator",
    },
    "retriever": {},
}


def names(kind: Kind) -> list[str]:
    """All names known for ``kind``: the built-in ones in their order, then those of installed entry points."""
    known = dict.fromkeys(BUILT_IN[kind])
    known.update(dict.fromkeys(point.name for point in metadata.entry_points(group=f"medtune.{kind}")))
    return list(known)


def resolve(kind: Kind, name: str) -> Any:
    """The object that ``name`` stands for.

    Raises:
        PluginError: The name is unknown (the nearest known name is given), or its module cannot be imported.
    """
    target = BUILT_IN[kind].get(name)
    if target is None and ":" in name:
        target = name
    if target is None:
        for point in metadata.entry_points(group=f"medtune.{kind}"):
            if point.name == name:
                target = point.value
    if target is None:
        known = names(kind)
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        if nearest:
            remedy = msg("Did you mean {nearest}? Known: {known}.", nearest=nearest[0], known=", ".join(known))
        else:
            remedy = msg("Known: {known}.", known=", ".join(known) or "-")
        raise PluginError(msg("There is no {kind} named {name!r}.", kind=kind, name=name), remedy=remedy)
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            msg(
                "The {kind} {name!r} cannot be loaded from {target}: {error}", kind=kind, name=name, target=target, error=str(error)
            )
        ) from error
    return found


def resolve_stored(kind: Kind, name: str) -> Any:
    """The object that a name stands for that was read from a data set, an adapter or a report.

    Such files come from other people, and ``package.module:object`` would run any module that Python can find, the one that
    came with the files among them. So it stands for code that is loaded already: because the recipe names it, or because the
    caller has imported it.

    Raises:
        PluginError: As :func:`resolve`; or the module has not been imported.
    """
    module, colon, _ = name.partition(":")
    if colon and name not in BUILT_IN[kind] and module not in sys.modules:
        raise PluginError(
            msg("The {kind} {name!r} is code that the files bring into play and the recipe does not name.", kind=kind, name=name),
            remedy=msg("If you trust it, name it in the recipe, or `import {module}` before.", module=module),
        )
    return resolve(kind, name)
