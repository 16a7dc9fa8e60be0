"""Rules that refuse a prompt or a negative prompt by the entries found in it.

Kinds of entries: `innocent` (hides what is inside of it), `sexual`, `code` (sexualizes minors by itself),
`swap` (faces); `minor` and `minors` (one child, several), `teen` and `teens`, `plain` (of minors, and no
picture of one alone), `girl`, `young`, `self` (the character as a child), `adult`; `allure`, `scant`, `swim`,
`bed`, `bath`, `touch`: suggestive with a minor, and some of them together with each other.
"""

import re
from collections.abc import Sequence

from valentina_pipeline.image.safety.policy import ages, classifier
from valentina_pipeline.image.safety.policy.lexicon import Found, lexicon
from valentina_pipeline.image.safety.policy.lists import words
from valentina_pipeline.image.safety.policy.text import PART, Token, fold, read, unreadable

MINORS = {"minor", "minors", "teen", "teens", "girl", "self"}
SUGGESTIVE = {"allure", "scant", "swim", "bed", "bath", "touch"}
BARE = {"scant", "bed", "bath"}

ONLY_ADULTS = "only adults are drawn, and it is about a minor"
SEXUALIZES = "it sexualises minors"
SUGGESTIVE_MINOR = "minors are not drawn in suggestive ways"
SEXUAL = "sexual content is not drawn"
SWAP = "faces of other people are not put onto anybody"

COMPANY = words("company")
"""Words before a child that make it somebody beside the character."""

NEGATED = re.compile(r"[(\[{]([^()\[\]{}]*):\s*-\s*\d*\.?\d+\s*[)\]}]")
"""A weight below 0 asks for the opposite: "(clothes:-1)"."""

OPPOSITE = re.compile(
    r"(?:^|,)(?: (?:any|all|wearing|with|the|her|his|fully|an?|grown|being|too many|much|lots of|more|of))*"
    rf" (?:{'|'.join(sorted(words('things') | words('grown'), key=len, reverse=True))})"
    r"(?: (?:on|up|body|woman|person))?(?= ,|$)"
)
"""What a negative prompt takes away so that the opposite is drawn; not "adult content", "torn clothes"."""

GARMENT = re.compile(
    r"\b(?:shirts?|t ?shirts?|blouses?|tops?|pants|trousers|jeans|skirts?|dress|dresses|shorts|bras?|panties|"
    r"underwear|swimsuits?|bikinis?|lingerie)\b"
)
GARMENTS = 3
AVOIDS = re.compile(r"\b(?:nsfw|nude|nudity|naked|nudes|sexual|porn|topless|cleavage|nipples?|lewd|sexy)\b")


class UnsafePromptError(ValueError):
    """A prompt asks for what this project does not draw; `reason` says what, in words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this prompt is refused: {reason}")
        self.reason = reason


def refuse_prompt(text: str) -> None:
    """Raise UnsafePromptError where a text asks for what is never drawn; else do nothing.

    Refused: sexual content, minors in suggestive scenes, the character as a minor, swapping faces, and
    letters of scripts that the lists have no words of. What is beyond it: docs/safety.md.
    """
    for negated in NEGATED.findall(text):
        refuse_negative(negated)
    tokens = read_tokens(NEGATED.sub(" ", text))
    found = list(lexicon().find(tokens))
    kinds = {each.kind for each in found}
    age = ages.minor_age(tokens)
    suggests = bool(kinds & (SUGGESTIVE | {"sexual"}))
    minor = bool(kinds & MINORS or age or (suggests and ages.minor_hint(tokens)))
    if "code" in kinds or ("sexual" in kinds and (minor or "young" in kinds)):
        raise UnsafePromptError(SEXUALIZES)
    if "sexual" in kinds:
        raise UnsafePromptError(SEXUAL)
    if "swap" in kinds:
        raise UnsafePromptError(SWAP)
    if kinds & SUGGESTIVE and (minor or ("young" in kinds and kinds & (SUGGESTIVE - {"swim", "touch"}))):
        raise UnsafePromptError(SUGGESTIVE_MINOR)
    if kinds & SUGGESTIVE and classifier.minor_phrase(tokens, found):
        raise UnsafePromptError(SUGGESTIVE_MINOR)
    if ("allure" in kinds and kinds & BARE) or {"scant", "bed"} <= kinds:
        raise UnsafePromptError(SEXUAL)
    if classifier.sexual_phrase(tokens, found):
        raise UnsafePromptError(SEXUALIZES if minor else SEXUAL)
    if "self" in kinds or _as_minor(tokens, found, bool(age)):
        raise UnsafePromptError(ONLY_ADULTS)
    if script := unreadable(text):
        raise UnsafePromptError(f"{script} letters cannot be checked: write it in English")


def refuse_negative(text: str) -> None:
    """Raise UnsafePromptError where a negative prompt asks for what is never drawn; else do nothing.

    Sexual words and words for minors are what one keeps out there; refused are both in one phrase, and
    taking away clothes or adults, which asks for the opposite.
    """
    for wanted in NEGATED.findall(text):
        refuse_prompt(wanted)
    tokens = read_tokens(NEGATED.sub(" ", text))
    for phrase in _phrases(tokens):
        kinds = {each.kind for each in lexicon().find(phrase)}
        minor = kinds & MINORS or ages.minor_age(phrase)
        if minor and kinds & {"sexual"}:
            raise UnsafePromptError(SEXUALIZES)
    said = " ".join(token.forms[0] for token in tokens)
    taken = OPPOSITE.search(f"{PART} {said}")
    if taken:
        word = taken[0].strip(f" {PART}")
        raise UnsafePromptError(f"a negative prompt without {word!r} asks for the opposite")
    if len(set(GARMENT.findall(said))) >= GARMENTS and not AVOIDS.search(said):
        raise UnsafePromptError("a negative prompt that takes all clothes away asks for none")


def read_tokens(text: str) -> list[Token]:
    """Return the words of a prompt as the lists read them."""
    lists = lexicon()
    text = re.sub(r"<\s*(?=1?\d\b)", " under ", re.sub(r"18\s*\+", " overeighteen ", fold(text)))
    return read(text, lambda word, met: lists.knows(word, met) or ages.is_age_word(word))


def _phrases(tokens: Sequence[Token]) -> list[list[Token]]:
    phrases: list[list[Token]] = [[]]
    for token in tokens:
        if token.forms[0] == PART:
            phrases.append([])
        else:
            phrases[-1].append(token)
    return phrases


def _as_minor(tokens: Sequence[Token], found: Sequence[Found], aged: bool) -> bool:
    """Return whether the text is about a minor alone, so that the character would be one."""
    adult = any(each.kind == "adult" for each in found)
    if aged:
        kin = any(each.kind in ("minor", "minors") and _beside(tokens, each.start) for each in found)
        return not (adult and kin)
    if any(each.kind == "teen" and not _beside(tokens, each.start) for each in found):
        return True
    return not adult and any(each.kind == "minor" and not _beside(tokens, each.start) for each in found)


def _beside(tokens: Sequence[Token], at: int) -> bool:
    """Return whether one of the words before says that somebody else is meant."""
    before = []
    for token in reversed(tokens[max(0, at - 5) : at]):
        if token.forms[0] == PART:
            break
        before.append(token.forms[0])
    return bool(COMPANY.intersection(before))
