"""The items of CLAIM 2024 in medtune's words: Tejani et al. 2024, Radiology: Artificial Intelligence 6(4): e240300,
doi:10.1148/ryai.240300, the table of 44 items."""

from __future__ import annotations

from medtune.evaluation.checklist_item import Item
from medtune.language import msg

__all__ = ["ITEMS", "SOURCE", "TITLE"]

TITLE = msg("CLAIM 2024: material for the checklist")
SOURCE = msg(
    "Checklist for Artificial Intelligence in Medical Imaging, update of 2024 (Tejani et al. 2024, doi:10.1148/ryai.240300)."
)

_TITLE = msg("Title and abstract")
_INTRODUCTION = msg("Introduction")
_DESIGN = msg("Study design")
_DATA = msg("Data")
_STANDARD = msg("Reference standard")
_PARTS = msg("Data partitions")
_TESTING = msg("Testing data")
_MODEL = msg("Model")
_TRAINING = msg("Training")
_EVALUATION = msg("Evaluation")
_RESULTS_DATA = msg("Results: data")
_RESULTS = msg("Results: performance")
_DISCUSSION = msg("Discussion")
_OTHER = msg("Other information")

ITEMS = (
    Item("1", _TITLE, msg("The title says that this is about AI, and of which kind.")),
    Item("2", _TITLE, msg("The abstract gives design, methods, results and conclusions.")),
    Item("3", _INTRODUCTION, msg("Why the question matters, and what the AI is meant to do in practice.")),
    Item("4", _INTRODUCTION, msg("What the study wants to find out, with its hypotheses.")),
    Item("5", _DESIGN, msg("Whether data were collected before or after the study was planned.")),
    Item("6", _DESIGN, msg("What kind of study it is, such as a feasibility study or a comparison.")),
    Item("7", _DATA, msg("Where the data come from."), ("dataset",)),
    Item("8", _DATA, msg("Which cases were let in and which were kept out, when and where."), ("left_out",)),
    Item("9", _DATA, msg("What was done to the data before use."), ("preprocessing",)),
    Item("10", _DATA, msg("Whether parts of pictures or of the data were selected, and how."), ("tasks",)),
    Item("11", _DATA, msg("How the data were de-identified.")),
    Item("12", _DATA, msg("What became of missing data."), ("left_out", "output")),
    Item("13", _DATA, msg("How the pictures were acquired: devices, protocols.")),
    Item("14", _STANDARD, msg("What counts as truth, and how it was obtained.")),
    Item("15", _STANDARD, msg("Why this was taken as truth.")),
    Item("16", _STANDARD, msg("Who or what annotated, with which qualification.")),
    Item("17", _STANDARD, msg("How the test set was annotated, and with which tools.")),
    Item("18", _STANDARD, msg("How far annotators agree with each other and with themselves.")),
    Item("19", _PARTS, msg("How cases were divided into training, tuning and test data."), ("split", "sizes")),
    Item("20", _PARTS, msg("At which level the parts share nothing: patient, study, picture."), ("disjoint",)),
    Item("21", _TESTING, msg("How large the test set was meant to be, and why."), ("evaluated",)),
    Item("22", _MODEL, msg("The model in enough detail to build it again, inputs and outputs included."), ("model", "method")),
    Item("23", _MODEL, msg("Software, libraries and their versions."), ("libraries",)),
    Item("24", _MODEL, msg("Where the weights began."), ("initialization",)),
    Item("25", _TRAINING, msg("How it was trained: augmentation, hyperparameters, number of models."), ("training",)),
    Item("26", _TRAINING, msg("How the final model was chosen."), ("selection",)),
    Item("27", _TRAINING, msg("Whether and how models were combined.")),
    Item("28", _EVALUATION, msg("Which measures of performance were used."), ("metrics",)),
    Item("29", _EVALUATION, msg("How uncertainty and significance were computed."), ("uncertainty",)),
    Item("30", _EVALUATION, msg("How robust results are to changes of data or assumptions."), ("robustness",)),
    Item("31", _EVALUATION, msg("How decisions were explained, and whether the explanation was checked.")),
    Item("32", _EVALUATION, msg("Performance on data of the same origin as the training data."), ("internal",)),
    Item("33", _EVALUATION, msg("Performance on data of another origin.")),
    Item("34", _EVALUATION, msg("Registration, where the study is a clinical trial.")),
    Item("35", _RESULTS_DATA, msg("How many patients or examinations were used and left out."), ("sizes", "left_out")),
    Item("36", _RESULTS_DATA, msg("Who the patients were, in each part of the data."), ("subgroups",)),
    Item("37", _RESULTS, msg("The performance with its uncertainty."), ("results",)),
    Item("38", _RESULTS, msg("Estimates of diagnostic performance and how precise they are."), ("results", "uncertainty")),
    Item("39", _RESULTS, msg("What went wrong in the cases that were judged wrongly."), ("failures", "output")),
    Item("40", _DISCUSSION, msg("What limits the study: bias, uncertainty, transfer to other places."), ("limits",)),
    Item("41", _DISCUSSION, msg("What follows for practice, and in which role the AI would be used.")),
    Item("42", _OTHER, msg("Where the full protocol or further technical detail is.")),
    Item("43", _OTHER, msg("Whether software, model and data can be had, and where.")),
    Item("44", _OTHER, msg("Who paid, and what the funders did.")),
)
