"""Content filter: detects exposed bodies in images."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SUREST = 200
"""Boxes of a picture that are looked at: many more than bodies have parts."""


@lru_cache(maxsize=1)
def _nudenet() -> Any:
    """Return the detector, one in a process, on one thread: pictures are looked at side by side."""
    import nudenet
    from onnxruntime import InferenceSession, SessionOptions

    class Surest(InferenceSession):
        """Gives the likeliest boxes only: NudeDetector walks through all 2100 in Python."""

        def run(self, *args: Any) -> list[np.ndarray]:
            (boxes,) = super().run(*args)  # [1, 4 + classes, boxes]
            surest = np.argsort(-boxes[0, 4:].max(axis=0), kind="stable")[:SUREST]
            return [boxes[:, :, np.sort(surest)]]

    detector = nudenet.NudeDetector()
    options = SessionOptions()
    options.intra_op_num_threads = 1
    detector.onnx_session = Surest(str(Path(nudenet.__file__).with_name("320n.onnx")), options)
    return detector


EXPOSED = {
    "FEMALE_GENITALIA_EXPOSED": "exposed genitalia",
    "MALE_GENITALIA_EXPOSED": "exposed genitalia",
    "FEMALE_BREAST_EXPOSED": "an exposed breast",
    "BUTTOCKS_EXPOSED": "exposed buttocks",
    "ANUS_EXPOSED": "an exposed anus",
}


class ContentFilter:
    """Looks for nudity in pictures with NudeNet, whose model is part of its wheel.

    Args:
        threshold: a detection of at least this score, in [0, 1], makes a picture unsafe.
        detector: anything with NudeDetector's `detect(bgr)`; made when None.
    """

    LONGEST = 640
    """Pixels: the network looks at 320, so that more only costs time."""

    def __init__(self, threshold: float = 0.4, detector: Any = None) -> None:
        self._threshold = threshold
        self._detector = detector

    def unsafe(self, image: Image.Image) -> str | None:
        """Return what makes the picture unsafe, in words, or None.

        Fails closed: a picture that cannot be looked at is unsafe ("filter failed: ...").
        """
        try:
            found = self.detect(image)
        except Exception as err:  # whatever breaks in here, the picture has not been looked at
            return f"filter failed: {type(err).__name__}: {err}"
        shown = [d for d in found if d["class"] in EXPOSED and d["score"] >= self._threshold]
        if not shown:
            return None
        worst = max(shown, key=lambda d: d["score"])
        return f"{EXPOSED[worst['class']]} (score {worst['score']:.2f})"

    def detect(self, image: Image.Image) -> list[dict[str, Any]]:
        """Return what is found: class, score in [0, 1] and box (left, top, width, height).

        Boxes are in pixels of the picture as it is looked at, its longer side LONGEST at most.
        """
        detector = self._detector or _nudenet()
        small = image.convert("RGB")
        small.thumbnail((self.LONGEST, self.LONGEST))
        # blue first, as cv2.imread gives the pictures that the network was made for
        found: list[dict[str, Any]] = detector.detect(np.ascontiguousarray(np.asarray(small)[..., ::-1]))
        return found
