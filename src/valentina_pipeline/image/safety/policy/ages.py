"""Ages under 18 in a text, in digits and words: "16 y/o", "aged fifteen", "ragazza di quindici anni"."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from valentina_pipeline.image.safety.policy.lists import sections
from valentina_pipeline.image.safety.policy.text import PART, Token, fold

ADULT = 18
NEAR = 4
"""Words around years in which something else may be said to have lasted so long."""

N = r"(?<!\S)(?:0?\d|1[0-7])(?!\S)"
AND = ("and", "e", "y", "et", "und", "en")
PARTS = (
    "HEDGE", "ENDS", "END", "LIKE", "PERSON", "ORDINAL", "UNTIL", "FIRST", "PUPIL", "CLASSE", "KLASSE",
    "M", "G",
)  # fmt: skip
"""Parts of patterns, each before those that it has inside of it."""

LASTED = re.compile(
    r"(?!born|geb|n[aeo]|of)(?:\S+ ){0,2}?\d+ "
    r"(?:years?|yrs?|anos|ans|anni|jahren?|months?|mois|meses|mesi|monate?n?)(?: ,)?"
)
"""Units that may also be how long something took."""

FRENCH = {"sept": "17", "huit": "18", "neuf": "19"}
"""What "dix" and these are together."""

TENS = "99"
"""What "twenty" and "twenty one" are in digits: it is enough that they are no minor's."""


@dataclass(frozen=True)
class Words:
    """What ages.txt says: number words by value, and patterns of the rest."""

    numbers: dict[str, int]
    tens: frozenset[str]
    aged: re.Pattern[str]
    years: re.Pattern[str]
    durations: re.Pattern[str]
    things: re.Pattern[str]
    english: re.Pattern[str]
    person: re.Pattern[str]
    born: re.Pattern[str]
    hints: re.Pattern[str]
    hinted_born: re.Pattern[str]


def minor_age(tokens: Sequence[Token]) -> str | None:
    """Return how a text says that somebody is under 18, or None."""
    words = _words()
    text = _text(tokens)
    for match in words.aged.finditer(text):
        if not _thing(text, match):
            return match[0]
    for match in words.english.finditer(text):
        if not _thing(text, match):
            return match[0]
    for match in words.years.finditer(text):
        if not _lasts(text, match) and not _thing(text, match):
            return match[0]
    return _born(text, words.born)


def minor_hint(tokens: Sequence[Token]) -> str | None:
    """Return what is an age under 18 or a class of a school beside something suggestive, or None.

    In a plain scene it may mean something else: "barely 16", "en seconde", "Kl. 7", "no more than 12".
    """
    words = _words()
    text = _text(tokens)
    said = (m for m in words.hints.finditer(text) if not (LASTED.fullmatch(m[0]) and _lasts(text, m)))
    match = next(said, None)
    return match[0] if match else _born(text, words.hinted_born)


def _lasts(text: str, match: re.Match[str]) -> bool:
    """Return whether it is said near years that something took so long."""
    around = [*text[: match.start()].split()[-NEAR:], *text[match.end() :].split()[:NEAR]]
    return bool(_words().durations.search(" ".join(around)))


def _thing(text: str, match: re.Match[str]) -> bool:
    """Return whether an age is a dog's, a house's or a whisky's."""
    things = _words().things
    before = text[: match.start()].rpartition(PART)[2].split()
    after = text[match.end() :].partition(PART)[0].split()
    if things.search(" ".join(after[:2])):
        return True
    people = any(map(_words().person.match, [*before, *after]))
    return bool(things.search(" ".join(before[-5:]))) and not people


def _born(text: str, pattern: re.Pattern[str]) -> str | None:
    latest = date.today().year - ADULT
    found = ((match[0], match[1] or match[2]) for match in pattern.finditer(text))
    return next((said for said, year in found if int(year) >= latest), None)


def is_age_word(word: str) -> bool:
    """Return whether it is a number's word."""
    return word in _words().numbers


def _text(tokens: Sequence[Token]) -> str:
    return " ".join(word for _, word in numbers_as_digits(tokens))


def numbers_as_digits(tokens: Sequence[Token]) -> list[tuple[int, str]]:
    """Return (place of its token, word) of each word: number words as digits, and "twenty one" as 99."""
    words = _words()
    read: list[tuple[int, str]] = []
    dix = False
    for at, token in enumerate(tokens):
        form = next((f for f in _readings(token) if f in words.numbers or f in words.tens), _latin(token))
        last = read[-1][1] if read else ""
        if form in words.tens:
            read.append((at, TENS))
        elif dix and form in FRENCH:
            read[-1] = (read[-1][0], FRENCH[form])
        elif last != TENS or (form not in words.numbers and form not in AND):
            read.append((at, str(words.numbers.get(form, form))))
        dix = form == "dix"
    return read


def _readings(token: Token) -> list[str]:
    """Return what a word may be read as, but short ones of doubled letters: "trees" is no "tres"."""
    first = token.forms[0]
    plain = first.isascii() and first.isalpha()
    return [form for form in token.forms if form == first or not plain or len(form) > 4]


def _latin(token: Token) -> str:
    """Return the word, Turkish and Polish letters as plain ones."""
    first = token.forms[0]
    return token.forms[1] if len(token.forms) > 1 and "z" < max(first) < "\u0250" else first


@lru_cache(maxsize=1)
def _words() -> Words:
    lists = sections("ages.txt")
    numbers: dict[str, int] = {}
    for line in lists["numbers"]:
        for value, spellings in enumerate(line.partition(":")[2].split(",")):
            numbers |= {fold(word.strip()): value for word in spellings.split("/") if word.strip()}
    numbers |= {f"{word}{end}": value for word, value in numbers.items() for end in ("einhalb", "ish")}
    return Words(
        numbers=numbers,
        tens=frozenset(_several(lists["tens"])),
        aged=re.compile(rf"{N} (?:{_any(lists['aged'])})(?!\w)|{_pattern('asian')}"),
        years=re.compile(rf"{N} (?:{_any(lists['years'])})(?!\w)(?! (?:\d0|99)(?!\S))"),
        durations=re.compile(rf"(?<!\w)(?:{_any(lists['durations'])})(?!\w)"),
        things=re.compile(rf"(?<!\w)(?:{_any(lists['things'])})(?!\w)"),
        english=re.compile(rf"(?<!\S)(?:{_pattern('english')})"),
        person=re.compile(_part("PERSON")),
        born=re.compile(rf"(?<!\S)(?:{_pattern('born')})"),
        hints=re.compile(rf"(?<!\S)(?:{_pattern('hints')})"),
        hinted_born=re.compile(rf"(?<!\S)(?:{_pattern('hinted_born')})"),
    )


def _several(lines: list[str]) -> list[str]:
    return [fold(word.strip()) for line in lines for word in line.split(",") if word.strip()]


def _any(lines: list[str]) -> str:
    words = sorted(_several(lines), key=len, reverse=True)
    return "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words)


def _pattern(section: str) -> str:
    """Return the expressions of a section as one."""
    whole = "|".join(sections("age_patterns.txt")[section])
    for name in PARTS:
        whole = whole.replace(f"<{name}>", _part(name))
    return whole.replace("<N>", N)


def _part(name: str) -> str:
    parts = (line.partition(": ") for line in sections("age_patterns.txt")["parts"])
    return next(pattern for part, _, pattern in parts if part == name)
