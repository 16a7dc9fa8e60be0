"""Image sources behind one interface: folders, zips, S3, lists of web addresses and videos."""

from pathlib import Path

from valentina_pipeline.integrations.sources.beside import BadCaptionError, Beside, read_caption, sorted_out
from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, Source, is_candidate
from valentina_pipeline.integrations.sources.folder import SUFFIXES, LocalFolder

__all__ = [
    "SUFFIXES",
    "VIDEOS",
    "BadCaptionError",
    "Beside",
    "Entry",
    "InvalidSourceError",
    "LocalFolder",
    "Source",
    "is_candidate",
    "read_caption",
    "sorted_out",
    "source",
]

VIDEOS = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"})


def source(place: str, root: Path, hosts: tuple[str, ...] = (), cache: Path | None = None) -> Source:
    """Return the source at `place`.

    Args:
        place: s3://bucket/prefix, the https:// address of a list of addresses, or a folder, a .zip or a
            video; relative paths start at `root`.
        root: the project's folder.
        hosts: allowed for https://.
        cache: folder for frames of videos.

    Raises:
        InvalidSourceError: the kind of address is unsupported, or its host is not allowed.
    """
    if place.startswith("s3://"):
        from valentina_pipeline.integrations.sources.s3 import S3Prefix

        return S3Prefix(place)
    if place.startswith("https://"):
        from valentina_pipeline.integrations.sources.web import WebList

        return WebList(place, hosts)
    if "://" in place:
        raise InvalidSourceError(
            f"source {place!r} is not supported: use a folder, a .zip, a video, s3://bucket/prefix, or the "
            "https:// address of a list of addresses"
        )
    path = root / place
    if path.suffix.lower() == ".zip" and not path.is_dir():
        from valentina_pipeline.integrations.sources.archive import ZipFile

        return ZipFile(path)
    if path.suffix.lower() in VIDEOS and not path.is_dir():
        from valentina_pipeline.integrations.sources.video import VideoScenes

        return VideoScenes(path, cache or root / ".frames")
    return LocalFolder(path)
