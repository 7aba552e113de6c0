"""What a text asserts: each finding present, possible or absent, and on which side.

NegEx (Chapman et al. 2001, doi:10.1006/jbin.2001.1029) with the later extensions of ConText (Harkema et al. 2009,
doi:10.1016/j.jbi.2009.05.002), for English and Chinese:

- a trigger *ahead* ("no", "possible", 未见) reaches to the end of its sentence or to a word that ends it ("but", "there is", 可见).
  A Chinese one ends at the comma as well, where a new subject begins; an English one passes commas, since lists follow it ("no
  effusion, mass or fracture"), except before a word that begins a new statement ("no effusion, stable cardiomegaly") when no "or"
  comes any more;
- a trigger *behind* ("is ruled out", 不除外) reaches back to the beginning of the sentence or clause, or to the last word that
  ends a scope;
- a *pseudo* trigger ("no change in", "cannot be excluded", 无明显变化) is a longer phrase, and hides the word inside it;
- a trigger *between* ("versus") makes doubtful what directly precedes it and all that follows;
- what belongs to the past or was only asked ("history of", "evaluate for") is no statement about this picture.

Where a text says several things of one finding, present is kept before possible, and possible before absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from medtune.tasks.reading.assertions.tokens import STOPS, tokenize
from medtune.tasks.reading.assertions.vocabulary import Sign, findings, general_findings, signs

__all__ = ["Assertion", "Assertions", "Side", "Status", "read_assertions"]

Status = Literal["present", "possible", "absent"]
Side = Literal["left", "right", "both"]

_HAN = "\u3400"
"""Tokens from here on are Chinese characters (or letters rarer still)."""
_RANK = {"present": 2, "possible": 1, "absent": 0}
_NEGATION = frozenset({"no", "not", "without", "never", "无", "未", "没", "不", "非"})
_ALTERNATIVES = frozenset({"or", "nor"})
_LOCATING = frozenset({"on", "in", "at", "of", "to", "within", "involving", "along", "over", "overlying"})
_JOINING = frozenset({",", "and", "or", "with", "but"})
_POST_REACH = 7
"""Tokens between a finding and a side that is said behind it ("a calculus in the lower pole of the left kidney")."""
_NEAR = 4
"""Tokens within which two findings are said together."""
_DOUBT_IN_DENIAL = 3
"""Tokens behind a denial within which a word of doubt belongs to it ("no suspected fracture")."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a text says of one finding. ``side`` is the patient's; None = not said, or none can be."""

    status: Status
    side: Side | None = None

    @property
    def is_claimed(self) -> bool:
        """Present or possible: a reader would act on it."""
        return self.status != "absent"


@dataclass(frozen=True, slots=True)
class Assertions:
    """All that a text says of findings.

    Attributes:
        of: Finding -> assertion. Where a kind of a finding is claimed, the finding itself is claimed too: a subdural hematoma is a
            hemorrhage.
        says_normal: Whether something is called normal or without abnormality.
    """

    of: Mapping[str, Assertion]
    says_normal: bool

    @property
    def claimed(self) -> frozenset[str]:
        """The findings that are present or possible."""
        return frozenset(name for name, assertion in self.of.items() if assertion.is_claimed)

    def __bool__(self) -> bool:
        """Whether the tables saw anything at all in the text."""
        return bool(self.of) or self.says_normal


@dataclass(slots=True)
class _Mention:
    finding: str
    start: int
    stop: int
    status: str
    side: Side | None = None


_Event = tuple[int, int, bool, Sequence[Sign]]
"""(start, stop, whether it bridges a gap, what the phrase stands for), counted in tokens."""


def read_assertions(text: str) -> Assertions:
    """Read the findings of a text, English, Chinese or mixed. Time and memory grow with its length and nothing else."""
    tokens = tokenize(text)
    events = signs().find(tokens)
    known: dict[str, Assertion] = {}
    says_normal = False
    if events:
        first, num_events = 0, len(events)
        commas: list[int] = []
        for place, token in enumerate((*tokens, ".")):
            if token == ",":
                commas.append(place)
            elif token in STOPS:
                last = first
                # A question mark is a sign of doubt that stands at the stop itself.
                while last < num_events and events[last][0] <= place:
                    last += 1
                if last > first:
                    says_normal |= _read_sentence(tokens, events[first:last], commas, place, known)
                    first = last
                commas = []
    return Assertions(known, says_normal)


