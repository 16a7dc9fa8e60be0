"""Lists of words and phrases by kind, and where a text has them.

A list is a text file: `[kind]` begins a section, commas and line ends part its entries, # begins a comment.
In an entry, `word*` is a stem, `*part*` stands anywhere in a word, `this|that` are alternatives, `...` is up
to three words. `[maybe kind]` has words that mean something else in other languages ("bite", "hard"): they
count where the text has a word of the list's `[spoken]` too.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from anyascii import anyascii

from valentina_pipeline.image.safety.policy.lists import DATA
from valentina_pipeline.image.safety.policy.text import PART, Token, fold

LONGEST = 40
"""Letters of a stem, at most."""

GAP = 3
"""Words that `...` stands for, at most."""

MAYBE, SPOKEN = "maybe ", "spoken"

SHORTEST_STEM = 3

ENDING = 2
"""Letters after a stem, at most, in a word taken together from pieces, unless the stem is long."""

LONG_STEM = 7

GREEK_OR_CYRILLIC = re.compile(r"[\u0370-\u052f]")
"""Scripts that people also write in Latin letters."""

UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts that write no spaces, or hang endings on: their words are looked for inside of others."""


@dataclass(frozen=True)
class _Word:
    """A place of a phrase: words, stems, and how many words may come before it."""

    words: frozenset[str]
    stems: tuple[str, ...]
    gap: int = 0

    def fits(self, token: Token) -> bool:
        return any(form in self.words or form.startswith(self.stems) for form in token.forms)


@dataclass(frozen=True)
class Found:
    """An entry in a text: its kind, and its tokens from `start` to before `end`."""

    kind: str
    start: int
    end: int


