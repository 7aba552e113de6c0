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


def test_a_case_of_a_review_fits_on_a_sheet() -> None:
    """On paper the telephone's layout put the preference on a sheet of its own, and a picture with boxes filled the whole width."""
    style = (resources.files("medtune.evaluation") / "templates" / "review.css").read_text(encoding="utf-8")
    assert all("screen" in query for query in re.findall(r"@media ([^{]*max-width[^{]*)\{", style))
    paper = style[style.index("@media print") :]
    assert ".picture img, .picture svg { max-height:" in paper


def test_a_telephone_has_the_key_of_the_drawings() -> None:
    """The heads of the columns hold it and are hidden there: each number's own head has to say which mark is the base model's."""
    templates = resources.files("medtune.evaluation") / "templates"
    for name, keys in (("report.html", ("key {{ kind }}",)), ("compare.html", ("key base", "key tuned"))):
        page = (templates / name).read_text(encoding="utf-8")
        for key in keys:
            assert f'<span class="head"><span class="{key}" aria-hidden="true">' in page


def test_a_narrow_table_stands_no_words_on_end() -> None:
    """Chinese may break after every character: columns of a wide table came out one character wide on a telephone."""
    (narrow,) = re.findall(r"(?ms)^@media screen and \(max-width[^{]*\{(.*?)^\}", STYLE)
    assert ".plain thead th { word-break: keep-all; }" in narrow
    assert re.search(r"\.plain td:not\([^)]*\) \{ min-width:", narrow)


def test_readers_open_their_file_by_a_button_of_the_page() -> None:
    """The browser's own button speaks the browser's language."""
    style = (resources.files("medtune.evaluation") / "templates" / "review.css").read_text(encoding="utf-8")
    (rule,) = re.findall(r"(?m)^\.file input \{([^}]*)\}", style)
    assert "opacity: 0" in rule
    assert "display" not in rule, "or no key reaches it"
