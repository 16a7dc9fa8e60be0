"""What can be said of a picture's pixels before anybody looks for a face: sharp, lit, clean, unmarked."""

from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.image.ingest.text_overlay import count_overlay_letters
from valentina_pipeline.image.io.decode import RejectedImageError

SIDE = 512
"""Pixels of the shorter side at which sharpness and noise are measured: figures of any camera compare."""

DARK, BRIGHT = 5, 250
"""Levels of 255 beyond which there is nothing left to see."""

PLAIN_SHARE, LEAST_REST = 0.01, 0.005
"""Of the picture: a plain ground is no smaller, and what is beside it neither."""

EDGE_REACH, EDGE_LEVELS, EDGE_SHARE = 9, 60, 0.85
"""A ground ends sharply: within so many pixels luminance moves by so many levels, at so much of its rim.
Burnt-out light fades: of 60 photographs exposed two to five times too long most have 0.2 to 0.8."""

STANDARD_LUMINANCE = 57.625
"""Mean of the luminance table in annex K of ISO/IEC 10918-1, which libjpeg scales by its quality."""


@dataclass(frozen=True)
class Quality:
    """A picture's figures.

    Attributes:
        sharpness: variance of the Laplacian of the luminance in 8-bit levels (Pech-Pacheco et al. 2000).
        brightness: mean luminance in [0, 1].
        clipped: share of pixels that are black or white, but for plain grounds: paper, a studio's wall.
        white: the white part of it.
        without_white: mean luminance of all but plain white, in [0, 1].
        without_black: mean luminance of all but plain black, in [0, 1].
        noise: standard deviation in 8-bit levels (Immerkaer 1996).
        jpeg_quality: as libjpeg counts, in [1, 100]; None of what came in another format.
        letters: of writing that can be read (image/ingest/text_overlay.py); None where it was not looked for.
    """

    sharpness: float
    brightness: float
    clipped: float
    white: float
    without_white: float
    without_black: float
    noise: float
    jpeg_quality: float | None
    letters: int | None


def measure_quality(
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
    scale = SIDE / min(grey.shape)
    if scale < 1:
        size = round(grey.shape[1] * scale), round(grey.shape[0] * scale)
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    else:
        small = grey
    white, black = (_plain(small, grey.shape, dark) for dark in (False, True))
    lost_white, lost_black = (grey >= BRIGHT) & ~white, (grey <= DARK) & ~black
    return Quality(
        sharpness=round(float(cv2.Laplacian(small, cv2.CV_32F).var()), 3),
        brightness=round(float(grey.mean()) / 255, 4),
        clipped=round(float(np.mean(lost_white | lost_black)), 4),
        white=round(float(np.mean(lost_white)), 4),
        without_white=round(_mean(grey, ~white) / 255, 4),
        without_black=round(_mean(grey, ~black) / 255, 4),
        noise=round(_noise(small), 3),
        jpeg_quality=_jpeg_quality(tables) if tables else None,
        letters=count_overlay_letters(image) if read_letters else None,
    )


def check(quality: Quality, limits: IngestConfig) -> None:
    """Raise RejectedImageError where a figure is beyond its limit, with both and the limit's name."""
    figures, (darkest, brightest) = asdict(quality), limits.brightness
    for name, reason, least, most, key in (
        ("sharpness", "blurred", limits.min_sharpness, None, "min_sharpness"),
        ("without_black", "badly exposed", darkest, None, "brightness"),
        ("without_white", "badly exposed", None, brightest, "brightness"),
        ("clipped", "badly exposed", None, limits.max_clipped, "max_clipped"),
        ("noise", "noisy", None, limits.max_noise, "max_noise"),
        ("jpeg_quality", "compressed too much", limits.min_jpeg_quality, None, "min_jpeg_quality"),
        ("letters", "writing over the picture", None, limits.max_letters, "max_letters"),
    ):
        value = figures[name]
        if value is not None and least is not None and value < least:
            raise RejectedImageError(
                reason, f"{_said(name, quality)} {value:g}, at least {least:g} (ingest.{key}) is wanted"
            )
        if value is not None and most is not None and value > most:
            raise RejectedImageError(
                reason, f"{_said(name, quality)} {value:g}, at most {most:g} (ingest.{key}) is wanted"
            )


def _said(name: str, quality: Quality) -> str:
    black = quality.clipped - quality.white
    words = {
        "without_black": "too dark, brightness",
        "without_white": "too bright, brightness",
        "clipped": f"{quality.white:.0%} burnt-out white and {black:.0%} black without detail, clipped",
    }
    return words.get(name, name)


def _plain(small: np.ndarray, shape: tuple[int, ...], dark: bool) -> np.ndarray:
    """Return bool (h, w) of `shape`: white, or black, areas that end as sharply as paper or a cut-out do."""
    import cv2

    full = np.zeros(shape, bool)
    mask = small <= DARK if dark else small >= BRIGHT
    if mask.mean() < PLAIN_SHARE:
        return full
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    beside = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    away = np.where(mask, 0, small if dark else 255 - small).astype(np.uint8)
    sharp = cv2.dilate(away, np.ones((EDGE_REACH, EDGE_REACH), np.uint8)) >= EDGE_LEVELS
    rim = ~mask & (beside > 0)
    around = np.bincount(beside[rim], minlength=count)
    ended = np.bincount(beside[rim & sharp], minlength=count)
    large = np.bincount(labels.ravel(), minlength=count) >= PLAIN_SHARE * mask.size
    plain = large & (around > 0) & (ended >= EDGE_SHARE * around)
    plain[0] = False
    found = plain[labels].astype(np.uint8)
    return cv2.resize(found, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def _mean(grey: np.ndarray, where: np.ndarray) -> float:
    """Return the mean there, of a picture with next to nothing there that of all."""
    return float(grey[where].mean() if where.mean() >= LEAST_REST else grey.mean())


def _noise(grey: np.ndarray) -> float:
    import cv2

    # two Laplacians' difference: blind to edges and slopes, so that what remains is noise
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.filter2D(grey, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6) if response.size else 0.0


def _jpeg_quality(tables: dict[int, list[int]]) -> float:
    scale = 100 * float(np.mean(tables[min(tables)])) / STANDARD_LUMINANCE
    return round(min(100.0, max(1.0, 100 - scale / 2 if scale <= 100 else 5000 / scale)), 1)
