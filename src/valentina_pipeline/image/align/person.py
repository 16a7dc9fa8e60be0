"""Whether a face that MTCNN is sure of is a person's: dogs, cats and toys have passed for people.

The second opinion is NudeNet's, which learned people's faces and is part of the content filter. In 158
photographs of animals and things MTCNN is sure of 7 faces, whose score is 0.49 at most; whole faces of people
have 0.62 and more (107 photographs), rendered ones 0.64.
"""

from functools import lru_cache

from PIL import Image

from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.safety.content_filter import ContentFilter

AROUND = 3.0
"""Side of what is looked at, in face heights: the network sees a face at one size, whatever the picture."""

OVERLAP = 0.3
"""Of both boxes together, from which two detectors mean one face."""

DOUBT = 10
"""Power of MTCNN's probability in the score: it is nearly 1 for people, and a little less for animals."""

FACES = ("FACE_FEMALE", "FACE_MALE")


def person_score(image: Image.Image, face: Face) -> float:
    """Return how surely a face is a person's, in [0, 1].

    Args:
        image: the picture that `face` was found in.
        face: MTCNN's.
    """
    x0, y0, x1, y1 = face.box
    reach, x, y = AROUND * face.height / 2, (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    part = image.crop((left, top, min(image.width, int(x + reach)), min(image.height, int(y + reach))))
    if min(part.size) < 2:
        return 0.0
    scale = max(1.0, max(part.size) / ContentFilter.LONGEST)
    inside = ((x0 - left) / scale, (y0 - top) / scale, (x1 - left) / scale, (y1 - top) / scale)
    scores = (
        found["score"]
        for found in _detector().detect(part)
        if found["class"] in FACES and _overlap(found["box"], inside) >= OVERLAP
    )
    return round(float(max(scores, default=0.0)) * face.probability**DOUBT, 4)


@lru_cache(maxsize=1)
def _detector() -> ContentFilter:
    return ContentFilter()


def _overlap(found: list[int], box: tuple[float, float, float, float]) -> float:
    """Return the share that both boxes have in common; `found` is left, top, width and height."""
    left, top, width, height = found
    across = min(left + width, box[2]) - max(left, box[0])
    down = min(top + height, box[3]) - max(top, box[1])
    common = max(0.0, across) * max(0.0, down)
    return common / max(width * height + (box[2] - box[0]) * (box[3] - box[1]) - common, 1e-6)
