"""Content filter: detects nudity in images."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAX_BOXES = 200
"""Number of boxes per image that are evaluated, many more than there are body parts."""


@lru_cache(maxsize=1)
def _nudenet() -> Any:
    """Return the detector, one per process and single-threaded, because images are checked in parallel."""
    import nudenet
    from onnxruntime import InferenceSession, SessionOptions

    class TopBoxesSession(InferenceSession):
        """Returns only the most likely boxes: NudeDetector loops over all 2100 in Python."""

        def run(self, *args: Any) -> list[np.ndarray]:
            (boxes,) = super().run(*args)  # [1, 4 + classes, boxes]
            top = np.argsort(-boxes[0, 4:].max(axis=0), kind="stable")[:MAX_BOXES]
            return [boxes[:, :, np.sort(top)]]

    detector = nudenet.NudeDetector()
    options = SessionOptions()
    options.intra_op_num_threads = 1
    detector.onnx_session = TopBoxesSession(str(Path(nudenet.__file__).with_name("320n.onnx")), options)
    return detector


EXPOSED = {
    "FEMALE_GENITALIA_EXPOSED": "exposed genitalia",
    "MALE_GENITALIA_EXPOSED": "exposed genitalia",
    "FEMALE_BREAST_EXPOSED": "an exposed breast",
    "BUTTOCKS_EXPOSED": "exposed buttocks",
    "ANUS_EXPOSED": "an exposed anus",
}


class ContentFilter:
    """Detects nudity in images with NudeNet, whose model is part of its wheel.

    Args:
        threshold: a detection with at least this score, in [0, 1], makes an image unsafe.
        detector: object with NudeDetector's `detect(bgr)`; created if None.
    """

    MAX_SIDE = 640
    """Pixels: the network's input has 320, so that more only costs time."""

    def __init__(self, threshold: float = 0.4, detector: Any = None) -> None:
        self._threshold = threshold
        self._detector = detector

    def unsafe(self, image: Image.Image) -> str | None:
        """Return the reason why the image is unsafe, or None.

        Fails closed: an image that cannot be checked is unsafe ("filter failed: ...").
        """
        try:
            found = self.detect(image)
        except Exception as err:  # on any failure the image is unchecked
            return f"filter failed: {type(err).__name__}: {err}"
        exposed = [d for d in found if d["class"] in EXPOSED and d["score"] >= self._threshold]
        if not exposed:
            return None
        worst = max(exposed, key=lambda d: d["score"])
        return f"{EXPOSED[worst['class']]} (score {worst['score']:.2f})"

    def detect(self, image: Image.Image) -> list[dict[str, Any]]:
        """Return the detections: class, score in [0, 1] and box (left, top, width, height).

        Boxes are in pixels of the reduced image, whose longer side is at most MAX_SIDE.
        """
        detector = self._detector or _nudenet()
        small = image.convert("RGB")
        small.thumbnail((self.MAX_SIDE, self.MAX_SIDE))
        # BGR, the order of cv2.imread, which the network expects
        found: list[dict[str, Any]] = detector.detect(np.ascontiguousarray(np.asarray(small)[..., ::-1]))
        return found
