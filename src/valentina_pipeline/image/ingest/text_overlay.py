"""Text in an image, such as a visible watermark, read by PP-OCR; RapidOCR's package contains the weights.

Only readable text counts, so that fur, grass, cloth or bricks are not mistaken for it. Text in the scene, on
a shirt or a sign, counts like text laid over the image.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

MAX_SIDE = 1024
"""Longer side in pixels to which images are reduced before reading."""

MIN_LETTERS = 4
MIN_SCORE = 0.7
"""A line counts if it has at least MIN_LETTERS letters and digits, read with confidence MIN_SCORE or more."""


def count_overlay_letters(image: Image.Image) -> int:
    """Return the number of letters and digits in the readable lines of text.

    Args:
        image: RGB, any size.
    """
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    found = _reader()(np.asarray(small)[..., ::-1].copy(), use_cls=False)  # RapidOCR expects BGR
    if found.txts is None:
        return 0
    lines = zip(found.txts, found.scores, strict=True)
    counts = [sum(map(str.isalnum, text)) for text, score in lines if score >= MIN_SCORE]
    return sum(count for count in counts if count >= MIN_LETTERS)


@lru_cache(maxsize=1)
def _reader() -> Any:
    from rapidocr import RapidOCR

    one_thread = {
        f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1  # images are processed in parallel already
        for kind in ("intra", "inter")
    }
    return RapidOCR(params={"Global.log_level": "error", **one_thread})
