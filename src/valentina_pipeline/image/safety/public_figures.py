"""Real people who are not drawn: where a text names one of policy/data/people.txt.

A list knows few of those there are: it shows what is meant, and the rights ledgers decide who is drawn. Names
that are also common words ("Pink", "Jack Black" beside a union jack and black boots) would refuse what is
innocent and stay out.
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

LONGEST = 6
"""Words of a name, at most."""

LETTERS = 40
"""Letters of a name, at most."""

SURE = 7
"""Letters of a name, at least, that is read where a letter of it is wrong."""

HANDLE = 9
"""Likewise, of several names written as one."""

LONG = 11
"""Letters of sounds, at least, that are read where one of them is wrong."""

HEARD = 6
"""Letters of several names, at least, that are read where they only sound alike: "Cardy B"."""

BETWEEN = 2
"""Middle names that a name in the list lacks, at most."""

EVERYDAY = words("everyday")
"""Words of names that stand in sentences by themselves."""

ORDINARY = words("ordinary")
"""Words that are nearly a name: "bowling", "dragon"."""

PARTICLES = words("particles")

GIVEN = {name: each.split("/") for each in words("given") for name in each.split("/")}
"""Given names: the ways in which they are said, "Ed" and "Edward"."""

SMALL = COMMON | words("between")
"""Words that are no middle names."""

OF_SENTENCES = SMALL - PARTICLES
"""Words that part a name from what follows."""

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
"""Letters that are written for each other, in the order in which they are replaced."""


@dataclass(frozen=True)
class _People:
    """The list, for looking names up.

    Attributes:
        written: letters alone -> the person.
        ends: (first word, last word) -> the person.
        inside: names in scripts without spaces -> the person.
        near: by first letter, and by the last two, the letters of names that may be misspelt.
        heard: sounds of several names -> the person.
        sounding: by the first two letters, these sounds.
        lone: names of one word, as in `written`.
        words: all words of names.
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
    """Raise UnsafePromptError where the text names a real person of the list; else do nothing.

    Read are words whatever their case, accents, look-alike letters and digits, and the dots, hyphens and
    spaces between them; with middle names, surname first, as handles, and misspelt by a letter or two where
    the name is long. "A Paris Hilton hotel lobby" is refused too, "a Hilton in Paris" is not.

    Args:
        text: of a prompt or a negative prompt.
        own: the character's name: whose rights are on record is drawn, also if listed.
    """
    people = _people()
    tokens = read(text, lambda word, met: word in people.written or (not met and word in people.words))
    itself = people.written.get(_letters(own), own)
    for name in _named(tokens):
        if name != itself and _letters(name) != _letters(own):
            raise UnsafePromptError(
                f"it names a real person ({name}): only characters with rights on record are drawn"
            )


def _named(tokens: Sequence[Token]) -> Iterator[str]:
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
    """Return how many words there are before one that is of a sentence: "princess in a tower"."""
    firsts = [token.forms[0] for token in tokens[:LONGEST]]
    small = (at for at, word in enumerate(firsts) if word == "a" or (len(word) == 2 and word in OF_SENTENCES))
    return next(small, LONGEST)


def _runs(tokens: Sequence[Token]) -> Iterator[tuple[str, int]]:
    """Yield all that the first words are, written as one, and how many words they are."""
    runs = [""]
    for count, token in enumerate(tokens[:LONGEST], 1):
        if token.forms[0] == PART:
            return
        runs = [run + form for run in runs for form in token.forms[:4]][:32]
        yield from ((run, count) for run in runs)


def _in_handle(form: str) -> Iterator[str]:
    """Yield whose name a handle such as "taylorswiftofficial" has in it."""
    written = _people().written
    for start in range(len(form)):
        for end in range(start + 8, min(len(form), start + LETTERS) + 1):
            if form[start:end] in written:
                yield written[form[start:end]]


def _apart(tokens: Sequence[Token], at: int) -> Iterator[str]:
    """Yield whose first and last name stand around middle names, or the other way round."""
    people = _people()
    parted, between = False, 0
    for there in range(at + 1, min(len(tokens), at + LONGEST)):
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
        if parted or between > BETWEEN or second.forms[0] in SMALL - PARTICLES:
            return


@lru_cache(maxsize=65536)
def _misspelt(run: str, count: int) -> str | None:
    """Return who may be meant by the letters of so many words that are nearly a name's."""
    people = _people()
    if not run.isascii() or len(run) < HEARD or run in ORDINARY:
        return None
    if count > 1 and (name := _heard(_sounds(run))):
        return name
    for written in [*people.near.get(run[0], ()), *people.near.get(run[-2:], ())]:
        allowed = _slips(len(written))
        close = abs(len(written) - len(run)) <= allowed
        alike = close and OSA.distance(run, written, score_cutoff=allowed) <= allowed
        if alike and (count > 1 or written in people.lone or len(written) >= HANDLE):
            return people.written[written]
    return None


def _heard(sounds: str) -> str | None:
    """Return whose name sounds so, or in one letter otherwise where it is long."""
    people = _people()
    if sounds in people.heard or len(sounds) < LONG:
        return people.heard.get(sounds)
    alike = (
        name for name in people.sounding.get(sounds[:2], ()) if OSA.distance(sounds, name, score_cutoff=1) < 2
    )
    return next((people.heard[name] for name in alike), None)


def _sounds(run: str) -> str:
    """Return letters as they sound, more or less: "nickiminage" and "nickiminaj" are "nikiminaj"."""
    for letters, sound in SOUNDS:
        run = letters.sub(sound, run)
    return run


def _slips(length: int) -> int:
    """Return how many letters of a name so long may be wrong."""
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
    """Enter one of the names that a person has."""
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
    elif len(written) >= HEARD and not everyday:
        sounds = _sounds(written)
        people.heard.setdefault(sounds, name)
        people.sounding[sounds[:2]].append(sounds)
    if len(written) >= SURE and not everyday:
        people.near[written[0]].append(written)
        people.near[written[-2:]].append(written)
