"""The items of TRIPOD-LLM in medtune's words: Gallifant et al. 2025, Nature Medicine 31: 60-69, doi:10.1038/s41591-024-03425-5,
Table 2. The table prints 49 numbered items, while its text counts 50. The guideline was written for models of text; what concerns
pictures is in CLAIM."""

from __future__ import annotations

from medtune.evaluation.checklist_item import Item
from medtune.language import msg

__all__ = ["ITEMS", "SOURCE", "TITLE"]

TITLE = msg("TRIPOD-LLM: material for the checklist")
SOURCE = msg(
    "Reporting guideline for studies of large language models (Gallifant et al. 2025, doi:10.1038/s41591-024-03425-5). It was"
    " written for text; use CLAIM for what concerns pictures."
)

_TITLE = msg("Title and abstract")
_INTRODUCTION = msg("Introduction")
_DATA = msg("Methods: data")
_ANALYSIS = msg("Methods: analysis")
_OUTPUT = msg("Methods: output of the model")
_ANNOTATION = msg("Methods: annotation")
_PROMPTING = msg("Methods: prompts, summaries, alignment")
_COMPUTE = msg("Methods: compute and ethics")
_OPEN = msg("Open science and the public")
_PARTICIPANTS = msg("Results: participants")
_RESULTS = msg("Results: performance")
_DISCUSSION = msg("Discussion")

ITEMS = (
    Item("1", _TITLE, msg("The title says whether a language model was built, tuned or evaluated, for what and for whom.")),
    Item("2", _TITLE, msg("The abstract follows the guideline's own list for abstracts.")),
    Item("3a", _INTRODUCTION, msg("The clinical setting, why a language model, and what exists already.")),
    Item("3b", _INTRODUCTION, msg("For which patients and users, and where in the care they receive.")),
    Item("4", _INTRODUCTION, msg("The aims, and whether models are built, tuned or evaluated.")),
    Item("5a", _DATA, msg("Sources of training, tuning and evaluation data, each apart, and why these."), ("dataset", "split")),
    Item("5b", _DATA, msg("What the data look like, in numbers and in words."), ("sizes", "tasks", "subgroups")),
    Item("5c", _DATA, msg("Dates of the oldest and the newest text.")),
    Item(
        "5d", _DATA, msg("Preprocessing and quality checks, and whether they were the same for all."), ("preprocessing", "left_out")
    ),
    Item("5e", _DATA, msg("What was done about missing and unbalanced data, and why data were left out."), ("left_out",)),
    Item("6a", _ANALYSIS, msg("Name and version of the model, and when its training ended."), ("model",)),
    Item("6b", _ANALYSIS, msg("How the model was built: architecture, tuning, alignment."), ("method", "training", "selection")),
    Item("6c", _ANALYSIS, msg("How text was generated: prompts, temperature, seed, length."), ("generation",)),
    Item("6d", _ANALYSIS, msg("What comes out first, and what is made of it."), ("output",)),
    Item("6e", _ANALYSIS, msg("How classes, probabilities and thresholds were obtained."), ("abstention",)),
    Item("7a", _OUTPUT, msg("Measures of the quality of texts against a standard, errors included."), ("metrics",)),
    Item("7b", _OUTPUT, msg("What the measures mean for the later use, and how they go with human judgement."), ("readers",)),
    Item("7c", _OUTPUT, msg("What exactly is the outcome, and how it is computed."), ("metrics", "uncertainty")),
    Item("7d", _OUTPUT, msg("Who judged where judgement was needed: training, instructions, agreement."), ("readers",)),
    Item("7e", _OUTPUT, msg("What the performance was compared with."), ("comparison", "robustness")),
    Item("8a", _ANNOTATION, msg("How texts were labelled, with the rules and examples.")),
    Item("8b", _ANNOTATION, msg("How many annotators, how much was done twice, how far they agree.")),
    Item("8c", _ANNOTATION, msg("Who the annotators were, or which models.")),
    Item("9a", _PROMPTING, msg("How prompts were designed and chosen."), ("prompting",)),
    Item("9b", _PROMPTING, msg("Which data were used to design them.")),
    Item("10", _PROMPTING, msg("What was done to texts before they were summarized.")),
    Item(
        "11", _PROMPTING, msg("Instructions, data and people behind tuning by instruction or alignment."), ("training", "prompting")
    ),
    Item("12", _COMPUTE, msg("How much computing it took."), ("compute",)),
    Item("13", _COMPUTE, msg("Which committee approved the study, and how consent was given or waived.")),
    Item("14a", _OPEN, msg("Who paid, and what the funders did.")),
    Item("14b", _OPEN, msg("Conflicts of interest of the authors.")),
    Item("14c", _OPEN, msg("Where the protocol is, or that there is none.")),
    Item("14d", _OPEN, msg("Where the study is registered, or that it is not.")),
    Item("14e", _OPEN, msg("Whether the data can be had."), ("dataset",)),
    Item("14f", _OPEN, msg("Whether the code can be had."), ("libraries",)),
    Item("15", _OPEN, msg("What part patients and the public had, or that they had none.")),
    Item(
        "16a", _PARTICIPANTS, msg("How data went through the study, with numbers at each step."), ("sizes", "left_out", "evaluated")
    ),
    Item("16b", _PARTICIPANTS, msg("Characteristics of the data, for each source and part."), ("sizes", "subgroups")),
    Item("16c", _PARTICIPANTS, msg("How development and evaluation data differ in what matters for the outcome.")),
    Item("16d", _PARTICIPANTS, msg("Number of participants and outcomes in each analysis."), ("evaluated",)),
    Item("17", _RESULTS, msg("The performance by the measures chosen beforehand, or by readers."), ("results", "readers")),
    Item("18", _RESULTS, msg("What updating the model changed."), ("comparison",)),
    Item("19a", _DISCUSSION, msg("What the results mean, fairness included.")),
    Item("19b", _DISCUSSION, msg("What limits the study, and what this does to bias and transfer."), ("limits",)),
    Item("19c", _DISCUSSION, msg("Known difficulties of such data for this task.")),
    Item("19d", _DISCUSSION, msg("The intended use: inputs, users, how much a person oversees it.")),
    Item("19e", _DISCUSSION, msg("What is to be done with poor or missing inputs in use.")),
    Item("19f", _DISCUSSION, msg("What users have to do, and what they have to know for it.")),
    Item("19g", _DISCUSSION, msg("What research should come next.")),
)
