"""The profile applied to a data set: every element, in sequences too."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from medtune.imaging.deidentify.identifiers import Identifiers, is_well_known
from medtune.imaging.deidentify.profile import METHODS, Action, Profile
from medtune.imaging.deidentify.settings import DeidentifySettings
from medtune.imaging.deidentify.values import clean_words, dummy_value, shift_date, shift_datetime
from medtune.imaging.pseudonym import Pseudonyms

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement

__all__ = ["Cleaning", "patient_of"]

_MAX_DEPTH = 32
"""Of sequences within sequences; the deepest objects of the standard (structured reports) stay below."""

_PSEUDONYMOUS = {"PatientID": "patient", "PatientName": "patient", "AccessionNumber": "study", "StudyID": "study"}
"""Attributes whose dummy value is a pseudonym, so that files of one patient and of one study stay together."""

_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Pixel Data and its two floating-point forms."""


def patient_of(dataset: Dataset) -> str:
    """What tells this file's patient from others: id, else name, else the study, else the file's own UID."""
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID"):
        try:
            text = str(dataset.get(keyword) or "").strip(" \0")
        except Exception:  # a value that cannot be read is no value
            continue
        if text:
            return text
    return ""


class Cleaning:
    """One data set's way through the profile.

    Args:
        dataset: The original, changed in place.

    Attributes:
        identifiers: What was taken out, to be searched for.
        counts: Elements by what was done: ``D``, ``Z``, ``X``, ``C``, ``U``, ``private``, ``unreadable``, ``found-in-text``.
        dates: The dates that the result holds, ``YYYYMMDD``.
    """

    def __init__(self, dataset: Dataset, settings: DeidentifySettings, pseudonyms: Pseudonyms) -> None:
        self.identifiers = Identifiers()
        self.counts: Counter[str] = Counter()
        self.dates: set[str] = set()
        self._dataset = dataset
        self._settings = settings
        self._profile = Profile(settings)
        self._pseudonyms = pseudonyms
        self._patient = patient_of(dataset)
        self._days = pseudonyms.shift_days(self._patient)

    def run(self) -> None:
        """Clean the data set. First all identifying values are gathered, then elements are changed and kept texts compared."""
        self._gather(self._dataset)
        self._clean(self._dataset, depth=0)

    def state_methods(self, *, pixels_cleaned: bool) -> None:
        """Write into the data set what was done to it: PS3.15, E.3 and PS3.3, C.7.1.1 and C.12.1."""
        from pydicom import Dataset
        from pydicom.sequence import Sequence

        methods = [*self._profile.methods, *([METHODS["clean-pixels"]] if pixels_cleaned else [])]
        items = []
        for code, meaning in sorted(methods):
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
            items.append(item)
        self._dataset.PatientIdentityRemoved = "YES"
        self._dataset.DeidentificationMethod = ["medtune", "PS3.15 Table E.1-1"]
        self._dataset.DeidentificationMethodCodeSequence = Sequence(items)
        state = {"shift": "MODIFIED", "keep": "UNMODIFIED", "remove": "REMOVED"}[self._settings.dates]
        self._dataset.LongitudinalTemporalInformationModified = state

    # ---------------------------------------------------------------------------------------------------------- gathering

    def _gather(self, dataset: Dataset, depth: int = 0) -> None:
        for tag in list(dataset.keys()):
            element = self._read(dataset, tag)
            if element is None or tag in _PIXELS or tag.is_private:
                continue
            if element.VR == "SQ":
                if depth < _MAX_DEPTH:
                    for item in element.value or ():
                        self._gather(item, depth + 1)
                continue
            action = self._action(element)
            if action != "K":
                self.identifiers.add(element.VR, element.value, action=action, identifies=Profile.identifies(int(tag)))

    # ----------------------------------------------------------------------------------------------------------- cleaning

    def _clean(self, dataset: Dataset, depth: int) -> None:
        for tag in list(dataset.keys()):
            if depth and tag in _PIXELS:  # of icons; nobody looks for text in them
                del dataset[tag]
                self.counts["X"] += 1
                continue
            if tag in _PIXELS:
                continue
            if tag.is_private:
                del dataset[tag]
                self.counts["private"] += 1
                continue
            element = self._read(dataset, tag)
            if element is None or depth >= _MAX_DEPTH:
                del dataset[tag]
                self.counts["unreadable"] += 1
                continue
            action = self._action(element)
            if action == "X":
                del dataset[tag]
            elif element.VR == "SQ":
                self._clean_sequence(element, action, depth)
            elif action == "K" and isinstance(element.value, bytes) and self.identifiers.in_bytes(element.value):
                del dataset[tag]  # a table of colours, a key of a database: nobody reads a name there, but a program wrote one
                self.counts["found-in-text"] += 1
            else:
                self._clean_value(dataset, element, action)
            if action != "K":
                self.counts[action] += 1

    def _clean_sequence(self, element: DataElement, action: Action, depth: int) -> None:
        from pydicom.sequence import Sequence

        if action == "Z":
            element.value = Sequence()
        elif action == "D":
            # One item of the same form in which every value is a dummy: it says as much as an empty one, and stays valid.
            first = list(element.value or ())[:1]
            for item in first:
                self._blank(item)
            element.value = Sequence(first)
        else:
            for item in element.value or ():
                self._clean(item, depth + 1)

    def _blank(self, item: Dataset) -> None:
        for tag in list(item.keys()):
            element = self._read(item, tag)
            if element is None or tag.is_private or element.VR == "SQ" or tag in _PIXELS or self._action(element) == "X":
                del item[tag]
            elif element.VR == "UI":
                self._replace_uids(element)
            else:
                element.value = dummy_value(element.VR)

    def _clean_value(self, dataset: Dataset, element: DataElement, action: Action) -> None:
        if action == "U":
            self._replace_uids(element)
        elif action == "Z" or action == "D":
            kind = _PSEUDONYMOUS.get(element.keyword)
            if kind is not None:
                value = self._patient if kind == "patient" and dataset is self._dataset else str(element.value or "")
                self._set_pseudonym(element, kind, value)
            else:
                element.value = dummy_value(element.VR) if action == "D" else None
        elif action == "C":
            self._clean_kind(element)
        elif element.VR in ("DA", "DT"):
            self.dates.update(day for day in (str(part)[:8] for part in _parts(element.value)) if day.isdigit())
        elif element.VR == "AS" and element.keyword == "PatientAge":
            element.value = _capped_age(str(element.value or ""))
        elif element.VR in ("LO", "SH", "CS", "PN", "LT", "ST", "UT", "UC"):
            self._compare(element)

    def _clean_kind(self, element: DataElement) -> None:
        if element.VR in ("DA", "DT"):
            shift = shift_date if element.VR == "DA" else shift_datetime
            moved = [shift(str(part), self._days) for part in _parts(element.value)]
            kept = [part for part in moved if part is not None]
            self.counts["date-unreadable"] += len(moved) - len(kept)
            self.dates.update(part[:8] for part in kept)
            element.value = kept if len(kept) > 1 else kept[0] if kept else None
        elif element.VR == "TM":
            return  # whole days are added: the time of day stays, and with it every interval
        else:
            cleaned = [clean_words(str(part)) for part in _parts(element.value)]
            element.value = cleaned if len(cleaned) > 1 else cleaned[0] if cleaned else None
            self._compare(element)

    def _compare(self, element: DataElement) -> None:
        parts = _parts(element.value)
        kept = [part for part in parts if not self.identifiers.in_text(str(part))]
        if len(kept) < len(parts):
            self.counts["found-in-text"] += len(parts) - len(kept)
            element.value = kept if len(kept) > 1 else kept[0] if kept else None

    def _replace_uids(self, element: DataElement) -> None:
        from pydicom.uid import UID

        new = [
            str(part) if is_well_known(str(part)) or not str(part) else self._pseudonyms.uid(str(part))
            for part in _parts(element.value)
        ]
        element.value = [UID(part) for part in new] if len(new) > 1 else UID(new[0]) if new else None

    def _set_pseudonym(self, element: DataElement, kind: str, value: str) -> None:
        plain = value.strip(" \0")
        element.value = self._pseudonyms.name("patient" if kind == "patient" else "study", plain) if plain else None

    def _action(self, element: DataElement) -> Action:
        from pydicom.datadict import dictionary_has_tag

        if element.keyword == "SOPClassUID":
            return "K"  # what kind of object this is; a private class names the maker, not the patient
        return self._profile.action(int(element.tag), element.VR, known=dictionary_has_tag(element.tag))

    @staticmethod
    def _read(dataset: Dataset, tag: Any) -> DataElement | None:
        try:
            element: DataElement = dataset[tag]
            str(element.value) if element.VR not in ("SQ", "OB", "OW") else None
        except Exception:  # values of damaged files raise whatever their bytes lead to
            return None
        return element


def _parts(value: Any) -> list[Any]:
    from pydicom.multival import MultiValue

    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, list)) else [value]


def _capped_age(age: str) -> str:
    """Ages above 89 are one class: 45 CFR 164.514(b)(2)(i)(C)."""
    return "090Y" if age.endswith("Y") and age[:-1].isdigit() and int(age[:-1]) > 89 else age
