"""Findings and densities by name, in radiologists' and in everyday words."""

from __future__ import annotations

import re

from medtune.tasks.reading.named import first_named

__all__ = ["canonical_finding", "is_kind_of", "read_density", "read_finding"]

_BLOOD = r"(?:ha?emorrhag\w*|ha?ematomas?|bleed\w*|blood(?!\s+vessel)|collection)"

_PATTERNS: dict[str, str] = {
    "subdural hematoma": rf"sub-?dural(?:\s+\w+)?\s+{_BLOOD}|硬膜下(?:血肿|出血)",
    "epidural hematoma": rf"(?:epi|extra)-?dural(?:\s+\w+)?\s+{_BLOOD}|硬膜外(?:血肿|出血)",
    "subarachnoid hemorrhage": rf"subarachnoid(?:\s+\w+)?\s+{_BLOOD}|蛛网膜下腔出血",
    "intraventricular hemorrhage": rf"intra-?ventricular(?:\s+\w+)?\s+{_BLOOD}|脑室(?:内)?出血",
    "intracerebral hemorrhage": (
        rf"(?:intra-?(?:cerebral|parenchymal|axial)|cerebral|brain|parenchymal)\s+{_BLOOD}|ha?emorrhagic\s+stroke"
        r"|脑出血|脑(?:实质)?内(?:出血|血肿)|脑实质出血"
    ),
    "hemorrhage": r"ha?emorrhag\w*|ha?ematomas?|bleed\w*|blood\s+(?:clot|collection)|出血|血肿",
    "infarct": r"(?:ischa?emic\s+)?infarct\w*|(?:ischa?emic\s+)?stroke|ischa?emi\w+|梗死|梗塞|缺血|脑卒中",
    "arachnoid cyst": r"arachnoid(?:al)?\s+cysts?|蛛网膜囊肿",
    "cyst": r"cyst(?:s|ic)?|囊肿|囊性",
    "meningioma": r"meningiomas?|脑膜瘤",
    "glioma": r"(?:oligodendro|astro)?gliomas?|glioblastomas?|astrocytomas?|胶质瘤",
    "metastasis": r"metasta\w+|转移",
    "tumor": r"tumou?rs?|neoplas\w+|mass(?:es)?(?!\s+effect)|cancer\w*|肿瘤|肿块|占位(?!效应)",
    "abscess": r"abscess\w*|脓肿",
    "hydrocephalus": r"hydrocephal\w+|脑积水",
    "aneurysm": r"aneurysm\w*|动脉瘤",
    "contusion": r"contusion\w*|挫伤",
    "fracture": r"fracture\w*|骨折",
    "atrophy": r"atroph\w+|萎缩",
}

# These come with the findings above more often than alone ("with a thin rim of oedema"): read only where nothing else is named.
_ACCOMPANYING: dict[str, str] = {"calcification": r"calcifi\w+|钙化", "edema": r"o?edema\w*|水肿"}

_PARENTS = {
    "subdural hematoma": "hemorrhage",
    "epidural hematoma": "hemorrhage",
    "subarachnoid hemorrhage": "hemorrhage",
    "intraventricular hemorrhage": "hemorrhage",
    "intracerebral hemorrhage": "hemorrhage",
    "arachnoid cyst": "cyst",
    "meningioma": "tumor",
    "glioma": "tumor",
    "metastasis": "tumor",
}

_DENSITIES = {
    "hyperdense": r"hyper-?(?:dens|attenuat)\w*|(?:high|higher|increased)[- ](?:density|attenuation)|bright\w*|高密度",
    "hypodense": r"hypo-?(?:dens|attenuat)\w*|(?:low|lower|decreased|reduced)[- ](?:density|attenuation)|dark\w*|低密度",
    "isodense": r"iso-?(?:dens|attenuat)\w*|等密度",
}


def _compiled(patterns: dict[str, str]) -> dict[str, re.Pattern[str]]:
    # \b only before a Latin letter: between two Chinese characters there is no boundary.
    return {name: re.compile(rf"(?<![a-z])(?:{pattern})", re.IGNORECASE) for name, pattern in patterns.items()}


_FINDINGS, _ALONE, _DENSITY = _compiled(_PATTERNS), _compiled(_ACCOMPANYING), _compiled(_DENSITIES)


def read_finding(text: str) -> str | None:
    """The finding that ``text`` names first, as a key of the vocabulary ("brain bleed" is ``intracerebral hemorrhage``).

    Swelling and calcification count only where no other finding is named. Alternatives ("tumour or abscess") are None.
    Negation is not read: "no haemorrhage" names a haemorrhage, so ask only about samples that have a finding.
    """
    return first_named(text, _FINDINGS, same=lambda one, other: is_kind_of(one, other) or is_kind_of(other, one)) or first_named(
        text, _ALONE
    )


def canonical_finding(name: str) -> str | None:
    """The vocabulary's key for a finding's name ("ischaemic infarct" is ``infarct``); None for one that it does not hold."""
    return read_finding(name)


def is_kind_of(finding: str, other: str) -> bool:
    """Whether ``finding`` is ``other`` or one of its kinds: a subdural hematoma is a hemorrhage, not the other way round."""
    return finding == other or _PARENTS.get(finding) == other


def read_density(text: str) -> str | None:
    """``hyperdense``, ``hypodense`` or ``isodense``, whichever ``text`` names first ("a bright area" is hyperdense on CT)."""
    return first_named(text, _DENSITY)
