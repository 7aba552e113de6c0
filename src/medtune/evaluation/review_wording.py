"""The words of the readers' page, and of what readers mark."""

from __future__ import annotations

from medtune.evaluation.wording import PAGE
from medtune.language import Text, msg

__all__ = ["ERRORS", "REVIEW", "SEVERITIES"]

ERRORS: dict[str, Text] = {
    "missed": msg("Missed finding"),
    "invented": msg("Invented finding"),
    "side": msg("Wrong side"),
    "measurement": msg("Wrong measurement"),
    "dangerous": msg("Dangerous for the patient"),
}
"""What readers mark in an answer."""

SEVERITIES: dict[str, Text] = {
    "none": msg("no error that matters"),
    "minor": msg("minor: changes nothing for the patient"),
    "moderate": msg("moderate: has to be corrected before use"),
    "severe": msg("severe: could change the treatment"),
}
"""How bad the worst error of an answer is, in the order of badness."""

REVIEW: dict[str, Text] = {
    "title": msg("Comparison of answers by readers"),
    "intended_use": PAGE["intended_use"],
    "synthetic": PAGE["synthetic"],
    "local_only": PAGE["local_only"],
    "how": msg("How to read"),
    "how_order": msg(
        "Each case shows pictures, a question and two answers. Which model wrote which is not known, and changes from case to case."
    ),
    "how_prefer": msg("Say which answer you would rather put your name to, by what the pictures show and not by its style."),
    "how_errors": msg(
        "Mark what is wrong in each answer, and how bad the worst of it is. An answer without a mark is taken as right."
    ),
    "how_keep": msg("Your marks are kept in this browser. At the end save the file and send it back; nothing is sent by itself."),
    "how_names": msg("Write no names of patients into the remarks."),
    "shortcuts": msg("Keys"),
    "key_prefer": msg("A or B is better, no difference"),
    "key_errors_a": msg("errors of A, in their order"),
    "key_errors_b": msg("errors of B, in their order"),
    "key_move": msg("case before, next case"),
    "key_save": msg("save the file"),
    "reader": msg("Your name or a code"),
    "whose": msg("Marks are kept in this browser. Go on with your own, or begin below as another reader:"),
    "need_reader": msg("Give your name or a code first: marks of several readers must be told apart."),
    "no_storage": msg("This browser cannot keep your marks. Save the file before you close the page."),
    "not_this": msg("That file holds no marks of this review."),
    "case": msg("Case"),
    "decided": msg("decided"),
    "question": PAGE["question"],
    "no_picture": PAGE["no_picture"],
    "text_only": PAGE["text_only"],
    "no_answer": PAGE["no_answer"],
    "answer_a": msg("Answer A"),
    "answer_b": msg("Answer B"),
    "box_a": msg("box of answer A"),
    "box_b": msg("box of answer B"),
    "errors": msg("Errors"),
    "severity": msg("Worst error"),
    "preference": msg("Which answer is better?"),
    "a": msg("A is better"),
    "tie": msg("No difference"),
    "b": msg("B is better"),
    "remark": msg("Remark"),
    "before": msg("Before"),
    "next": msg("Next"),
    "save": msg("Save file"),
    "open": msg("Go on from a file"),
    "enlarge": msg("Enlarge or shrink the picture"),
}
"""The words of the readers' page."""
