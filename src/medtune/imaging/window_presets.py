"""Windows under the names that people know, each with who uses it. A table: nothing is computed here.

Sites and programs differ, so variants stand side by side under names of their own. A recipe may write numbers instead of a name.
``docs/windows.md`` shows this table; a test compares them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WINDOW_PRESETS", "WINDOW_TRIPLES", "Window", "WindowTriple"]


class Window(NamedTuple):
    """A window in Hounsfield units, and who uses it.

    Attributes:
        center: Middle of the range ("level").
        width: Length of the range.
        source: Who uses it.
        url: Where that is written.
        body_part: What it is for.
        modality: DICOM modality code.
    """

    center: float
    width: float
    source: str
    url: str
    body_part: str
    modality: str = "CT"


class WindowTriple(NamedTuple):
    """Three windows of one picture, shown in red, green and blue: (center, width) in Hounsfield units."""

    windows: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    source: str
    url: str
    modality: str = "CT"


_OHIF = (
    "OHIF Viewers, defaultWindowLevelPresets",
    "https://github.com/OHIF/Viewers/blob/master/extensions/cornerstone/src/components/WindowLevelActionMenu/defaultWindowLevelPresets.ts",
)
_REPORT_GENERATOR = (
    "MedGemma1.5ReportGenerator, README",
    "https://github.com/eduardofarina/MedGemma1.5ReportGenerator",
)

WINDOW_PRESETS: dict[str, Window] = {
    "soft-tissue": Window(40, 400, *_OHIF, "soft tissue"),
    "lung": Window(-600, 1500, *_OHIF, "lung"),
    "liver": Window(90, 150, *_OHIF, "liver"),
    "liver-60": Window(60, 150, *_REPORT_GENERATOR, "liver"),
    "bone": Window(480, 2500, *_OHIF, "bone"),
    "bone-400": Window(400, 1800, *_REPORT_GENERATOR, "bone"),
    "brain": Window(40, 80, *_OHIF, "brain"),
    "subdural": Window(75, 215, *_REPORT_GENERATOR, "brain: blood beside the skull"),
    "stroke": Window(32, 8, *_REPORT_GENERATOR, "brain: early infarction"),
    "mediastinum": Window(50, 350, *_REPORT_GENERATOR, "mediastinum"),
    "abdomen": Window(40, 400, *_REPORT_GENERATOR, "abdomen"),
}
"""Presets differ between sites; these are starting points with their origin."""

WINDOW_TRIPLES: dict[str, WindowTriple] = {
    # Written there as ranges: -1024 to 1024, -135 to 215, 0 to 80.
    "medgemma-1.5": WindowTriple(
        ((0, 2048), (40, 350), (40, 80)),
        "MedGemma 1.5, notebook high_dimensional_ct_hugging_face",
        "https://github.com/Google-Health/medgemma/blob/main/notebooks/high_dimensional_ct_hugging_face.ipynb",
    ),
    "medgemma-1": WindowTriple(
        ((-100, 2250), (40, 350), (40, 80)),
        "MedGemma technical report, as its maintainers confirm",
        "https://github.com/Google-Health/medgemma/issues/27",
    ),
}
"""Triples that a model was trained with. A model that never saw such colours must be tuned on them first."""
