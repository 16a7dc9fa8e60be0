"""Person check: score whether a confident MTCNN detection is a person's face, not a dog's, cat's or toy's.

The score comes from NudeNet, which detects people's faces and is part of the content filter. In 158
photographs of animals and things MTCNN is confident of 7 faces, which score at most 0.49. Whole faces of
people score 0.62 or more (107 photographs), rendered ones 0.64.
"""

from functools import lru_cache

from PIL import Image

from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.safety.content_filter import ContentFilter

CONTEXT_FACE_HEIGHTS = 3.0
"""Side of the examined square in face heights, so that the network sees every face at one size."""

MIN_OVERLAP = 0.3
"""Minimum intersection over union at which both detectors have found the same face."""

PROBABILITY_EXPONENT = 10
"""Exponent of MTCNN's probability in the score: it is nearly 1 for people, slightly less for animals."""

FACES = ("FACE_FEMALE", "FACE_MALE")


def person_score(image: Image.Image, face: Face) -> float:
    """Return the confidence in [0, 1] that a face is a person's.

    Args:
        image: the image in which `face` was detected.
        face: MTCNN's detection.
    """
    x0, y0, x1, y1 = face.box
    reach, x, y = CONTEXT_FACE_HEIGHTS * face.height / 2, (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    part = image.crop((left, top, min(image.width, int(x + reach)), min(image.height, int(y + reach))))
    if min(part.size) < 2:
        return 0.0
    scale = max(1.0, max(part.size) / ContentFilter.MAX_SIDE)
    inside = ((x0 - left) / scale, (y0 - top) / scale, (x1 - left) / scale, (y1 - top) / scale)
    scores = (
        found["score"]
        for found in _detector().detect(part)
        if found["class"] in FACES and _overlap(found["box"], inside) >= MIN_OVERLAP
    )
    return round(float(max(scores, default=0.0)) * face.probability**PROBABILITY_EXPONENT, 4)


@lru_cache(maxsize=1)
def _detector() -> ContentFilter:
    return ContentFilter()


def _overlap(found: list[int], box: tuple[float, float, float, float]) -> float:
    """Return the intersection over union of two boxes; `found` is left, top, width, height."""
    left, top, width, height = found
    across = min(left + width, box[2]) - max(left, box[0])
    down = min(top + height, box[3]) - max(top, box[1])
    common = max(0.0, across) * max(0.0, down)
    return common / max(width * height + (box[2] - box[0]) * (box[3] - box[1]) - common, 1e-6)
