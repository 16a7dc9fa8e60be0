"""Train the classifier of sexual content, data/sexual_classifier.txt of the word policy.

    uv run python benchmarks/sexual_classifier.py             # writes the weights; two minutes
    uv run python benchmarks/sexual_classifier.py --validate  # rates on lines kept from the training
    uv run python benchmarks/age_classifier.py --measure      # rates on the tests' samples, cost of a prompt

Texts to refuse: sexual_lines/ (written for this, adults only), the lists' sexual entries, and
tests/image/safety/prompts/refuse_dev.txt. Innocent texts: sexual_lines/, the lists' other entries, the
innocent lines of age_templates/, innocent_dev.txt, and common words. No other sample is used for training.
"""

import argparse
import random
import zlib
from collections.abc import Iterator

import age_classifier as trainer
import numpy as np
from age_classifier import HERE, IN_BED, Text

from prompt_samples import read_sample
from valentina_pipeline.image.safety.policy.classifier import Classifier, construction_features
from valentina_pipeline.image.safety.policy.lexicon import entries
from valentina_pipeline.image.safety.policy.lists import DATA

WEIGHTS = DATA / "sexual_classifier.txt"

NUM_FEATURES = 1 << 17

NUM_VARIANTS = {"refuse": 7, "innocent": 12}
"""Texts of each line with slots, at most."""

LISTED = ("sexual", "innocent", "adult", "swim", "bed", "bath", "scant", "minor", "girl")

THRESHOLD = 1.5
"""Log odds above which a phrase is sexual: a probability of 0.82."""

FOLDS = 3


def lines(rng: random.Random) -> Iterator[tuple[str, list[Text]]]:
    """Yield each line of sexual_lines/ with its texts."""
    for language in IN_BED:
        slots, found = trainer.templates(HERE / f"sexual_lines/{language}.txt")
        for section, templates in found.items():
            for line in templates:
                count = NUM_VARIANTS[section] if "{" in line else 1
                variants = sorted({trainer.fill(line, slots, rng) for _ in range(count)})
                weight = 1.0 if len(variants) > 1 else 2.0
                yield line, [Text(text, language, section == "refuse", weight) for text in variants]


def other_texts(rng: random.Random) -> Iterator[Text]:
    """Yield the texts of other sources."""
    for language in IN_BED:
        for kind, entry in entries((DATA / f"words_{language}.txt").read_text("utf-8")):
            if kind in LISTED:
                weight = 0.5 if kind == "sexual" else 0.7
                yield Text(trainer.write_entry(entry, rng), language, kind == "sexual", weight)
        slots, found = trainer.templates(HERE / f"age_templates/{language}.txt")
        for templates in found.values():
            for line in templates:
                variants = sorted({trainer.fill(line, slots, rng) for _ in range(2)})
                yield from (Text(text, language, False, 0.5) for text in variants)
    for section, line in read_sample("refuse_dev.txt"):
        if section.endswith("sexual") and section[:2] in IN_BED:
            yield Text(line, section[:2], True)
    yield from (Text(line, "en", False, 2.0) for _, line in read_sample("innocent_dev.txt"))
    yield from trainer.common_phrases(rng)


def fit(texts: list[Text], rng: random.Random) -> tuple[np.ndarray, float]:
    return trainer.train(trainer.examples(texts, construction_features, rng), NUM_FEATURES)


def validate() -> None:
    """Print what the classifier alone finds on lines kept from its training that the lists allow."""
    rng = random.Random(7)
    written, others = list(lines(rng)), list(other_texts(rng))
    kept = [texts for line, texts in written if zlib.crc32(line.encode()) % FOLDS == 0]
    used = [text for line, texts in written if zlib.crc32(line.encode()) % FOLDS for text in texts]
    weights, bias = fit(used + others, rng)
    scorer = Classifier((weights).tolist(), THRESHOLD - bias, construction_features)
    tried = [next((text for text in texts if not lists_refuse(text.text)), None) for texts in kept]
    samples = [line for name in ("blind", "kept") for _, line in read_sample(f"innocent_{name}.txt")]
    scores = [(text, scorer.score(trainer.read(text.text)) + bias) for text in tried if text]
    plain = [scorer.score(trainer.read(line)) + bias for line in samples if not lists_refuse(line)]
    print("log odds: found of lines to refuse, of innocent lines, by language; of the innocent samples")
    for threshold in (0.75, 1.0, 1.25, 1.5, 2.0):
        rates = [
            f"{language} {sum(found)}/{len(found)}"
            for label in (True, False)
            for language in IN_BED
            for found in [
                [s > threshold for t, s in scores if t.language == language and t.positive is label]
            ]
        ]
        print(threshold, ", ".join(rates), f"samples {sum(s > threshold for s in plain)}/{len(plain)}")


def lists_refuse(text: str) -> bool:
    return trainer.refused(text, lists_alone=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier of sexual content, or validate it.")
    parser.add_argument("--validate", action="store_true", help="keep a third of the lines; write nothing")
    if parser.parse_args().validate:
        validate()
        return
    rng = random.Random(7)
    texts = [text for _, found in lines(rng) for text in found] + list(other_texts(rng))
    trainer.write(WEIGHTS, *fit(texts, rng), THRESHOLD)


if __name__ == "__main__":
    main()
