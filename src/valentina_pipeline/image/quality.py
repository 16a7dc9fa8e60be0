"""What can be said of a picture's pixels before anybody looks for a face: sharp, lit, clean, unmarked."""

from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from valentina_pipeline.config import IngestConfig
from valentina_pipeline.image.decode import Rejection
from valentina_pipeline.image.text_overlay import count_overlay_letters

SIDE = 512
"""Pixels of the shorter side at which sharpness and noise are measured: figures of any camera compare."""

DARK, BRIGHT = 5, 250
"""Levels of 255 beyond which there is nothing left to see."""

STANDARD_LUMINANCE = 57.625
"""Mean of the luminance table in annex K of ISO/IEC 10918-1, which libjpeg scales by its quality."""


@dataclass(frozen=True)
class Quality:
    """A picture's figures.

    Attributes:
        sharpness: variance of the Laplacian of the luminance in 8-bit levels (Pech-Pacheco et al. 2000).
        brightness: mean luminance in [0, 1].
        clipped: share of pixels that are black or white.
        noise: standard deviation in 8-bit levels (Immerkaer 1996).
        jpeg_quality: as libjpeg counts, in [1, 100]; None of what came in another format.
        letters: of writing that can be read (image/text_overlay.py); None where it was not looked for.
    """

    sharpness: float
    brightness: float
    clipped: float
    noise: float
    jpeg_quality: float | None
    letters: int | None


def measured(
    image: Image.Image, tables: "dict[int, list[int]] | None" = None, read_letters: bool = False
) -> Quality:
    """Return the figures of an RGB picture.

    Args:
        image: as it is stored.
        tables: quantisation tables of the JPEG it came as.
        read_letters: look for writing, which takes most of a second.
    """
    import cv2

    grey = np.asarray(image.convert("L"))
    clipped = float(np.mean((grey <= DARK) | (grey >= BRIGHT)))
    scale = SIDE / min(grey.shape)
    if scale < 1:
        size = round(grey.shape[1] * scale), round(grey.shape[0] * scale)
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    else:
        small = grey
    return Quality(
        sharpness=round(float(cv2.Laplacian(small, cv2.CV_32F).var()), 3),
        brightness=round(float(grey.mean()) / 255, 4),
        clipped=round(clipped, 4),
        noise=round(_noise(small), 3),
        jpeg_quality=_jpeg_quality(tables) if tables else None,
        letters=count_overlay_letters(image) if read_letters else None,
    )


def check(quality: Quality, limits: IngestConfig) -> None:
    """Raise Rejection where a figure is beyond its limit, with both."""
    figures = asdict(quality)
    for name, reason, least, most in (
        ("sharpness", "blurred", limits.min_sharpness, None),
        ("brightness", "badly exposed", limits.brightness[0], limits.brightness[1]),
        ("clipped", "badly exposed", None, limits.max_clipped),
        ("noise", "noisy", None, limits.max_noise),
        ("jpeg_quality", "compressed too much", limits.min_jpeg_quality, None),
        ("letters", "writing over the picture", None, limits.max_letters),
    ):
        value = figures[name]
        if value is not None and least is not None and value < least:
            raise Rejection(reason, f"{name} {value:g}, at least {least:g} is wanted")
        if value is not None and most is not None and value > most:
            raise Rejection(reason, f"{name} {value:g}, at most {most:g} is wanted")


def _noise(grey: np.ndarray) -> float:
    import cv2

    # two Laplacians' difference: blind to edges and slopes, so that what remains is noise
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.filter2D(grey, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6) if response.size else 0.0


def _jpeg_quality(tables: dict[int, list[int]]) -> float:
    scale = 100 * float(np.mean(tables[min(tables)])) / STANDARD_LUMINANCE
    return round(min(100.0, max(1.0, 100 - scale / 2 if scale <= 100 else 5000 / scale)), 1)
