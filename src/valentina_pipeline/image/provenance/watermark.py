"""A watermark that nobody sees: a faint pattern over the whole picture that says it was generated here.

Spread spectrum: a fixed pattern of middle frequencies is added to the luma, as strong as the texture around
hides, and found again by correlation (Cox et al., "Secure spread spectrum watermarking for multimedia",
1997). The pattern's size goes with the picture's, so that resizing does not lose it, and it repeats like
tiles, so that what a crop leaves is found by trying sizes and places. The key is public: a mark, no proof.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

KEY = b"valentina-pipeline: generated"
"""Another key is another pattern: what was marked with this one is no longer found."""

TILE = 128
"""Cells that a tile is wide and high."""

BAND = (10, 40)
"""Cycles a tile. Below, pictures have most of their own; above, JPEG has nothing left of a small one."""

FINER = 4
"""Samples a cell of the pattern as it is drawn."""

STRENGTH = (0.5, 1.2)
"""Standard deviation in 8-bit levels where nothing hides it: of large cells and of those of one pixel."""

HIDDEN, MOST = 0.3, 3.0
"""How much stronger a level of texture lets it be, and the most."""

TILES = (4, 2, 1)
"""Across a picture (by its area's root): as many as leave each 192 pixels and more, else one."""

SIZES = np.geomspace(1 / TILES[0], 2.12, 108)
"""Tiles that are tried, as shares of the picture: two in a hundred apart, up to half of each side left."""

SMALLEST = 64
"""Pixels that a tile is wide and high: of smaller ones less than half of the band is left."""

LONGEST = 64
"""Times as long as it is wide: longer pictures are not looked into, none is drawn."""

FALSE_ALARM = 1e-6
"""Chance of a picture without the mark from which on it is said to have it."""


@dataclass(frozen=True)
class Detection:
    """What is found of the mark.

    Attributes:
        score: correlation with the pattern in standard deviations of what chance gives.
        chance: that a picture without the mark has as much, at most.
    """

    score: float
    chance: float

    @property
    def found(self) -> bool:
        """Whether that is no chance any more."""
        return self.chance < FALSE_ALARM


def add_watermark(image: Image.Image) -> Image.Image:
    """Return the picture in RGB with the mark, its texts kept; the same picture gives the same bytes."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    change = _change(_luma(image))[..., None]
    marked = Image.fromarray(np.rint(pixels + change).clip(0, 255).astype(np.uint8))
    marked.info = dict(image.info)
    return marked


def detect(image: Image.Image) -> Detection:
    """Look for the mark: in the picture as a whole, and else as what a crop has left of one.

    The chance holds for any picture: only the phases of its frequencies are compared with those of the
    pattern, which are as good as random, so that each comparison's score is a sum of independent terms,
    close to normal; it is multiplied by the number of comparisons.
    """
    if not 1 / LONGEST <= image.width / image.height <= LONGEST:
        return Detection(0.0, 1.0)
    luma = _luma(image)
    luma = _scaled(luma, min(1.0, TILE * TILES[0] / math.sqrt(luma.size)))
    least = SMALLEST / math.sqrt(luma.size)
    near = [_scores(luma, 1 / tiles)[[-1, 0, 1]][:, [-1, 0, 1]] for tiles in TILES if 1 / tiles >= least]
    whole = _trace(float(np.max(near, initial=0)), 9 * len(TILES))
    if whole.found:
        return whole
    anywhere = [float(_scores(luma, size).max()) for size in SIZES if size >= least]
    part = _trace(max(anywhere, default=0.0), TILE**2 * len(SIZES))
    return min(whole, part, key=lambda trace: trace.chance)


def _trace(score: float, comparisons: int) -> Detection:
    return Detection(score, min(1.0, comparisons * math.erfc(score / math.sqrt(2)) / 2))


def _change(luma: np.ndarray) -> np.ndarray:
    """Return what is added to each pixel's luma (h, w) in levels."""
    height, width = luma.shape
    side = math.sqrt(luma.size)
    tile = side / next((tiles for tiles in TILES if side >= 192 * tiles), 1)
    cell, step = tile / TILE, FINER * TILE / tile
    middle = (step - 1) / 2
    pattern = cv2.warpAffine(
        _pattern(),
        np.array([[step, 0, middle], [0, step, middle]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    # edges are no texture: beside them there is nothing to hide in
    texture = cv2.GaussianBlur(np.abs(_details(luma, cell)), (0, 0), cell)
    around = np.ones((2 * round(cell) + 1,) * 2, np.uint8)
    texture = cv2.GaussianBlur(cv2.erode(texture, around), (0, 0), cell)
    strength = np.clip(STRENGTH[1] / cell, *STRENGTH)
    return strength * np.clip(1 + HIDDEN * texture, 1, MOST) * pattern


def _scores(luma: np.ndarray, size: float) -> np.ndarray:
    """Return the correlation (TILE, TILE) at each place of tiles of a size, a share of the picture's side."""
    cells = _scaled(luma, TILE / (size * math.sqrt(luma.size)))
    details = _details(cells, 1.0)
    spread = np.sqrt(cv2.GaussianBlur(details * details, (0, 0), 4.0)) + 1
    even = np.clip(details / spread, -2.5, 2.5)
    whole = np.pad(even, [(0, -length % TILE) for length in even.shape])
    folded = whole.reshape(-1, TILE, whole.shape[1] // TILE, TILE).sum((0, 2))
    found = np.fft.rfft2(folded)
    phases = found / np.maximum(np.abs(found), 1e-9)
    pattern = _spectrum()
    correlation: np.ndarray = np.fft.irfft2(phases * pattern.conj(), (TILE, TILE))
    # of chance: each of the frequencies (half of them are kept) is a term of variance 1
    return correlation * TILE**2 / math.sqrt(2 * np.count_nonzero(pattern))


def _details(luma: np.ndarray, cell: float) -> np.ndarray:
    details: np.ndarray = luma - cv2.GaussianBlur(luma, (0, 0), 1.5 * cell)
    return details


def _luma(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), np.float32)


def _scaled(luma: np.ndarray, by: float) -> np.ndarray:
    height, width = (max(1, round(length * by)) for length in luma.shape)
    way = cv2.INTER_AREA if by < 1 else cv2.INTER_CUBIC
    scaled: np.ndarray = cv2.resize(luma, (width, height), interpolation=way)
    return scaled


@lru_cache(maxsize=1)
def _spectrum() -> np.ndarray:
    """Return the pattern's frequencies (TILE, TILE / 2 + 1): of size 1 in the band, with the key's phases."""
    bits = np.frombuffer(hashlib.shake_256(KEY).digest(TILE * TILE // 8), np.uint8)
    spectrum = np.fft.rfft2(np.unpackbits(bits).reshape(TILE, TILE) * 2.0 - 1)
    cycles = np.hypot(np.fft.fftfreq(TILE, 1 / TILE)[:, None], np.fft.rfftfreq(TILE, 1 / TILE))
    inside = (cycles >= BAND[0]) & (cycles <= BAND[1])
    return np.where(inside, spectrum / np.abs(spectrum), 0)


@lru_cache(maxsize=1)
def _pattern() -> np.ndarray:
    """Return a tile as it is drawn: float32 (FINER * TILE, FINER * TILE), standard deviation 1."""
    coarse, half, side = _spectrum(), TILE // 2, FINER * TILE
    fine = np.zeros((side, side // 2 + 1), complex)
    fine[:half, : half + 1], fine[-half:, : half + 1] = coarse[:half], coarse[half:]
    tile = np.fft.irfft2(fine, (side, side))
    return (tile / tile.std()).astype(np.float32)
