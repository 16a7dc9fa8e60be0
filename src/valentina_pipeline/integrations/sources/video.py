"""Video as a source: one frame per scene, with scene cuts detected by PySceneDetect."""

import hashlib
import os
from functools import partial
from pathlib import Path

from valentina_pipeline.common import atomic_files
from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError
from valentina_pipeline.integrations.sources.folder import LocalFolder

TIMEOUT_SECONDS = 3600.0
MAX_SCENES = 10_000
MIN_SCENE_FRAMES = 15
"""Shorter scenes are flashes."""

FFMPEG_OPTIONS = "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""Reject playlists, which refer to other files and addresses, whatever their file name."""


class VideoScenes:
    """Middle frames of a video's scenes as PNG, named by frame number.

    They are extracted once into a folder of `cache` that is named by the video's path, size and time.
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
        """Return the frames. The first call decodes the whole video, many times faster than it plays."""
        from valentina_pipeline.common.parallel import WorkerFailure, parallel_map

        if not self._path.is_file():
            raise InvalidSourceError(f"{self._path} does not exist: add the video, or correct `source`")
        folder = self._folder()
        if not folder.is_dir():
            # in a separate process: a crash of the decoder stays there
            (result,) = parallel_map(
                partial(_extract, self._path), [folder], workers=1, seconds=TIMEOUT_SECONDS
            )
            if isinstance(result, WorkerFailure) or result:
                reason = result.why if isinstance(result, WorkerFailure) else result
                raise InvalidSourceError(f"{self._path} cannot be read as a video: {reason}")
        return LocalFolder(folder).entries()

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a frame as PNG."""
        return LocalFolder(self._folder()).read(entry, limit)

    def _folder(self) -> Path:
        about = self._path.stat()
        key = f"{self._path} {about.st_size} {about.st_mtime_ns}"
        return self._cache / hashlib.sha256(key.encode()).hexdigest()[:32]


def _extract(path: Path, folder: Path) -> str:
    """Write all frames into `folder`, or do not create it; return the error, "" for success."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = FFMPEG_OPTIONS  # this process reads only one video
    from scenedetect.video_stream import FrameRateUnavailable, VideoOpenFailure

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_files.replacing(folder) as temporary:
            temporary.mkdir()
            _save_frames(path, temporary)
    except InvalidSourceError as err:
        return str(err)
    except (FrameRateUnavailable, VideoOpenFailure, OSError, ValueError) as err:
        exists = folder.is_dir()  # another process was faster
        return "" if exists else f"{type(err).__name__}: {err}"
    return ""


def _save_frames(path: Path, folder: Path) -> None:
    """Write the middle frame of each scene.

    Raises:
        InvalidSourceError: the video has no scenes, or too many.
    """
    from scenedetect import ContentDetector, detect, open_video, save_images

    scenes = detect(str(path), ContentDetector(min_scene_len=MIN_SCENE_FRAMES), start_in_scene=True)
    if not 0 < len(scenes) <= MAX_SCENES:
        raise InvalidSourceError(f"it has {len(scenes):,} scenes; allowed are 1 to {MAX_SCENES:,}")
    save_images(
        scenes,
        open_video(str(path)),
        num_images=1,
        image_extension="png",
        encoder_param=1,
        image_name_template="scene-$SCENE_NUMBER-$FRAME_NUMBER",
        output_dir=str(folder),
    )
