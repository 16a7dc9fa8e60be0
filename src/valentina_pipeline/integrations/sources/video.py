"""A video as a source: one frame of each scene, found where the picture changes at once (PySceneDetect)."""

import hashlib
import os
from functools import partial
from pathlib import Path

from valentina_pipeline.common import atomic_files
from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError
from valentina_pipeline.integrations.sources.folder import LocalFolder

SECONDS = 3600.0
MOST_SCENES = 10_000
LEAST_SCENE = 15
"""Frames of a scene: what is shorter is a flash."""

READ = "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""FFmpeg's options: a playlist, which names other files and addresses, is no video, whatever its name."""


class VideoScenes:
    """The middle frames of a video's scenes as PNG, named by the frame's number.

    They are found once and kept in `cache`, in a folder named by the video's path, size and time.
    """

    remote = False

    def __init__(self, path: Path, cache: Path) -> None:
        self._path = path
        self._cache = cache

    @property
    def where(self) -> str:
        """The video's path."""
        return str(self._path)

    def entries(self) -> list[Entry]:
        """Return the frames; finding them takes about as long as the video at many times its speed."""
        from valentina_pipeline.common.parallel import WorkerFailure, parallel_map

        if not self._path.is_file():
            raise InvalidSourceError(f"{self._path} does not exist: put the video there, or correct `source`")
        folder = self._folder()
        if not folder.is_dir():
            # in a process of its own: a decoder that dies takes nothing with it
            (made,) = parallel_map(partial(_extract, self._path), [folder], workers=1, seconds=SECONDS)
            if isinstance(made, WorkerFailure) or made:
                said = made.why if isinstance(made, WorkerFailure) else made
                raise InvalidSourceError(f"{self._path} cannot be read as a video: {said}")
        return LocalFolder(folder).entries()

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a frame as PNG."""
        return LocalFolder(self._folder()).read(entry, limit)

    def _folder(self) -> Path:
        about = self._path.stat()
        key = f"{self._path} {about.st_size} {about.st_mtime_ns}"
        return self._cache / hashlib.sha256(key.encode()).hexdigest()[:32]


def _extract(path: Path, folder: Path) -> str:
    """Write the frames into `folder`, which is there only when all of them are; return what went wrong."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = READ  # this process is there for one video only
    from scenedetect.video_stream import FrameRateUnavailable, VideoOpenFailure

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_files.replacing(folder) as made:
            made.mkdir()
            _save_frames(path, made)
    except InvalidSourceError as err:
        return str(err)
    except (FrameRateUnavailable, VideoOpenFailure, OSError, ValueError) as err:
        another_was_first = folder.is_dir()
        return "" if another_was_first else f"{type(err).__name__}: {err}"
    return ""


def _save_frames(path: Path, folder: Path) -> None:
    """Write the middle frame of each scene.

    Raises:
        InvalidSourceError: there are none, or too many.
    """
    from scenedetect import ContentDetector, detect, open_video, save_images

    scenes = detect(str(path), ContentDetector(min_scene_len=LEAST_SCENE), start_in_scene=True)
    if not 0 < len(scenes) <= MOST_SCENES:
        raise InvalidSourceError(
            f"it has {len(scenes):,} scenes; at least one and at most {MOST_SCENES:,} can be taken in"
        )
    save_images(
        scenes,
        open_video(str(path)),
        num_images=1,
        image_extension="png",
        encoder_param=1,
        image_name_template="scene-$SCENE_NUMBER-$FRAME_NUMBER",
        output_dir=str(folder),
    )
