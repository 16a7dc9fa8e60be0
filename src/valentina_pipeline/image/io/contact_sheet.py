"""Contact sheets: many images with short labels on one page."""

from collections.abc import Iterable, Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont

PAPER = (250, 249, 246)
INK = (38, 38, 42)
FRAME = (214, 211, 204)
GAP = 12
"""Pixels between cells and around the page."""

FONT_SIZE = 13


def contact_sheet(
    images: Iterable[Image.Image], labels: Sequence[str], columns: int, cell: int
) -> Image.Image:
    """Lay out images in rows, each with its label below.

    Args:
        images: as many as labels; read one at a time, each scaled to its cell with its aspect ratio.
        labels: one per image, with any number of lines; a line too long for the cell ends with an ellipsis.
        columns: images per row.
        cell: width and height of a cell in pixels.

    Returns:
        An RGB page.

    Raises:
        ValueError: there are no labels, their number differs from that of the images, or a cell is too small.
    """
    if not labels or columns < 1 or cell < 16:
        raise ValueError("a contact sheet needs a label per image, a column and cells of at least 16 pixels")
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + 4
    caption = line * max(label.count("\n") + 1 for label in labels) + 4
    columns = min(columns, len(labels))
    width = GAP + columns * (cell + GAP)
    height = GAP + ceil(len(labels) / columns) * (cell + caption + GAP)
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        x = GAP + index % columns * (cell + GAP)
        y = GAP + index // columns * (cell + caption + GAP)
        _paste(page, image, x, y, cell)
        for number, text in enumerate(label.split("\n")):
            draw.text((x, y + cell + 4 + number * line), _shorten(text, font, cell), INK, font)
    return page


def _paste(page: Image.Image, image: Image.Image, x: int, y: int, cell: int) -> None:
    shown = image.convert("RGB")
    scale = cell / max(shown.size)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    shown = shown.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    left, top = x + (cell - size[0]) // 2, y + (cell - size[1]) // 2
    page.paste(shown, (left, top))
    ImageDraw.Draw(page).rectangle((left - 1, top - 1, left + size[0], top + size[1]), outline=FRAME)


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