class Lexicon:
    """Entries of all lists, found by their first word.

    Args:
        texts: the lists by their language.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._spoken: dict[str, set[str]] = defaultdict(set)
        self._words: dict[str, list[tuple[str, tuple[_Word, ...]]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[str, tuple[_Word, ...]]]] = defaultdict(list)
        inside: dict[str, list[str]] = defaultdict(list)
        for language, text in texts.items():
            for kind, entry in entries(text):
                if kind == SPOKEN:
                    self._spoken[entry].add(language)
                else:
                    self._add(f"{kind} {language}" if kind.startswith(MAYBE) else kind, entry, inside)
        self._inside = {kind: re.compile("|".join(map(re.escape, parts))) for kind, parts in inside.items()}
        self._vocabulary = frozenset(w for w in self._words if len(w) > 2) | frozenset(
            word
            for entries in (*self._words.values(), *self._stems.values())
            for _, rest in entries
            for place in rest
            for word in place.words
            if len(word) > 2
        )
        self._single = frozenset(
            word for word, entries in self._words.items() for _, rest in entries if not rest
        )
        self._single_stems = frozenset(
            word for word, entries in self._stems.items() for _, rest in entries if not rest
        )

    def _add(self, kind: str, entry: str, inside: dict[str, list[str]]) -> None:
        if entry.startswith("*") or UNSPACED.search(entry):
            inside[kind].append(entry.strip("*"))
            return
        gap, places = 0, []
        for place in entry.split():
            if place == "...":
                gap = GAP
                continue
            alternatives = place.split("|")
            words = frozenset(each for each in alternatives if not each.endswith("*"))
            stems = tuple(each[:-1] for each in alternatives if each.endswith("*"))
            places.append(_Word(words, stems, gap))
            gap = 0
        first, *rest = places
        for word in first.words:
            self._words[word].append((kind, tuple(rest)))
        for stem in first.stems:
            self._stems[stem].append((kind, tuple(rest)))

    def knows(self, word: str, met: int = 0) -> bool:
        """Return whether a word is an entry's.

        Args:
            word: as it may be meant.
            met: letters before the last piece of a word taken together: a stem has to cover most of that
                piece, so that "nudi sulla" and "swing era" are two words. 0 for a word in one piece.
        """
        if word in self._single or (not met and word in self._vocabulary):
            return True
        return any(
            word[:end] in self._single_stems and (not met or _reaches(word, met, end))
            for end in range(max(SHORTEST_STEM, met + 1), len(word) + 1)
        )

    def find(self, tokens: Sequence[Token]) -> Iterator[Found]:
        """Yield each entry that the text has, but for those inside of an innocent one."""
        found = list(self._all(tokens))
        innocent, plain = _places(found, "innocent"), _places(found, "plain")
        languages = {each for token in tokens for form in token.forms for each in self._spoken.get(form, ())}
        for each in found:
            kind = _certain(each.kind, languages, alone=len(tokens) == 1)
            at = range(each.start, each.end)
            hidden = innocent.intersection(at) or (kind in ("minor", "teen") and plain.intersection(at))
            if kind and kind != "innocent" and not hidden:
                yield Found("minors" if kind == "plain" else kind, each.start, each.end)

    def _all(self, tokens: Sequence[Token]) -> Iterator[Found]:
        for at, token in enumerate(tokens):
            for form in token.forms:
                yield from self._from(tokens, at, self._words.get(form, ()))
                for end in range(SHORTEST_STEM, min(len(form), LONGEST) + 1):
                    yield from self._from(tokens, at, self._stems.get(form[:end], ()))
                if "*" in form:
                    yield from self._masked(form, at)
                else:
                    yield from (
                        Found(k, at, at + 1) for k, parts in self._inside.items() if parts.search(form)
                    )

    def _from(
        self, tokens: Sequence[Token], at: int, entries: Sequence[tuple[str, tuple[_Word, ...]]]
    ) -> Iterator[Found]:
        for kind, rest in entries:
            end = _end(tokens, at + 1, rest)
            if end is not None:
                yield Found(kind, at, end)

    def _masked(self, form: str, at: int) -> Iterator[Found]:
        """Yield the entries that a word with letters left out, "n*de", may be."""
        if len(form.replace("*", "")) < 2:
            return
        hole = re.compile(form.replace("*", "[a-z]"))
        for word in self._single | self._single_stems:
            if len(word) == len(form) and hole.fullmatch(word):
                entries = [*self._words.get(word, ()), *self._stems.get(word, ())]
                yield from (Found(kind, at, at + 1) for kind, rest in entries if not rest)


def _places(found: Sequence[Found], kind: str) -> set[int]:
    return {at for each in found if each.kind == kind for at in range(each.start, each.end)}


def _certain(kind: str, languages: set[str], alone: bool) -> str:
    """Return a kind without "maybe", or "" for an entry of a language that the text is not in.

    A text of one word is in any language: what may be sexual is.
    """
    if not kind.startswith(MAYBE):
        return kind
    sort, _, language = kind.removeprefix(MAYBE).partition(" ")
    return sort if language in languages or (alone and sort == "sexual") else ""


def _reaches(word: str, met: int, end: int) -> bool:
    """Return whether a stem up to `end` covers most of the last piece, which begins at `met`."""
    left = len(word) - end
    covered = end - met
    return (end >= LONG_STEM and covered > ENDING) or (left <= ENDING and 2 * left < covered)


def _end(tokens: Sequence[Token], at: int, places: Sequence[_Word]) -> int | None:
    """Return where the last of these places ends if the text goes on with them, else None."""
    if not places:
        return at
    for skipped in range(places[0].gap + 1):
        here = at + skipped
        if here >= len(tokens) or tokens[here].forms[0] == PART:
            return None
        if places[0].fits(tokens[here]):
            end = _end(tokens, here + 1, places[1:])
            if end is not None:
                return end
    return None


def entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the folded text of each entry of a list."""
    kind = ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            kind = line.strip("[]")
            continue
        for written in filter(None, map(str.strip, line.split(","))):
            entry = fold(written)
            yield kind, entry
            latin = anyascii(entry).lower()
            if latin != entry and len(latin) >= 6 and GREEK_OR_CYRILLIC.search(entry):
                yield kind, re.sub(r"[^a-z0-9 *|.]", "", latin)


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """Return all lists of data/."""
    files = sorted(DATA.glob("words_*.txt"))
    return Lexicon({file.stem.removeprefix("words_"): file.read_text("utf-8") for file in files})
