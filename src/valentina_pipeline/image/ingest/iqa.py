"""Image quality assessment by learned models that are already on this machine.

CLIP-IQA (Wang, Chan & Loy 2023) with any CLIP; BRISQUE (Mittal, Moorthy & Bovik 2012) with OpenCV's files.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.common.threads import one_thread
from valentina_pipeline.image.models.clip import Clip, load_clip

GOOD, BAD = "Good photo.", "Bad photo."
"""The paper's pair of prompts for overall quality."""

SCALE = 100.0
"""Factor by which CLIP multiplies cosines before the softmax."""

BRISQUE_FILES = "brisque_model_live.yml", "brisque_range_live.yml"
BRISQUE_SIDE = 512
"""Shorter side in pixels to which images are resized: BRISQUE was fitted on images of about this size."""


def clip_iqa(image: Image.Image, model: str) -> float:
    """Return the CLIP-IQA score in [0, 1]: 1 is nearest to "Good photo.", 0 to "Bad photo.".

    Args:
        image: any size.
        model: a folder in open_clip's layout, or a name such as "ViT-B-32/laion2b_s34b_b79k".

    Raises:
        MissingModelError: the model is not on this machine.
        ValueError: open_clip does not know the model.
    """
    import torch

    with one_thread():
        clip = _clip(model)
        good, bad = clip.images([image])[0] @ clip.texts([GOOD, BAD]).T
        return round(float(torch.sigmoid(torch.tensor(SCALE * (good - bad)))), 4)


def brisque(image: Image.Image, folder: str) -> float:
    """Return the BRISQUE score, from 0 (natural) to 100 (distorted).

    Args:
        image: any size.
        folder: contains BRISQUE_FILES.

    Raises:
        MissingModelError: a file is missing or invalid.
    """
    small = image.convert("RGB")
    scale = BRISQUE_SIDE / min(image.size)
    small.thumbnail((image.width * scale, image.height * scale))
    score = _brisque(folder).compute(np.ascontiguousarray(np.asarray(small)[..., ::-1]))[0]
    return round(float(score), 2)


@lru_cache(maxsize=1)
def _clip(model: str) -> Clip:
    return load_clip("open_clip", model)


@lru_cache(maxsize=1)
def _brisque(folder: str) -> Any:
    import cv2

    files = require_brisque(folder)
    try:
        return cv2.quality.QualityBRISQUE.create(*map(str, files))
    except cv2.error as err:
        raise _missing_brisque(files) from err


def require_brisque(folder: str) -> list[Path]:
    """Return the paths of BRISQUE's two files in `folder` without reading them.

    Raises:
        MissingModelError: one of them is missing.
    """
    files = [Path(folder) / name for name in BRISQUE_FILES]
    if not all(file.is_file() for file in files):  # OpenCV would continue without them
        raise _missing_brisque(files)
    return files


def _missing_brisque(files: list[Path]) -> MissingModelError:
    return MissingModelError(
        f"BRISQUE ({' and '.join(map(str, files))})",
        "Apache-2.0; fitted on the LIVE database",
        "download them from modules/quality/samples of github.com/opencv/opencv_contrib and "
        "set ingest.brisque_model to their folder",
    )
