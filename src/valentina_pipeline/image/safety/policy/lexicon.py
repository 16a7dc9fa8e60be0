"""Lists of words and phrases by kind, and where a text has them.

A list is a text file: `[kind]` begins a section, commas and line ends part its entries, # begins a comment.
In an entry, `word*` is a stem, `*part*` stands anywhere in a word, `this|that` are alternatives, `...` is up
to three words.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from anyascii import anyascii

from valentina_pipeline.image.safety.policy.lists import DATA
from valentina_pipeline.image.safety.policy.text import PART, Token, fold

LONGEST = 40
"""Letters of a stem, at most."""

GAP = 3
"""Words that `...` stands for, at most."""

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
    """Entries of all lists, found by their first word."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words: dict[str, list[tuple[str, tuple[_Word, ...]]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[str, tuple[_Word, ...]]]] = defaultdict(list)
        inside: dict[str, list[str]] = defaultdict(list)
        for text in texts:
            for kind, entry in _entries(text):
                self._add(kind, entry, inside)
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
            met: letters before the last piece of a word taken together: a stem has to reach into that
                piece and nearly to its end, so that "nudi sulla" is two words. 0 for a word in one piece.
        """
        if word in self._single or (not met and word in self._vocabulary):
            return True
        return any(
            word[:end] in self._single_stems and (not met or len(word) - end <= ENDING or end >= LONG_STEM)
            for end in range(max(SHORTEST_STEM, met + 1), len(word) + 1)
        )

    def find(self, tokens: Sequence[Token]) -> Iterator[Found]:
        """Yield each entry that the text has, but for those inside of an innocent one."""
        found = list(self._all(tokens))
        innocent = {at for each in found if each.kind == "innocent" for at in range(each.start, each.end)}
        for each in found:
            if each.kind != "innocent" and not innocent.intersection(range(each.start, each.end)):
                yield each

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


def _entries(text: str) -> Iterator[tuple[str, str]]:
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
    return Lexicon([file.read_text("utf-8") for file in sorted(DATA.glob("words_*.txt"))])
