"""Comparison grid: for each prompt a held-out portrait, the LoRA's image and the base model's."""

from collections.abc import Mapping, Sequence
from math import isnan

from PIL import Image

from valentina_pipeline.image.evaluate.scoring import ScoredImages
from valentina_pipeline.image.io.contact_sheet import PAPER, contact_sheet

COLUMNS = 6
CELL = 256
"""Cell size in pixels: 128 px images appear at twice their size, larger ones are reduced."""

ROWS = {"lora": "LoRA", "base": "base model, described"}


def comparison_grid(
    measured: ScoredImages, images: Mapping[str, Image.Image], references: Sequence[Image.Image]
) -> Image.Image:
    """Lay out each prompt's first image of LoRA and base model below a held-out portrait.

    Each column is a prompt, six to a band. The cell of an image that the content filter rejected is empty.

    Args:
        measured: the scores, for the labels.
        images: generated images by name.
        references: held-out portraits, used in turn.
    """
    prompts = sorted({take.prompt.number: take.prompt for take in measured.takes}.items())
    first = {(t.variant, t.prompt.number): t for t in reversed(measured.takes)}
    identity = dict(zip(measured.scores["name"], measured.scores["identity"], strict=True))
    cells, labels = [], []
    for start in range(0, len(prompts), COLUMNS):
        band = prompts[start : start + COLUMNS]
        padding = [(EMPTY, "")] * (min(COLUMNS, len(prompts)) - len(band))
        rows = [[(references[(n - 1) % len(references)], _heading(prompt.label)) for n, prompt in band]]
        for variant, words in ROWS.items():
            takes = [first.get((variant, n)) for n, _ in band]
            rows.append(
                [(images[t.name], f"{words}\n{_label(identity[t.name])}") if t else LEFT_OUT for t in takes]
            )
        for row in rows:
            cells += [image for image, _ in row + padding]
            labels += [label for _, label in row + padding]
    return contact_sheet(cells, labels, min(COLUMNS, len(prompts)), CELL)


EMPTY = Image.new("RGB", (8, 8), PAPER)
LEFT_OUT = (EMPTY, "left out by the content filter\n")


def _label(identity: float) -> str:
    return "no face found" if isnan(identity) else f"identity {identity:.2f}"


def _heading(label: str) -> str:
    """Break a prompt's label into two lines, subject and place; the third line explains the portrait."""
    phrases = label.split(", ")
    middle = (len(phrases) + 1) // 2 if len(phrases) < 5 else 2
    return f"{', '.join(phrases[:middle])}\n{', '.join(phrases[middle:])}\n(a held-out portrait)"
