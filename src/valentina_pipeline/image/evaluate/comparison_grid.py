"""Comparison grid: for each prompt a held-out portrait, the LoRA's image and the base model's."""

from collections.abc import Mapping, Sequence
from math import isnan

from PIL import Image

from valentina_pipeline.image.evaluate.prompts import ScoredPrompt
from valentina_pipeline.image.io.contact_sheet import PAPER, contact_sheet

COLUMNS = 6
CELL = 256
"""Cell size in pixels: 128 px images appear at twice their size, larger ones are reduced."""

ROWS = {"lora": "LoRA", "base": "base model, described"}


def comparison_grid(
    prompts: Sequence[ScoredPrompt], images: Mapping[str, Image.Image], references: Sequence[Image.Image]
) -> Image.Image:
    """Lay out each prompt's first image of LoRA and base model below a held-out portrait.

    Each column is a prompt, six to a band. The cell of an image that the content filter rejected is empty.

    Args:
        prompts: each prompt with the scores of its images, for the labels.
        images: generated images by name.
        references: held-out portraits, used in turn.
    """
    cells, labels = [], []
    for start in range(0, len(prompts), COLUMNS):
        band = prompts[start : start + COLUMNS]
        padding = [(EMPTY, "")] * (min(COLUMNS, len(prompts)) - len(band))
        rows = [[(references[(p.number - 1) % len(references)], _heading(p.label)) for p, _ in band]]
        for variant, words in ROWS.items():
            first = [next((s for s in scores if s["variant"] == variant), None) for _, scores in band]
            rows.append(
                [(images[s["name"]], f"{words}\n{_label(s['identity'])}") if s else LEFT_OUT for s in first]
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
