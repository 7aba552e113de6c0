"""What of the page's style sheet a browser showed to matter; no browser runs in the tests."""

from __future__ import annotations

import re
from importlib import resources

STYLE = (resources.files("medtune.evaluation") / "templates" / "report.css").read_text(encoding="utf-8")


def test_hidden_headings_of_a_wide_table_stay_within_its_scroll() -> None:
    """Placed by the page, they made it 690 pixels wide on a telephone of 390."""
    (rule,) = re.findall(r"(?m)^\.scroll \{([^}]*)\}", STYLE)
    assert "overflow-x: auto" in rule
    assert "position: relative" in rule


def test_paper_is_no_telephone() -> None:
    """A sheet of A4 is narrower than 46rem: with the telephone's layout a report of 25 pages took 51."""
    narrow = re.findall(r"@media ([^{]*max-width[^{]*)\{", STYLE)
    assert narrow
    assert all("screen" in query for query in narrow)
