"""Train the classifier of minors' ages, data/classifier.txt of the word policy, from templates.

    uv run python benchmarks/age_classifier.py            # writes the weights; half a minute
    uv run python benchmarks/age_classifier.py --measure  # rates on the tests' samples, cost of a prompt

Texts of minors: templates in age_templates/ and the lists' entries for minors. Innocent texts: templates, the
lists' entries for adults and innocent phrases, tests/image/safety/prompts/innocent_dev.txt, and the common
words of CLIP's vocabulary (open_clip, MIT). No other sample of the tests is used for training. The same
sources and the same versions of numpy and scipy give the same bytes.
"""

import argparse
import base64
import gzip
import os
import random
import re
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # sums in one order

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from prompt_samples import IN_BED, PROMPTS, read_sample
from valentina_pipeline.image.safety.policy import ages, classifier, judge
from valentina_pipeline.image.safety.policy.classifier import Word, hash_features, phrase_features, windows
from valentina_pipeline.image.safety.policy.lexicon import entries, lexicon
from valentina_pipeline.image.safety.policy.lists import DATA
from valentina_pipeline.image.safety.policy.text import PART
from valentina_pipeline.image.safety.public_figures import refuse_real_person

HERE = Path(__file__).parent
WEIGHTS = DATA / "classifier.txt"

NUM_FEATURES = 1 << 16

NUM_VARIANTS = 6
"""Texts of each template, at most."""

NUM_COMMON = 16_000
"""Words of CLIP's vocabulary."""

MAX_JOINED = 12
"""Words of two texts joined."""

L2 = 3e-6
NUM_ITERATIONS = 120
THRESHOLD = 1.0
"""Log odds above which a phrase is of a minor: a probability of 0.73."""

MINORS = ("minor", "minors", "teen", "teens", "self", "girl")
ADULTS = ("innocent", "adult", "swim", "bed", "bath")


class Text(NamedTuple):
    """A text for training: its language, whether it is to be found, and its weight."""

    text: str
    language: str
    positive: bool
    weight: float = 1.0


Example = tuple[set[str], bool, float]
"""Features of a window, whether it is to be found, and its weight."""


def templates(file: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the words for each slot, and the templates of each section."""
    slots: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {}
    section: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if name := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(name[1], [])
        elif slot := re.match(r"(\w+) = (.*)", line):
            slots[slot[1]] = slot[2].split(" | ")
        elif line:
            section.append(line)
    return slots, found


def texts(rng: random.Random) -> Iterator[Text]:
    for language in IN_BED:
        slots, found = templates(HERE / f"age_templates/{language}.txt")
        for section, lines in found.items():
            for line in lines:
                variants = {fill(line, slots, rng) for _ in range(NUM_VARIANTS if "{" in line else 1)}
                yield from (Text(text, language, section == "minor") for text in sorted(variants))
        for kind, entry in entries((DATA / f"words_{language}.txt").read_text("utf-8")):
            if kind in MINORS or kind in ADULTS:
                text = write_entry(entry, rng)
                yield Text(text, language, kind in MINORS, 0.7 if kind in MINORS else 1.0)
    for _, line in read_sample("innocent_dev.txt"):
        yield Text(line, "en", False, 2.0)
    yield from common_phrases(rng)


def write_entry(entry: str, rng: random.Random) -> str:
    """Return a list's entry as a text: one of the alternatives of each word."""
    words = entry.replace("*", "").replace("...", "").split()
    return " ".join(rng.choice(word.split("|")) for word in words)


def common_phrases(rng: random.Random) -> Iterator[Text]:
    """Yield innocent phrases of common English words."""
    common = common_words()
    slots, _ = templates(HERE / "age_templates/en.txt")
    for word in common:
        phrase = [word, *(rng.choice(common[:1500]) for _ in range(rng.randrange(4)))]
        rng.shuffle(phrase)
        text = " ".join(phrase)
        if rng.random() < 0.4:
            text = f"{rng.choice(slots['who'])} {text}"
        if rng.random() < 0.2:
            text = f"{text}, {rng.choice(slots['style'])}"
        yield Text(text, "en", False, 0.4)


def fill(template: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(slots[slot[1]]), template)


def common_words() -> list[str]:
    """Return words of CLIP's vocabulary, the most frequent first, without those of the lists for minors."""
    spec = find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1:]
    joined = ("".join(line.split()) for line in lines)
    words = (word.removesuffix("</w>") for word in joined if word.endswith("</w>"))
    words = (word for word in words if len(word) > 2 and word.isascii() and word.isalpha())
    return list(islice((word for word in words if not _of_minors(word)), NUM_COMMON))


def _of_minors(word: str) -> bool:
    kinds = {entry.kind for entry in lexicon().find(judge.read_tokens(word))}
    return ages.is_age_word(word) or not kinds.isdisjoint(MINORS)


@cache
def read(text: str) -> tuple[Word, ...]:
    tokens = judge.read_tokens(text)
    return tuple(classifier.read_words(tokens, list(lexicon().find(tokens))))


