"""Other words for the same question: one for each task's instruction, and a sentence around any other question.

The words are medtune's own. Each asks for the same answer in the same form as the task's instruction does, so that an answer that
changes is the model's doing.
"""

from __future__ import annotations

from medtune.errors import MedtuneError
from medtune.evaluation.score import load_task
from medtune.language import Language
from medtune.types import IMAGE_MARK

__all__ = ["language_of", "paraphrase"]

_REWORDED: dict[str, dict[Language, str]] = {
    "caption": {
        "en": "What does this medical picture show? One sentence, with the imaging modality, the organ and the main finding.",
        "zh": "请用一句话说明这张医学图像显示了什么，包括成像方式、器官和主要所见。",
    },
    "caption-details": {
        "en": "Give a detailed account of this medical picture: how it was acquired and which anatomy it shows, where in the "
        "patient density or signal is abnormal, and which pathology that speaks for.",
        "zh": "请对这张医学图像作详细说明：采用何种成像方式、显示哪些解剖结构，患者体内何处密度或信号异常，提示何种病变。",
    },
    "report": {
        "en": "Report on this examination as a radiologist would, in two sections with the headings 'Findings:' and 'Impression:'.",
        "zh": "请以放射科医师的口吻为这次检查出具报告，分为“所见：”和“印象：”两部分。",
    },
    "region-description": {
        "en": "What is the finding in the region of interest? State its kind and density, its place in the patient (the patient's "
        "own left or right, not that of the image) and its surroundings.",
        "zh": "感兴趣区的病变是什么？请说明其性质和密度、在患者体内的位置（指患者自身的左右，而非图像的左右）及其周围结构。",
    },
    "closed-vqa": {
        "en": "Please look at the image and answer this question: {question}\nReply with yes or no only, or with the single word "
        "or phrase that is asked for.",
        "zh": "请看图回答：{question}\n只需回答“是”或“否”，或问题所要求的一个词。",
    },
}

_AROUND: dict[Language, str] = {
    "en": "Here is a question. Please answer it.\n{question}",
    "zh": "请回答下面的问题。\n{question}",
}


def language_of(text: str) -> Language:
    """Chinese where the text holds a Chinese character."""
    return "zh" if any("\u3400" <= character <= "\u9fff" for character in text) else "en"


def paraphrase(content: str, task: str) -> str:
    """The user's words in other words; the marks of pictures stay where they are.

    A task's own instruction is replaced by another one. What is asked in other words than the task's (a recipe's own instruction, a
    free question) is kept word by word, with a sentence before it.
    """
    body = content.lstrip()
    start = content[: len(content) - len(body)]
    while body.startswith(IMAGE_MARK):
        rest = body[len(IMAGE_MARK) :]
        start += IMAGE_MARK + rest[: len(rest) - len(rest.lstrip())]
        body = rest.lstrip()
    for language, words in _instructions(task).items():
        other = _REWORDED.get(task, {}).get(language)
        before, mark, after = words.partition("{question}")
        fits = body.startswith(before) and body.endswith(after) if mark else body == words
        if words and other and fits:
            question = body[len(before) : len(body) - len(after)] if mark else ""
            return start + other.replace("{question}", question)
    return start + _AROUND[language_of(body)].replace("{question}", body)


def _instructions(task: str) -> dict[Language, str]:
    """The task's own instructions; a task that has none, or is not known, has no words to replace."""
    try:
        found = getattr(load_task(task), "instructions", {})
    except MedtuneError:
        return {}
    return {language: words for language, words in dict(found).items() if language in ("en", "zh")}
