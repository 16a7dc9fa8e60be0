"""Head pose from five landmarks, and checks that the landmarks belong to a fully visible face."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

HEAD = np.array(
    [[-31.5, -36.0, 30.0], [31.5, -36.0, 30.0], [0.0, 0.0, 0.0], [-25.0, 31.0, 24.0], [25.0, 31.0, 24.0]]
)
"""Eyes, nose tip and mouth corners of an average adult head in mm; the nose tip is the origin, x points to
the viewer's right, y down, z away from the viewer."""


FACE_HEIGHT, REACH = 96, 9
"""Pixels: height to which a face is resized, and half the side of the patch around each landmark."""


@dataclass(frozen=True)
class Pose:
    """A head's pose.

    Attributes:
        yaw: degrees, positive where the head is turned to the viewer's right.
        pitch: degrees, positive where it looks down.
        roll: degrees, positive where it leans to the viewer's right.
        landmark_error: mean distance of the landmarks to the model's in this pose, as a share of the distance
            from eyes to mouth; large if they are not a face's.
    """

    yaw: float
    pitch: float
    roll: float
    landmark_error: float


def head_pose(landmarks: np.ndarray) -> Pose:
    """Return the pose of an average head that fits the landmarks best under scaled orthographic projection.

    Pose from orthography and scaling (DeMenthon & Davis 1995): fit the affine map from head to image by least
    squares, and take the nearest scaled rotation by its singular values.

    Args:
        landmarks: (5, 2) pixels: eyes, nose, mouth corners, the viewer's left first.
    """
    model = HEAD - HEAD.mean(axis=0)
    points = landmarks.astype(np.float64) - landmarks.mean(axis=0)
    affine = np.linalg.lstsq(model, points, rcond=None)[0].T  # (2, 3)
    left, values, right = np.linalg.svd(affine, full_matrices=False)
    turn = left @ right
    scale = values.mean()
    third = np.cross(turn[0], turn[1])
    residual = np.linalg.norm(points - scale * model @ turn.T, axis=1).mean()
    length = np.linalg.norm(landmarks[:2].mean(axis=0) - landmarks[3:].mean(axis=0))
    yaw = np.degrees(np.arctan2(third[0], third[2]))
    pitch = np.degrees(np.arcsin(np.clip(third[1], -1, 1)))
    roll = np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
    return Pose(
        round(float(yaw), 2),
        round(float(pitch), 2),
        round(float(roll), 2),
        round(float(residual / max(length, 1e-6)), 4),
    )


def landmark_contrast(
    image: Image.Image, landmarks: np.ndarray, box: tuple[float, float, float, float]
) -> float:
    """Return the contrast at the least visible landmark: close to 0 under a mask or sunglasses.

    Args:
        image: the image.
        landmarks: (5, 2) in pixels of the image.
        box: the face: left, top, right, bottom.

    Returns:
        The smallest standard deviation of the luminance around a landmark, relative to the whole face's.
    """
    left, top, right, bottom = (round(value) for value in box)
    face = image.convert("L").crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    scale = FACE_HEIGHT / face.height
    gray = np.asarray(face.resize((max(1, round(face.width * scale)), FACE_HEIGHT)), np.float64)
    middles = (landmarks - (left, top)) * scale
    starts = np.clip(middles - REACH, 0, None).astype(int)
    patches = (gray[y : y + 2 * REACH, x : x + 2 * REACH] for x, y in starts)
    lowest = min(float(patch.std()) if patch.size else 0.0 for patch in patches)
    return round(lowest / max(float(gray.std()), 1e-6), 4)
