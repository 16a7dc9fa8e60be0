"""Result of alignment: one image with its faces, and the table of faces."""

from dataclasses import dataclass

import numpy as np

from valentina_pipeline.image.align.head_pose import Pose
from valentina_pipeline.image.align.portrait_crop import Crop
from valentina_pipeline.image.faces.detection import Face

FACE_COLUMNS = (
    "sha256",
    "probability",
    *("x0", "y0", "x1", "y1"),
    *(f"l{axis}{index}" for index in range(5) for axis in "xy"),
    "yaw",
    "pitch",
    "landmark_error",
    "landmark_contrast",
    "face_share",
    "embedding",
    "identity_distance",
    "accepted",
    "reason",
    "split",
    "background_removed",
)


@dataclass(frozen=True)
class Aligned:
    """Alignment result of one image.

    Attributes:
        name: sha256 of the image.
        face: in pixels of the portrait; None without a single main face.
        crop: the part of the image that the portrait shows.
        pose: head pose.
        landmark_contrast: see `head_pose.landmark_contrast`.
        face_share: height of the face as a share of the image's.
        embedding: float32 (d,), norm 1.
        identity_distance: 1 - cosine to the median embedding.
        reason: reason for rejection, or "".
    """

    name: str
    reason: str = ""
    face: Face | None = None
    crop: Crop | None = None
    pose: Pose | None = None
    landmark_contrast: float = float("nan")
    face_share: float = float("nan")
    embedding: np.ndarray | None = None
    identity_distance: float = float("nan")
