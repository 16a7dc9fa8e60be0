"""Crop faces to one canonical position and scale."""

import numpy as np
from PIL import Image

from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.faces.embedding import LEFT_EYE, LEFT_MOUTH, RIGHT_EYE, RIGHT_MOUTH

CANONICAL = np.array([[0.35, 0.39], [0.65, 0.39], [0.5, 0.7356]])
"""Eyes and mouth center in the canonical crop, in widths: the usual proportions of face recognition
(eye distance is 0.868 of the distance from eyes to mouth), with a wider margin that shows the hairline."""


def crop_matrix(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return the similarity transform that moves a face to its canonical position.

    It is the least-squares fit to both eyes and the mouth center (Umeyama 1991, without reflection): turning
    the head moves the eyes together but keeps their distance from the mouth.

    Args:
        landmarks: (5, 2) in pixels, in MTCNN's order.
        size: width and height of the crop in pixels.

    Returns:
        float64 (2, 3): image -> crop, for cv2.warpAffine.
    """
    eyes_and_mouth = np.stack(
        [landmarks[LEFT_EYE], landmarks[RIGHT_EYE], landmarks[[LEFT_MOUTH, RIGHT_MOUTH]].mean(axis=0)]
    ).astype(np.float64)
    target = CANONICAL * size
    # with complex numbers a similarity is z -> a z + b, so least squares need one division
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (eyes_and_mouth, target))
    spread = z - z.mean()
    a = np.vdot(spread, w - w.mean()) / max(np.vdot(spread, spread).real, 1e-12)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def face_crop(image: Image.Image, face: Face, size: int) -> Image.Image:
    """Return the level, centered face at a fixed scale: the input of every face embedder.

    Args:
        image: the image in which `face` was detected.
        face: with landmarks in pixels of the image.
        size: width and height of the crop in pixels.
    """
    import cv2

    rgb = image.convert("RGB")
    matrix = crop_matrix(face.landmarks, size)
    # linear sampling aliases below half size: reduce by an integer factor first
    factor = int(1 / max(np.hypot(matrix[0, 0], matrix[1, 0]), 1e-3))
    if factor > 1:
        rgb = rgb.reduce(factor)
        # pixel centers: x_small = (x + 1/2) / factor - 1/2
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (factor - 1) / 2)
        matrix[:, :2] *= factor
    pixels = cv2.warpAffine(np.asarray(rgb), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return Image.fromarray(pixels)
