from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from valentina_pipeline.image.align.head_pose import HEAD, Pose, head_pose, landmark_contrast
from valentina_pipeline.image.faces.detection import detect_faces
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import random_identity, random_scene


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the head's landmarks as a far camera sees them, degrees as in Pose."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (HEAD @ (about_z @ about_x @ about_y).T)[:, :2] * 2.5 + [300, 200]


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 20, 0), (0, 0, 25)]
)
def test_the_pose_of_a_turned_head_is_found(yaw: float, pitch: float, roll: float) -> None:
    found = head_pose(turned(yaw, pitch, roll))
    assert (found.yaw, found.pitch, found.roll) == pytest.approx((yaw, pitch, roll), abs=0.1)
    assert found.landmark_error < 0.001


def test_landmarks_that_are_no_heads_do_not_fit() -> None:
    points = turned(0, 0, 0)
    points[3] += [40, -60]  # a corner of the mouth at the cheek
    assert head_pose(points).landmark_error > 0.1


def test_yaw_and_pitch_follow_the_camera_in_rendered_portraits() -> None:
    def seen(yaw: float, pitch: float) -> Pose:
        poses = []
        for woman in range(3):
            identity = random_identity(np.random.default_rng(11 + woman))
            scene = replace(random_scene(np.random.default_rng([5, woman])), roll=0.0)
            picture = render(identity, replace(scene, yaw=yaw, pitch=pitch), woman, 320)
            (face,) = detect_faces([Image.fromarray(picture)])[0]
            poses.append(head_pose(face.landmarks))
        return Pose(
            *(
                float(np.mean([getattr(p, name) for p in poses]))
                for name in ("yaw", "pitch", "roll", "landmark_error")
            )
        )

    left, right, up, down = seen(-28, 0), seen(28, 0), seen(0, 18), seen(0, -18)
    assert left.yaw < -15 < 15 < right.yaw and up.pitch < -5 < 5 < down.pitch
    assert max(pose.landmark_error for pose in (left, right, up, down)) < 0.1


def test_where_nothing_is_to_be_seen_at_a_landmark_there_is_no_contrast() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (200, 200), np.uint8)
    points = np.array([[60, 60], [140, 60], [100, 100], [70, 150], [130, 150]], np.float64)
    box = (20.0, 20.0, 180.0, 190.0)
    assert landmark_contrast(Image.fromarray(grey), points, box) > 0.5
    grey[130:175, 40:160] = 200
    assert landmark_contrast(Image.fromarray(grey), points, box) == 0