def examples(
    found: Sequence[Text], names: Callable[[Sequence[Word]], set[str]], rng: random.Random
) -> Iterator[Example]:
    """Yield features, label and weight: windows of the texts, and texts joined to an innocent one."""
    innocent = {
        lang: [text for text in found if text.language == lang and not text.positive] for lang in IN_BED
    }
    for text in found:
        words = list(read(text.text))
        for window in [words] if text.positive and len(words) <= classifier.MAX_PHRASE else windows(words):
            yield names(window), text.positive, text.weight
        if rng.random() < 0.7:
            other = list(read(rng.choice(innocent[text.language]).text))
            between = [Word(PART)] if rng.random() < 0.4 else []
            if not text.positive or len(words) + len(other) <= MAX_JOINED:
                joined = [*words, *between, *other] if rng.random() < 0.5 else [*other, *between, *words]
                yield names(joined[:MAX_JOINED]), text.positive, text.weight


def train(found: Iterable[Example], size: int) -> tuple[np.ndarray, float]:
    """Return the weights and the bias of the logistic regression with this number of hashed features."""
    hashed = ((hash_features(names, size), label, share) for names, label, share in found)
    rows, labels, shares = zip(*hashed, strict=True)
    ends = np.cumsum([0, *map(len, rows)])
    values = np.concatenate([np.full(len(row), 1 / np.sqrt(len(row))) for row in rows])
    matrix = csr_matrix((values, np.concatenate(rows), ends), shape=(len(rows), size))
    transposed = matrix.T.tocsr()
    label = np.array(labels, float)
    share = np.array(shares) / sum(shares)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = point[:-1], point[-1]
        score = matrix @ weights + bias
        error = share * (1 / (1 + np.exp(-score)) - label)
        total = (share * (np.logaddexp(0, score) - label * score)).sum() + L2 / 2 * (weights**2).sum()
        return float(total), np.append(transposed @ error + L2 * weights, error.sum())

    start = np.zeros(size + 1)
    point = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": NUM_ITERATIONS}).x
    return point[:-1], float(point[-1])


def write(file: Path, weights: np.ndarray, bias: float, threshold: float) -> None:
    """Write the weights as integers of 8 bits, and the threshold, log odds, on their scale."""
    scale = 127 / np.abs(weights).max()
    packed = zlib.compress(np.round(weights * scale).astype(np.int8).tobytes(), 9)
    text = base64.b64encode(packed).decode()
    limit = f"{(threshold - bias) * scale:.2f}"
    head = [f"# Written by benchmarks/{Path(sys.argv[0]).name}.", "[threshold]", limit, "[weights]"]
    file.write_text("\n".join([*head, *textwrap.wrap(text, 100)]) + "\n", "utf-8")
    print(f"{file.name}: {file.stat().st_size} bytes")


def measure() -> None:
    """Print how many lines of each sample are refused without and with the classifiers, and their cost."""
    print("sample, section: lines, refused by the lists, by both")
    for file in sorted(PROMPTS.glob("[ir]*_*.txt")):
        counts: dict[str, list[int]] = {}
        for section, line in read_sample(file.name):
            if not section.endswith("negative"):
                text = f"{line}, {IN_BED[section[:2]]}" if section.endswith("age") else line
                count = counts.setdefault(section, [0, 0, 0])
                for at, number in enumerate((1, refused(text, lists_alone=True), refused(text))):
                    count[at] += number
        for section, count in counts.items():
            print(f"{file.stem}, {section or 'innocent'}: {', '.join(map(str, count))}")
    lines = [line for _, line in read_sample("innocent_blind.txt")][:300]
    plain = [", ".join(lines[at : at + 3]) for at in range(0, 300, 3)]
    for name, prompts in (("plain", plain), ("in bed", [f"{prompt}, in bed" for prompt in plain])):
        alone, both = (cost(prompts, lists_alone) for lists_alone in (True, False))
        print(f"{name}, ms a prompt (median): lists {alone:.2f}, both {both:.2f}")


def refused(text: str, lists_alone: bool = False) -> bool:
    alone = mock.patch.multiple(classifier, minor_phrase=_no_phrase, sexual_phrase=_no_phrase)
    with alone if lists_alone else nullcontext():
        for policy in (judge.refuse_prompt, refuse_real_person):
            try:
                policy(text)
            except judge.UnsafePromptError:
                return True
    return False


def _no_phrase(*_: object) -> bool:
    return False


def cost(prompts: Sequence[str], lists_alone: bool) -> float:
    """Return the median of milliseconds that the policy takes for a prompt, after one that is not counted."""
    seconds = []
    for prompt in [prompts[0], *prompts]:
        start = perf_counter()
        refused(prompt, lists_alone)
        seconds.append(perf_counter() - start)
    return median(seconds[1:]) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier of minors' ages, or measure it.")
    parser.add_argument("--measure", action="store_true", help="measure the written weights; train nothing")
    if parser.parse_args().measure:
        measure()
    else:
        rng = random.Random(7)
        weights, bias = train(examples(list(texts(rng)), phrase_features, rng), NUM_FEATURES)
        write(WEIGHTS, weights, bias, THRESHOLD)


if __name__ == "__main__":
    main()