def _read_sentence(
    tokens: Sequence[str], events: Sequence[_Event], commas: Sequence[int], end: int, known: dict[str, Assertion]
) -> bool:
    """Put what one sentence says into ``known``; returns whether it calls something normal."""
    mentions: list[_Mention] = []
    sides: list[tuple[int, Side]] = []
    says_normal = False
    status, trigger_stop, in_chinese = "present", -1, False
    cut = -1  # where the last word that ends a scope stood
    passed = 0  # commas before the event
    wide_stop, broader = -1, frozenset[str]()  # of the last finding whose words have others between them
    # A list goes on as long as an "or" comes: "no consolidation, large effusion, or pneumothorax".
    last_or = max((place for place in range(commas[0], end) if tokens[place] in _ALTERNATIVES), default=-1) if commas else -1
    for index, (start, stop, gapped, meant) in enumerate(events):
        while passed < len(commas) and commas[passed] < start:
            passed += 1
            if in_chinese or tokens[min(commas[passed - 1] + 1, len(tokens) - 1)] >= _HAN:
                status, in_chinese = "present", False
        for sign in meant:
            kind = sign.kind
            if kind in ("finding", "denied"):
                # The effusion of "pleural space without effusion" is not said a second time, of any place.
                if stop <= wide_stop and (sign.finding in broader or (stop == wide_stop and sign.finding in general_findings())):
                    continue
                said = "absent" if kind == "denied" else status
                if gapped:
                    wide_stop, broader = stop, frozenset(findings()[sign.finding].kinds_of)
                if gapped and not _NEGATION.isdisjoint(tokens[start + 1 : stop - 1]):
                    said = "present" if kind == "denied" else "absent"
                mentions.append(_Mention(sign.finding, start, stop, said))
            elif kind in ("left", "right", "both"):
                sides.append((start, cast("Side", kind)))
            elif kind == "normal":
                says_normal = True
            elif kind == "end":
                # What directly follows a trigger belongs to it: 未见有结节.
                if start != trigger_stop:
                    status, in_chinese, cut = "present", False, stop
            elif kind == "restart":
                # "No fracture, and a hematoma": the "and" before a new statement belongs to its comma.
                opening = start - 1 if tokens[start - 1] != "and" else start - 2
                if passed and commas[passed - 1] == opening and start > last_or:
                    status, in_chinese, cut = "present", False, start
            elif kind == "between":
                if mentions and 0 <= start - mentions[-1].stop <= _NEAR:
                    _reach_back(mentions, sign.status, mentions[-1].start)
                if status == "present":
                    status, trigger_stop, in_chinese = sign.status, stop, tokens[start] >= _HAN
            elif kind in ("ahead", "back"):
                if len(meant) > 1 and any(other.kind in ("ahead", "back") and other.kind != kind for other in meant):
                    follows = _finding_follows(events, index, commas[passed] if passed < len(commas) else end)
                    if follows is (kind == "back"):
                        continue
                if kind == "back":
                    begin = cut
                    if passed and (cut >= 0 or (tokens[start] >= _HAN and tokens[start] != "?")):
                        begin = max(begin, commas[passed - 1])
                    _reach_back(mentions, sign.status, begin)
                    cut = stop
                elif not (
                    sign.status == "possible"
                    and status == "absent"
                    # "No fluid to suggest cholecystitis" denies both.
                    and (start - trigger_stop <= _DOUBT_IN_DENIAL or tokens[start] == "to")
                ):
                    status, trigger_stop, in_chinese = sign.status, stop, tokens[start] >= _HAN
    if sides and mentions:
        _give_sides(mentions, sides, tokens)
    for mention in mentions:
        _keep(known, mention)
    return says_normal


def _finding_follows(events: Sequence[_Event], index: int, limit: int) -> bool:
    """Whether a finding stands behind event ``index`` in its clause, before another trigger and before token ``limit``."""
    stop = events[index][1]
    for start, _, _, meant in events[index + 1 :]:
        if meant[0].kind == "end" and start == stop:
            continue
        if start > limit or meant[0].kind in ("end", "ahead", "back"):
            return False
        if meant[0].kind == "finding":
            return True
    return False


def _reach_back(mentions: Sequence[_Mention], status: str, begin: int) -> None:
    """Give ``status`` to the mentions before a trigger, as far back as it reaches. A denial is not made a doubt."""
    for mention in reversed(mentions):
        if mention.start < begin:
            break
        if status == "absent" or mention.status == "present":
            mention.status = status


def _give_sides(mentions: Sequence[_Mention], sides: Sequence[tuple[int, Side]], tokens: Sequence[str]) -> None:
    """The side of each mention: said behind it with a preposition, else the last one before it that is not another's."""
    behind, before = 0, 0  # the first side behind the mention, and how many stand before its end
    free: Side | None = None
    taken = -1
    for number, mention in enumerate(mentions):
        while behind < len(sides) and sides[behind][0] < mention.stop:
            behind += 1
        while before < len(sides) and sides[before][0] < mention.stop:
            if before != taken:
                free = sides[before][1]
            before += 1
        following = number + 1
        # "ground-glass opacity": two findings that touch, or overlap, are said of one place.
        while following < len(mentions) and mentions[following].start <= mention.stop and following - number < _NEAR:
            following += 1
        limit = mentions[following].start if following < len(mentions) else len(tokens)
        if behind < len(sides) and sides[behind][0] < min(limit, mention.stop + _POST_REACH + 1):
            between = tokens[mention.stop : sides[behind][0]]
            if _JOINING.isdisjoint(between) and not _LOCATING.isdisjoint(between):
                mention.side, taken = sides[behind][1], behind
                continue
        mention.side = free
        if free is None and mention.status == "possible" and number:
            # "An opacity in the right base may reflect pneumonia": what a finding may be is where the finding is.
            former = mentions[number - 1]
            if _JOINING.isdisjoint(tokens[former.stop : mention.start]):
                mention.side = former.side


def _keep(known: dict[str, Assertion], mention: _Mention) -> None:
    if mention.status == "unsaid":
        return
    finding = findings()[mention.finding]
    status = cast("Status", mention.status)
    names = (finding.name, *finding.kinds_of) if status != "absent" else (finding.name,)
    for name in names:
        side = mention.side if status != "absent" and findings()[name].sided else None
        before = known.get(name)
        if before is None or _RANK[status] > _RANK[before.status]:
            known[name] = Assertion(status, side or (before.side if before is not None else None))
        elif status == before.status and side != before.side and side is not None:
            known[name] = Assertion(status, side if before.side is None else "both")
