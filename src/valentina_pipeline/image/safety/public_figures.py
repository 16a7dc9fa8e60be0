"""Public figures: reject texts that name a real person of policy/data/people.txt.

The list is incomplete by nature: it illustrates the rule, and the rights ledgers decide which people may be
generated. Names that are also common words ("Pink", "Jack Black" beside a union jack and black boots) are not
listed, because they would reject innocent texts.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from rapidfuzz.distance import OSA

from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.image.safety.policy.lexicon import UNSPACED
from valentina_pipeline.image.safety.policy.lists import DATA, words
from valentina_pipeline.image.safety.policy.text import COMMON, PART, Token, fold, forms, read

MAX_WORDS = 6
"""Maximum number of words in a name."""

MAX_LETTERS = 40
"""Maximum number of letters in a name."""

MIN_MISSPELT_LETTERS = 7
"""Minimum number of letters in a name that is also matched with a misspelling."""

MIN_HANDLE_LETTERS = 9
"""The same for names of several words that are written as one."""

MIN_FUZZY_SOUNDS = 11
"""Minimum length of a phonetic key that is also matched with one wrong letter."""

MIN_PHONETIC_LETTERS = 6
"""Minimum number of letters in names of several words that are matched phonetically: "Cardy B"."""

MAX_MIDDLE_NAMES = 2
"""Maximum number of middle names beyond those in the list."""

EVERYDAY = words("everyday")
"""Words of names that are also everyday words."""

ORDINARY = words("ordinary")
"""Words that are almost a name: "bowling", "dragon"."""

PARTICLES = words("particles")

GIVEN = {name: line.split("/") for line in words("given") for name in line.split("/")}
"""Given name -> its variants, such as "Ed" and "Edward"."""

FUNCTION_WORDS = COMMON | words("between")
"""Words that cannot be middle names."""

SENTENCE_WORDS = FUNCTION_WORDS - PARTICLES
"""Words that end a name."""

SOUNDS = tuple(
    (re.compile(letters), sound)
    for letters, sound in (
        (r"ph", "f"),
        (r"d?ge$|dge", "j"),
        (r"ck|qu?", "k"),
        (r"c(?=[eiy])|z", "s"),
        (r"c", "k"),
        (r"x", "ks"),
        (r"(?<=.)h", ""),
        (r"ie|ey|ee|ea|y", "i"),
        (r"oo|ou", "u"),
        (r"au", "o"),
        (r"w", "v"),
        (r"(.)\1+", r"\1"),
        (r"(?<=.)e$", ""),
    )
)
"""Replacements of the phonetic key, in their order."""


@dataclass(frozen=True)
class _People:
    """Lookup tables of the list.

    Attributes:
        written: letters without spaces -> the person.
        ends: (first word, last word) -> the person.
        inside: names in scripts without spaces -> the person.
        near: first letter or last two letters -> names that are also matched with misspellings.
        heard: phonetic key of names of several words -> the person.
        sounding: first two letters of a key -> phonetic keys.
        lone: names of one word, in the form of `written`.
        words: all words of names with at least 4 letters.
    """

    written: dict[str, str]
    ends: dict[tuple[str, str], str]
    inside: dict[str, str]
    near: dict[str, list[str]]
    heard: dict[str, str]
    sounding: dict[str, list[str]]
    lone: set[str]
    words: frozenset[str]


def refuse_real_person(text: str, own: str = "") -> None:
    """Raise UnsafePromptError if the text names a real person of the list.

    Matching ignores case, accents, look-alike letters and digits, and dots, hyphens and spaces between words.
    It also finds names with middle names, with the surname first, in handles, and, if long, with a wrong
    letter or two. "A Paris Hilton hotel lobby" is rejected too, "a Hilton in Paris" is not.

    Args:
        text: a prompt or a negative prompt.
        own: the character's name, which is allowed even if listed, because its rights are on record.
    """
    people = _people()
    tokens = read(text, lambda word, met: word in people.written or (not met and word in people.words))
    itself = people.written.get(_letters(own), own)
    for name in _find_names(tokens):
        if name != itself and _letters(name) != _letters(own):
            raise UnsafePromptError(
                f"it names a real person ({name}): only characters with rights on record may be generated"
            )


def _find_names(tokens: Sequence[Token]) -> Iterator[str]:
    people = _people()
    for at, token in enumerate(tokens):
        if token.forms[0] == PART:
            continue
        for form in token.forms:
            if form.isascii() and len(form) > 8:
                yield from _in_handle(form)
        sentence = _sentence(tokens[at:])
        for run, count in _runs(tokens[at:]):
            if not run.isascii():
                yield from (name for written, name in people.inside.items() if written in run)
            name = people.written.get(run) or (_misspelt(run, count) if count <= min(3, sentence) else None)
            if name:
                yield name
        yield from _apart(tokens, at)


def _sentence(tokens: Sequence[Token]) -> int:
    """Return the number of words before the first word that ends a name: "princess in a tower"."""
    firsts = [token.forms[0] for token in tokens[:MAX_WORDS]]
    ends = (i for i, word in enumerate(firsts) if word == "a" or (len(word) == 2 and word in SENTENCE_WORDS))
    return next(ends, MAX_WORDS)


def _runs(tokens: Sequence[Token]) -> Iterator[tuple[str, int]]:
    """Yield the first words joined, in all their forms, with their number."""
    runs = [""]
    for count, token in enumerate(tokens[:MAX_WORDS], 1):
        if token.forms[0] == PART:
            return
        runs = [run + form for run in runs for form in token.forms[:4]][:32]
        yield from ((run, count) for run in runs)


def _in_handle(form: str) -> Iterator[str]:
    """Yield the people whose name a handle such as "taylorswiftofficial" contains."""
    written = _people().written
    for start in range(len(form)):
        for end in range(start + 8, min(len(form), start + MAX_LETTERS) + 1):
            if form[start:end] in written:
                yield written[form[start:end]]


def _apart(tokens: Sequence[Token], at: int) -> Iterator[str]:
    """Yield the people whose first and last name enclose middle names, in either order."""
    people = _people()
    parted, between = False, 0
    for there in range(at + 1, min(len(tokens), at + MAX_WORDS)):
        second = tokens[there]
        if second.forms[0] == PART:
            parted = True
            continue
        beside = there == at + 1 + parted
        between += second.forms[0] not in PARTICLES
        for pair in product(tokens[at].forms, second.forms):
            turned = pair[1], pair[0]
            if not parted and pair in people.ends:
                yield people.ends[pair]
            plain = EVERYDAY.issuperset(turned) or (not parted and EVERYDAY.intersection(turned))
            if beside and turned in people.ends and not plain:
                yield people.ends[turned]
        if parted or between > MAX_MIDDLE_NAMES or second.forms[0] in FUNCTION_WORDS - PARTICLES:
            return


@lru_cache(maxsize=65536)
def _misspelt(run: str, count: int) -> str | None:
    """Return the person whose name these joined words misspell, or None; `count` is the number of words."""
    people = _people()
    if not run.isascii() or len(run) < MIN_PHONETIC_LETTERS or run in ORDINARY:
        return None
    if count > 1 and (name := _heard(_sounds(run))):
        return name
    for written in [*people.near.get(run[0], ()), *people.near.get(run[-2:], ())]:
        allowed = _max_typos(len(written))
        close = abs(len(written) - len(run)) <= allowed
        similar = close and OSA.distance(run, written, score_cutoff=allowed) <= allowed
        if similar and (count > 1 or written in people.lone or len(written) >= MIN_HANDLE_LETTERS):
            return people.written[written]
    return None


def _heard(sounds: str) -> str | None:
    """Return the person with this phonetic key, or, if it is long, with a key that differs in one letter."""
    people = _people()
    if sounds in people.heard or len(sounds) < MIN_FUZZY_SOUNDS:
        return people.heard.get(sounds)
    similar = (
        name for name in people.sounding.get(sounds[:2], ()) if OSA.distance(sounds, name, score_cutoff=1) < 2
    )
    return next((people.heard[name] for name in similar), None)


def _sounds(run: str) -> str:
    """Return the phonetic key of letters: "nickiminage" and "nickiminaj" both give "nikiminaj"."""
    for letters, sound in SOUNDS:
        run = letters.sub(sound, run)
    return run


def _max_typos(length: int) -> int:
    """Return the number of wrong letters allowed in a name of this length."""
    return 1 if length < 12 else 2 if length < 18 else 3


def _letters(name: str) -> str:
    return "".join(_parts(name))


def _parts(name: str) -> list[str]:
    tokens = [token.forms for token in read(name, lambda word, met: False) if token.forms[0] != PART]
    return [forms[0] if forms[0].isascii() else forms[-1] for forms in tokens]


@lru_cache(maxsize=1)
def _people() -> _People:
    people = _People({}, {}, {}, defaultdict(list), {}, defaultdict(list), set(), frozenset())
    parts: set[str] = set()
    for line in (DATA / "people.txt").read_text("utf-8").splitlines():
        name, _, others = line.partition("#")[0].partition("=")
        for called in filter(None, map(str.strip, [name, *others.split(",")])):
            _enter(people, called, name.strip(), parts)
    return replace(people, words=frozenset(parts))


def _enter(people: _People, called: str, name: str, known: set[str]) -> None:
    """Add one of a person's names to the tables."""
    folded = fold(called)
    if UNSPACED.search(folded) or not forms(folded.replace(" ", ""))[0].isascii():
        people.inside[folded.replace(" ", "")] = name
        if UNSPACED.search(folded):
            people.inside[folded] = name
        if UNSPACED.search(folded) or " " not in folded:  # "трамп" in Latin letters is a tramp
            return
    parts = _parts(called)
    written = "".join(parts)
    people.written.setdefault(written, name)
    known.update(part for part in parts if len(part) >= 4)
    if len(parts) >= 2 and min(len(parts[0]), len(parts[-1])) >= 2:
        for given in GIVEN.get(parts[0], parts[:1]):
            people.ends.setdefault((given, parts[-1]), name)
    if len(parts) == 3 and "-" in called:
        people.ends.setdefault((parts[0], parts[1]), name)
    everyday = all(part in EVERYDAY for part in parts)
    if len(parts) == 1:
        people.lone.add(written)
    elif len(written) >= MIN_PHONETIC_LETTERS and not everyday:
        sounds = _sounds(written)
        people.heard.setdefault(sounds, name)
        people.sounding[sounds[:2]].append(sounds)
    if len(written) >= MIN_MISSPELT_LETTERS and not everyday:
        people.near[written[0]].append(written)
        people.near[written[-2:]].append(written)
