"""What each kind of finding means: one sentence a code, for the page and for docs/validation.md."""

from __future__ import annotations

from medtune.language import Text, msg

__all__ = ["MEANINGS", "meaning_of"]

MEANINGS: dict[str, Text] = {
    "file-changed": msg("A file of the data set is missing, or is not the one whose hash the manifest names."),
    "images-index": msg("The index of pictures cannot be read, so that no row can be checked."),
    "left-out-*": msg("A record of a source did not become a row; the rest of the code is the reason."),
    "row-not-json": msg("A line of a split file is no JSON."),
    "row-malformed": msg("A row lacks a key, or a value is of the wrong kind."),
    "image-unknown": msg("A row names a picture that the index does not have."),
    "image-marks": msg("A row has another number of <image> marks than of pictures."),
    "role-order": msg("The turns are not user, assistant, user, ... up to the assistant."),
    "duplicate-id": msg("Two rows have one id."),
    "unknown-task": msg("The task of a row is not known."),
    "answer-empty": msg("The answer is empty."),
    "answer-placeholder": msg("The whole answer is a placeholder (`XXXX`, `___`, n/a, \u5f85\u8865\u5145)."),
    "answer-is-number": msg("The answer is a bare number; it may be an index or an id."),
    "target-differs": msg("The target is not the text of the last turn."),
    "stray-blanks": msg("A turn begins or ends with a blank, which a model learns to write."),
    "turn-empty": msg("A turn before the answer says nothing, or a placeholder only."),
    "text-placeholder": msg(
        "A placeholder stands inside a text: de-identification took a word out, or a template was not filled in."
    ),
    "wording": msg("An answer uses words of everyday life, vague or outdated ones, where there is a standard term."),
    "text-modality": msg("The answer names another modality than the tags."),
    "text-organ": msg("The description is of another part of the body than the tag says."),
    "tags-differ": msg("The tags of a row name different modalities."),
    "source-*": msg("The source noted something about the record while it read it; the rest of the code says what."),
    "source-card": msg("A known problem of a source, from its card."),
    "duplicate-row": msg("Two rows have the same pictures and words."),
    "contradicting-answers": msg("The same question about the same picture has different answers."),
    "repeated-question": msg("Questions are asked again about one picture within a split."),
    "question-overlap": msg("The same question about the same picture stands in two splits."),
    "box-outside": msg("A box does not lie in its picture, or is no box."),
    "box-convention": msg("The boxes of a source are written in another convention than pixels with two corners."),
    "box-position": msg("The position words place the finding elsewhere than the box."),
    "box-area": msg("The stated area share and the box contradict each other (ratio outside 0.4 to 2.5)."),
    "row-too-long": msg("A row has more tokens than fit."),
    "not-encodable": msg("A row cannot be encoded for the model."),
    "closed-majority": msg("How often the commonest closed answer occurs."),
    "class-balance": msg("Classes are very unequal in number."),
    "normal-share": msg("Nearly all pictures are normal, or nearly none are."),
    "question-only": msg("How well answers can be guessed from the question alone."),
    "image-missing": msg("A picture is missing."),
    "image-unreadable": msg("A picture cannot be decoded within the limits."),
    "image-changed": msg("A picture is not the one that was stored."),
    "image-blank": msg("A picture has one grey all over."),
    "image-unused": msg("Pictures belong to no row."),
    "burned-in-box": msg("A coloured frame is drawn into a grey picture."),
    "burned-in-identifier": msg("Text in a picture looks like a name, a date or a number of a person."),
    "burned-in-text": msg("Text stands in a picture."),
    "burned-in-marker": msg("Side letters, scales or window values stand in a picture."),
    "group-overlap": msg("Groups stand in two splits."),
    "patient-overlap": msg("Patients stand in two splits."),
    "study-overlap": msg("Studies stand in two splits."),
    "volume-overlap": msg("Volumes stand in two splits."),
    "leaking-volume": msg("A volume whose slices stand in two splits, by name."),
    "image-overlap": msg("Pictures stand in two splits, byte for byte."),
    "linked-overlap": msg("Rows stand in another split than the rows that they rephrase."),
    "paraphrase-overlap": msg("Rows that rephrase another have the picture and the answer of a row of another split."),
    "same-pixels": msg("Two files hold the same pixels."),
    "same-pixels-overlap": msg("Two files with the same pixels stand in two splits."),
    "near-duplicates": msg("Pictures look nearly the same within a split."),
    "near-duplicate-overlap": msg("Pictures look nearly the same across splits."),
    "near-duplicates-crowded": msg("So many pictures look alike that not all pairs were compared."),
    "slice-run": msg("Pictures that follow each other look like slices of one volume: a guess from order and likeness."),
    "adjacent-slices": msg("Pictures that may be neighbouring slices stand in two splits: a guess from order and likeness."),
    "licence-missing": msg("Rows have no licence."),
    "licence-non-commercial": msg("Rows are not for commercial use."),
    "licence-no-derivatives": msg("Rows may not be passed on in changed form."),
    "licence-mixed": msg("Rows are under different licences."),
    "no-patient-ids": msg("The source has no patient ids, so one patient may stand on both sides of a split."),
    "synthetic": msg("The data are synthetic."),
    "split-empty": msg("A split has no rows."),
}
"""By code; a code that ends with ``*`` stands for all that begin so."""


def meaning_of(code: str) -> Text | None:
    """The meaning of a finding's code, None for one that is not listed."""
    if code in MEANINGS:
        return MEANINGS[code]
    return next((text for name, text in MEANINGS.items() if name.endswith("*") and code.startswith(name[:-1])), None)
