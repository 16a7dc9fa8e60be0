"""Pixel quality of an image before face detection: sharpness, exposure, noise, compression, writing."""

from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.image.ingest.text_overlay import count_overlay_letters
from valentina_pipeline.image.io.decode import RejectedImageError

SIDE = 512
"""Shorter side in pixels at which sharpness and noise are measured, so that cameras compare."""

DARK, BRIGHT = 5, 250
"""Levels of 255: pixels at or beyond them have lost all detail."""

MIN_PLAIN_SHARE, MIN_REST_SHARE = 0.01, 0.005
"""Minimum shares of the image: of a plain background, and of everything else."""

EDGE_REACH, EDGE_LEVELS, EDGE_SHARE = 9, 60, 0.85
"""A plain background ends sharply: luminance changes by EDGE_LEVELS within EDGE_REACH pixels along
EDGE_SHARE of its rim. Overexposure fades: most of 60 photographs exposed 2 to 5 times too long have a share
of 0.2 to 0.8."""

STANDARD_LUMINANCE = 57.625
"""Mean of the luminance table in annex K of ISO/IEC 10918-1, which libjpeg scales by its quality."""


@dataclass(frozen=True)
class Quality:
    """Quality metrics of an image.

    Attributes:
        sharpness: variance of the Laplacian of the luminance in 8-bit levels (Pech-Pacheco et al. 2000).
        brightness: mean luminance in [0, 1].
        clipped_fraction: share of pixels that are black or white; plain backgrounds, such as paper or
            a studio wall, are excluded.
        clipped_white_fraction: the white part of `clipped_fraction`.
        brightness_outside_white: mean luminance outside plain white, in [0, 1].
        brightness_outside_black: mean luminance outside plain black, in [0, 1].
        noise: standard deviation in 8-bit levels (Immerkaer 1996).
        jpeg_quality: libjpeg's scale, in [1, 100]; None for other formats.
        overlay_letters: number of readable letters (image/ingest/text_overlay.py); None if not counted.
    """

    sharpness: float
    brightness: float
    clipped_fraction: float
    clipped_white_fraction: float
    brightness_outside_white: float
    brightness_outside_black: float
    noise: float
    jpeg_quality: float | None
    overlay_letters: int | None


def measure_quality(
    image: Image.Image, tables: "dict[int, list[int]] | None" = None, read_letters: bool = False
) -> Quality:
    """Return the quality metrics of an RGB image.

    Args:
        image: the decoded image.
        tables: quantization tables, if the file was a JPEG.
        read_letters: count readable letters, which takes most of a second.
    """
    import cv2

    gray = np.asarray(image.convert("L"))
    scale = SIDE / min(gray.shape)
    if scale < 1:
        size = round(gray.shape[1] * scale), round(gray.shape[0] * scale)
        small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    else:
        small = gray
    white, black = (_plain_background(small, gray.shape, dark) for dark in (False, True))
    lost_white, lost_black = (gray >= BRIGHT) & ~white, (gray <= DARK) & ~black
    return Quality(
        sharpness=round(float(cv2.Laplacian(small, cv2.CV_32F).var()), 3),
        brightness=round(float(gray.mean()) / 255, 4),
        clipped_fraction=round(float(np.mean(lost_white | lost_black)), 4),
        clipped_white_fraction=round(float(np.mean(lost_white)), 4),
        brightness_outside_white=round(_mean(gray, ~white) / 255, 4),
        brightness_outside_black=round(_mean(gray, ~black) / 255, 4),
        noise=round(_noise(small), 3),
        jpeg_quality=_jpeg_quality(tables) if tables else None,
        overlay_letters=count_overlay_letters(image) if read_letters else None,
    )


def check(quality: Quality, limits: IngestConfig) -> None:
    """Raise RejectedImageError where a metric exceeds its limit, naming metric, limit and key."""
    metrics, (darkest, brightest) = asdict(quality), limits.brightness_range
    for name, reason, minimum, maximum, key in (
        ("sharpness", "blurred", limits.min_sharpness, None, "min_sharpness"),
        ("brightness_outside_black", "badly exposed", darkest, None, "brightness_range"),
        ("brightness_outside_white", "badly exposed", None, brightest, "brightness_range"),
        ("clipped_fraction", "badly exposed", None, limits.max_clipped_fraction, "max_clipped_fraction"),
        ("noise", "noisy", None, limits.max_noise, "max_noise"),
        ("jpeg_quality", "compressed too much", limits.min_jpeg_quality, None, "min_jpeg_quality"),
        (
            "overlay_letters",
            "writing over the picture",
            None,
            limits.max_overlay_letters,
            "max_overlay_letters",
        ),
    ):
        value = metrics[name]
        if value is not None and minimum is not None and value < minimum:
            limit = f"at least {minimum:g} (ingest.{key}) is required"
            raise RejectedImageError(reason, f"{_describe(name, quality)} {value:g}, {limit}")
        if value is not None and maximum is not None and value > maximum:
            limit = f"at most {maximum:g} (ingest.{key}) is required"
            raise RejectedImageError(reason, f"{_describe(name, quality)} {value:g}, {limit}")


def _describe(name: str, quality: Quality) -> str:
    white = quality.clipped_white_fraction
    black = quality.clipped_fraction - white
    words = {
        "brightness_outside_black": "too dark, brightness",
        "brightness_outside_white": "too bright, brightness",
        "clipped_fraction": (f"{white:.0%} burnt-out white and {black:.0%} black without detail, clipped"),
        "overlay_letters": "letters",
    }
    return words.get(name, name)


def _plain_background(small: np.ndarray, shape: tuple[int, ...], dark: bool) -> np.ndarray:
    """Return a bool mask of `shape`: white (or black) areas with sharp edges, like paper or a cut-out."""
    import cv2

    full = np.zeros(shape, bool)
    mask = small <= DARK if dark else small >= BRIGHT
    if mask.mean() < MIN_PLAIN_SHARE:
        return full
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    beside = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    away = np.where(mask, 0, small if dark else 255 - small).astype(np.uint8)
    sharp = cv2.dilate(away, np.ones((EDGE_REACH, EDGE_REACH), np.uint8)) >= EDGE_LEVELS
    rim = ~mask & (beside > 0)
    around = np.bincount(beside[rim], minlength=count)
    ended = np.bincount(beside[rim & sharp], minlength=count)
    large = np.bincount(labels.ravel(), minlength=count) >= MIN_PLAIN_SHARE * mask.size
    plain = large & (around > 0) & (ended >= EDGE_SHARE * around)
    plain[0] = False
    found = plain[labels].astype(np.uint8)
    return cv2.resize(found, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def _mean(gray: np.ndarray, where: np.ndarray) -> float:
    """Return the mean over the mask, or over the whole image where the mask is nearly empty."""
    return float(gray[where].mean() if where.mean() >= MIN_REST_SHARE else gray.mean())


def _noise(gray: np.ndarray) -> float:
    import cv2

    # the difference of two Laplacians ignores edges and slopes, so only noise remains
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.filter2D(gray, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6) if response.size else 0.0


def _jpeg_quality(tables: dict[int, list[int]]) -> float:
    scale = 100 * float(np.mean(tables[min(tables)])) / STANDARD_LUMINANCE
    return round(min(100.0, max(1.0, 100 - scale / 2 if scale <= 100 else 5000 / scale)), 1)
