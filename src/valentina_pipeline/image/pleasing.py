"""A learned score of how good a photograph looks: CLIP-IQA (Wang, Chan & Loy 2023), by any CLIP at hand."""

from functools import lru_cache

from PIL import Image

from valentina_pipeline.image.clip import Clip, load_clip
from valentina_pipeline.image.faces import one_thread

GOOD, BAD = "Good photo.", "Bad photo."
"""The paper's pair of prompts for overall quality."""

SCALE = 100.0
"""By which CLIP multiplies cosines before the softmax."""


def clip_iqa(image: Image.Image, model: str) -> float:
    """Return how much nearer a picture is to "Good photo." than to "Bad photo.", in [0, 1].

    Args:
        image: any size.
        model: a folder in open_clip's layout, or a name such as "ViT-B-32/laion2b_s34b_b79k".

    Raises:
        MissingModel: it is not on this machine.
        ValueError: open_clip knows no such model.
    """
    import torch

    with one_thread():
        clip = _clip(model)
        good, bad = clip.images([image])[0] @ clip.texts([GOOD, BAD]).T
        return round(float(torch.sigmoid(torch.tensor(SCALE * (good - bad)))), 4)


@lru_cache(maxsize=1)
def _clip(model: str) -> Clip:
    return load_clip("open_clip", model)
