"""Writing in an image, such as a watermark: found and read by PP-OCR, whose weights RapidOCR's package ships.

Only writing that can be read counts, so that fur, grass, cloth or bricks are not taken for it. Writing in the
scene, on a shirt or a sign, counts like writing that was laid over the image.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

MAX_SIDE = 1024
"""Pixels of the longer side at which writing is looked for."""

MIN_LETTERS = 4
MIN_SCORE = 0.7
"""A line counts from so many letters and digits, read with at least this confidence."""


def count_overlay_letters(image: Image.Image) -> int:
    """Return the number of letters and digits in the lines of writing that can be read.

    Args:
        image: RGB, any size.
    """
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    found = _reader()(np.asarray(small)[..., ::-1].copy(), use_cls=False)  # it reads BGR
    if found.txts is None:
        return 0
    lines = zip(found.txts, found.scores, strict=True)
    counts = [sum(map(str.isalnum, text)) for text, score in lines if score >= MIN_SCORE]
    return sum(count for count in counts if count >= MIN_LETTERS)


@lru_cache(maxsize=1)
def _reader() -> Any:
    from rapidocr import RapidOCR

    one_thread = {
        f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1  # images are read side by side already
        for kind in ("intra", "inter")
    }
    return RapidOCR(params={"Global.log_level": "error", **one_thread})
