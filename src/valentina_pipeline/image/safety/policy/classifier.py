"""Linear classifiers of minors and of sexual content: score phrases by words, neighbors and parts of words.

Logistic regressions over hashed features find phrases that the lists lack ("no máximo catorze", "only foam
as clothing"). The score of a text is the largest of its windows, so that a long prompt cannot hide a phrase.
benchmarks/age_classifier.py and sexual_classifier.py train the weights in data/.
"""

import base64
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from math import sqrt
from typing import NamedTuple

from valentina_pipeline.image.safety.policy import ages
from valentina_pipeline.image.safety.policy.lexicon import Found
from valentina_pipeline.image.safety.policy.lists import sections
from valentina_pipeline.image.safety.policy.text import PART, Token

WINDOW = 8
"""Words of a window of a long phrase."""

MAX_PHRASE = WINDOW + 2
"""Words of a phrase that is one window."""

PIECES = (3, 4, 5)
"""Letters of the parts of a word."""

KINDS = frozenset(("young", "adult", "allure", "scant", "swim", "bed", "bath", "touch"))
"""Kinds of list entries that are features; the lists refuse the others by themselves."""

NUMBER_CLASSES = ((3, "#few"), (6, "#small"), (18, "#minor"), (100, "#adult"))
"""Classes of numbers, each below its limit."""


class Word(NamedTuple):
    """A word of a prompt, a number as its class, and the kinds of list entries that begin with it."""

    text: str
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Classifier:
    """Weights of the hashed features, from -127 to 127.

    Attributes:
        weights: a weight for each feature.
        threshold: score above which a phrase is refused.
        features: names of the features of a window.
    """

    weights: Sequence[int]
    threshold: float
    features: Callable[[Sequence[Word]], set[str]]

    def refuses(self, tokens: Sequence[Token], found: Sequence[Found]) -> bool:
        """Return whether a text of these words and list entries scores above the threshold."""
        return self.score(read_words(tokens, found)) > self.threshold

    def score(self, words: Sequence[Word]) -> float:
        """Return the highest score of the windows of a text: sum of weights over root of their number."""
        found = (hash_features(self.features(window), len(self.weights)) for window in windows(words))
        return max((sum(map(self.weights.__getitem__, at)) / sqrt(len(at)) for at in found), default=-127.0)


def minor_phrase(tokens: Sequence[Token], found: Sequence[Found]) -> bool:
    """Return whether a text probably says that somebody is under 18; it counts beside something suggestive.

    Args:
        tokens: words of the text.
        found: list entries in it.
    """
    return _read_classifier("classifier.txt", phrase_features).refuses(tokens, found)


def sexual_phrase(tokens: Sequence[Token], found: Sequence[Found]) -> bool:
    """Return whether a text is probably sexual or of somebody undressed, as words or as a construction.

    Args:
        tokens: words of the text.
        found: list entries in it.
    """
    return _read_classifier("sexual_classifier.txt", construction_features).refuses(tokens, found)


@lru_cache(maxsize=2)
def _read_classifier(name: str, features: Callable[[Sequence[Word]], set[str]]) -> Classifier:
    lists = sections(name)
    packed = zlib.decompress(base64.b64decode("".join(lists["weights"])))
    return Classifier(memoryview(packed).cast("b"), float(lists["threshold"][0]), features)


def read_words(tokens: Sequence[Token], found: Sequence[Found]) -> list[Word]:
    """Return the words of a text as the classifier reads them."""
    kinds: dict[int, set[str]] = {}
    for entry in found:
        if entry.kind in KINDS:
            kinds.setdefault(entry.start, set()).add(entry.kind)
    words = ages.numbers_as_digits(tokens)
    return [Word(_number_class(word), frozenset(kinds.get(at, ()))) for at, word in words]


def _number_class(word: str) -> str:
    if not word.isdecimal():
        return word
    value = int(word[:9])
    return next((name for end, name in NUMBER_CLASSES if value < end), "#many")


def windows(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Yield short phrases, pairs of them, and overlapping windows of long phrases."""
    phrases = _phrases(words)
    for phrase in phrases:
        if len(phrase) <= MAX_PHRASE:
            yield phrase
        else:
            step = WINDOW // 2
            yield from (phrase[at : at + WINDOW] for at in range(0, len(phrase) - step, step))
    for first, second in pairwise(phrases):
        if len(first) + len(second) <= WINDOW:
            yield [*first, Word(PART), *second]


def _phrases(words: Sequence[Word]) -> list[list[Word]]:
    phrases: list[list[Word]] = [[]]
    for word in words:
        if word.text == PART:
            phrases.append([])
        else:
            phrases[-1].append(word)
    return [phrase for phrase in phrases if phrase]


def hash_features(names: set[str], size: int) -> list[int]:
    """Return the features' places in an array of this size."""
    return sorted({zlib.crc32(name.encode()) % size for name in names})


def phrase_features(window: Sequence[Word]) -> set[str]:
    """Return features of a window: words, pairs, parts of words, and kinds of list entries."""
    texts = ["^", *(word.text for word in window), "$"]
    names = {f"w{text}" for text in texts}
    names |= {f"b{first} {second}" for first, second in pairwise(texts)}
    names |= {f"s{first} {third}" for first, third in zip(texts, texts[2:], strict=False)}
    names |= {f"c{piece}" for text in texts if len(text) > 3 and text.isalpha() for piece in _pieces(text)}
    kinds = sorted({kind for word in window for kind in word.kinds})
    return (
        names
        | {f"k{kind}" for kind in kinds}
        | {f"k{first} {second}" for first, second in combinations(kinds, 2)}
    )


def construction_features(window: Sequence[Word]) -> set[str]:
    """Return the features of a phrase, and those of its construction: garments, bodies etc. as classes.

    "robe left open" and "Bluse steht offen" share "garment ... open", so that one teaches the other.
    """
    classes = word_classes()
    texts = ["^", *(classes.get(word.text, word.text) for word in window), "$"]
    names = phrase_features(window) | {f"W{text}" for text in texts if text.startswith("#")}
    names |= {f"B{first} {second}" for first, second in pairwise(texts)}
    names |= {f"S{first} {third}" for first, third in zip(texts, texts[2:], strict=False)}
    names |= {"T" + " ".join(three) for three in zip(texts, texts[1:], texts[2:], strict=False)}
    met = sorted({text for text in texts if text.startswith("#")})
    return names | {"K" + " ".join(some) for size in (2, 3) for some in combinations(met, size)}


@lru_cache(maxsize=1)
def word_classes() -> dict[str, str]:
    """Return the class of each word of word_classes.txt: "#garment"."""
    lists = sections("word_classes.txt")
    return {word: f"#{name}" for name in reversed(lists) for line in lists[name] for word in line.split()}


def _pieces(word: str) -> Iterator[str]:
    bounded = f"<{word}>"
    return (bounded[at : at + size] for size in PIECES for at in range(len(bounded) - size + 1))
