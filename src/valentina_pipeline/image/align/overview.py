"""Contact sheet of aligned portraits."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from valentina_pipeline.image.align.portrait_crop import apply_crop
from valentina_pipeline.image.align.result import Aligned
from valentina_pipeline.image.io.contact_sheet import contact_sheet

NUM_COLUMNS = 6


CELL_PIXELS = 192

MAX_CELLS = 120
"""Maximum number of images: a larger sheet is hard to review."""


def render_overview(
    judged: Sequence[Aligned], images: Mapping[str, Image.Image], sources: Mapping[str, str], size: int
) -> Image.Image:
    """Return the contact sheet: rejected images first, then faces by decreasing distance to the median."""

    def doubt(aligned: Aligned) -> tuple[bool, float, str]:
        return not aligned.reason, -float(np.nan_to_num(aligned.identity_distance)), aligned.name

    shown = sorted(judged, key=doubt)[:MAX_CELLS]
    cells = (_annotate(aligned, images[aligned.name], size) for aligned in shown)
    return contact_sheet(
        cells, [_label(aligned, sources[aligned.name]) for aligned in shown], NUM_COLUMNS, CELL_PIXELS
    )


def _label(aligned: Aligned, file: str) -> str:
    name = file.rpartition("/")[2]
    reason = aligned.reason.replace(": ", ":\n", 1).replace(", at ", ",\nat ", 1)
    if aligned.face is None:
        return f"{name}\nleft out: {reason}"
    verdict = (
        f"left out: {reason}" if aligned.reason else f"accepted, distance {aligned.identity_distance:.2f}"
    )
    return f"{name}\nface {aligned.face.probability:.3f}, {verdict}"


def _annotate(aligned: Aligned, image: Image.Image, size: int) -> Image.Image:
    """Return the portrait with face box and landmarks, at twice the size of the sheet's cell."""
    if aligned.face is None or aligned.crop is None:
        return image
    portrait = apply_crop(image, aligned.crop, size)
    scale = 2 * CELL_PIXELS / max(portrait.size)
    page = portrait.resize([round(side * scale) for side in portrait.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(page)
    color = (214, 60, 50) if aligned.reason else (74, 200, 120)
    draw.rectangle([v * scale for v in aligned.face.box], outline=color, width=4)
    for x, y in aligned.face.landmarks * scale:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(255, 214, 64), outline=(60, 50, 20))
    return page
