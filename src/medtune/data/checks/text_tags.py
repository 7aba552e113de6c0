"""What the text says the picture is, against what the tags say: modality and organ.

Published sets pair pictures with another picture's caption (MedTrinity's issues 27 and 32: breast MRI captioned as brain). A DICOM
header or a source's own column knows the modality; a caption that names another one belongs elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from medtune.data.checks.check import Check, Place
from medtune.data.checks.found import Found
from medtune.language import Text, msg
from medtune.types import Sample

__all__ = ["Tags", "look", "modalities_named", "organs_named"]

_MODALITY_WORDS = {
    "CT": r"\b(?:C\.?T\.?A?|computed tomograph\w+)\b|CT(?=[平增图扫检血])|计算机断层",
    "MR": r"\b(?:MRI?|MRA|magnetic resonance|FLAIR|T[12][- ]?weighted)\b|磁共振|核磁|MR(?=[图扫检])",
    "radiograph": r"\b(?:x-?rays?|radiographs?|roentgenogram\w*|plain films?)\b|X线|X光|平片|胸片",
    "US": r"\b(?:ultraso\w+|sonogra\w+|echocardiogra\w+)\b|超声|B超|彩超",
    "MG": r"\b(?:mammogra\w+)\b|钼靶",
    "PT": r"\b(?:PET|positron emission)\b|正电子",
}
_MODALITY_TAGS = {
    "CT": "CT", "MR": "MR", "MRI": "MR", "DX": "radiograph", "CR": "radiograph", "RG": "radiograph", "XR": "radiograph", "US": "US",
    "X-RAY": "radiograph", "XRAY": "radiograph", "MG": "MG", "PT": "PT", "PET": "PT", "ULTRASOUND": "US",
}  # fmt: skip
"""Codes of DICOM PS3.3, C.7.3.1.1.1, and what data sets write instead, by the group of words that names them."""

_ORGAN_WORDS = {
    "head": r"\b(?:brain|head|skull|cranial|intracranial|cerebr\w+|cerebell\w+|ventricles?|neuro\w*)\b|脑|颅|头",
    "chest": r"\b(?:chest|lungs?|thora\w+|pulmonary|pleura\w*|heart|cardiac|mediastin\w+)\b|胸|肺|心脏|纵隔",
    "abdomen": r"\b(?:abd(?:omen|ominal)?|liver|hepatic|kidneys?|renal|spleen|pancrea\w+|bowel|gallbladder)\b|腹|肝|肾|脾|胰|胃",
    "breast": r"\b(?:breasts?|mammary)\b|乳腺|乳房",
    "pelvis": r"\b(?:pelvi[cs]|uter\w+|ovar\w+|prostate|bladder)\b|盆腔|骨盆|子宫|卵巢|前列腺|膀胱",
    "spine": r"\b(?:spine|spinal|vertebra\w*|lumbar|cervical)\b|脊柱|椎",
}
_CLAUSE = re.compile(r"[,;:，、；：。]|[.!?]\s|\bbut\b")
_OTHER = re.compile(
    r"\b(?:no|not|without|prior|previous|earlier|compared|recommend\w*|suggest\w*|further|follow-?up)\b(?:\W+\w+){0,4}\W*$"
    r"|(?:不是|并非|无|建议|对比|既往|进一步)[^，。]{0,12}$",
    re.IGNORECASE,
)
"""Before the name of a modality: denied, made earlier, or to be made."""
_CAPTION = 40
"""Characters from which an answer is a description, which names what it describes in its first sentence."""
_FIRST_SENTENCE = re.compile(r"^.*?(?:[。！？]|[.!?](?=\s|$)|$)", re.DOTALL)


@cache
def _in_one(groups: tuple[tuple[str, str], ...], capitals: tuple[str, ...] = ()) -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{name}>{words if name in capitals else f'(?i:{words})'})" for name, words in groups))


def modalities_named(text: str) -> set[str]:
    """Groups of modalities (``CT``, ``MR``, ``radiograph``, ``US``, ``MG``, ``PT``) that a text names as its picture's own.

    Denied, earlier and recommended examinations are other pictures: they do not count.
    """
    found = set()
    # "CT" and "MR" are capitals: "ct" may be a count, and "Mr" is a person.
    for match in _in_one(tuple(_MODALITY_WORDS.items()), ("CT", "MR")).finditer(text):
        if not _OTHER.search(_CLAUSE.split(text[max(0, match.start() - 80) : match.start()])[-1]):
            found.add(str(match.lastgroup))
    # PET/CT and PET/MR are both.
    return {"hybrid"} if "PT" in found and found & {"CT", "MR"} else found


def organs_named(text: str) -> set[str]:
    """Body regions that a text names: ``head``, ``chest``, ``abdomen``, ``breast``, ``pelvis``, ``spine``."""
    return {str(match.lastgroup) for match in _in_one(tuple(_ORGAN_WORDS.items())).finditer(text)}


class Tags(Check):
    """Texts against tags. Keeps nothing of a row."""

    names = ("tags",)

    def row(self, sample: Sample, place: Place) -> None:
        for found in look(sample):
            self.findings.add(*found, split=place.split, sample=sample.id, file=str(place))


def look(sample: Sample) -> Iterator[Found]:
    """Findings about a row: what its answer names against ``tags_modality``, the picture's modality, and ``organ``."""
    tags = {
        "DICOM": sample.metadata.get("tags_modality"),
        "images.jsonl": next((image.modality for image in sample.images if image.modality), None),
        "metadata": sample.metadata.get("modality"),
    }
    groups = {
        place: (str(tag), _MODALITY_TAGS[str(tag).strip().upper()])
        for place, tag in tags.items()
        if str(tag).strip().upper() in _MODALITY_TAGS
    }
    if len({group for _, group in groups.values()}) > 1:
        yield Found(
            "tags-differ",
            "warning",
            msg(
                "The tags name different modalities: {tags}.",
                tags=", ".join(f"{place} {tag}" for place, (tag, _) in groups.items()),
            ),
            msg("Correct the modality in the source; the header of the file is the better witness."),
        )
    named = modalities_named(sample.target)
    if groups and len(named) == 1 and "hybrid" not in named:
        place, (tag, group) = next(iter(groups.items()))
        if group not in named:
            yield Found(
                "text-modality",
                "warning",
                msg("The text says {said}, the tag ({place}) says {tag}.", said=next(iter(named)), place=place, tag=tag),
                _elsewhere(),
            )
    tagged = organs_named(str(sample.metadata.get("organ") or ""))
    if len(tagged) != 1 or len(sample.target) < _CAPTION or tagged & organs_named(sample.target):
        return
    said = organs_named((_FIRST_SENTENCE.match(sample.target) or [""])[0])
    if said:
        yield Found(
            "text-organ",
            "warning",
            msg("The text speaks of {said}, the tag says {tag}.", said=", ".join(sorted(said)), tag=str(sample.metadata["organ"])),
            _elsewhere(),
        )


def _elsewhere() -> Text:
    return msg("Look at the picture: the text may belong to another one. Correct the record, or leave it out.")
