from pathlib import Path

import cv2
import numpy as np
import pytest

from portraits import noise
from valentina_pipeline.image.io import png
from valentina_pipeline.integrations.sources import source
from valentina_pipeline.integrations.sources.files import InvalidSourceError


def film(path: Path, scenes: int = 3, frames: int = 30) -> None:
    """A film of still scenes that change at once."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (192, 128))
    assert writer.isOpened()
    for scene in range(scenes):
        for _ in range(frames):
            writer.write(np.asarray(noise(scene, 192, 128))[..., ::-1].copy())
    writer.release()


def test_a_video_gives_the_middle_frame_of_each_scene(tmp_path: Path) -> None:
    film(tmp_path / "her.mp4")
    place = source("her.mp4", tmp_path, cache=tmp_path / "cache")
    entries = place.entries()
    assert [entry.name for entry in entries] == ["scene-001-15.png", "scene-002-45.png", "scene-003-75.png"]
    for number, entry in enumerate(entries):
        shown = png.decode(place.read(entry, 1_000_000))
        wanted = np.asarray(noise(number, 192, 128), int)
        assert np.abs(np.asarray(shown, int) - wanted).mean() < 12


def test_scenes_are_found_once_for_each_version_of_a_video(tmp_path: Path) -> None:
    film(tmp_path / "her.mp4", 2)
    place = source("her.mp4", tmp_path, cache=tmp_path / "cache")
    first = place.entries()
    assert place.entries() == first
    film(tmp_path / "her.mp4", 1)
    assert len(place.entries()) == 1


@pytest.mark.parametrize(
    ("content", "said"), [(b"no video", "cannot be read as a video"), (None, "does not exist")]
)
def test_what_is_no_video_is_an_error_that_names_it(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content:
        (tmp_path / "her.mp4").write_bytes(content)
    with pytest.raises(InvalidSourceError, match=rf"her\.mp4 {said}"):
        source("her.mp4", tmp_path, cache=tmp_path / "cache").entries()
