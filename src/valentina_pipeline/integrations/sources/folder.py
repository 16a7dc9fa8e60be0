"""Folder as a source."""

import os
import stat
from pathlib import Path

from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, is_candidate

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"})
"""Image suffixes. A folder or a link to one with such a suffix gets a row in the report, too."""


class LocalFolder:
    """Files of a folder and its subfolders, without hidden ones and .dvc files."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def entries(self) -> list[Entry]:
        """Return the files, and folders and links that are named like images, sorted by name."""
        if not self._folder.is_dir():
            raise InvalidSourceError(
                f"{self._folder} is not a folder: create it with portraits of the character, "
                "or correct `source` in the concept file"
            )
        found = []
        for parent, folders, files in os.walk(self._folder, onerror=_cannot_list):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            odd = [f for f in folders if Path(f).suffix.lower() in SUFFIXES or Path(parent, f).is_symlink()]
            paths = (Path(parent, name) for name in (*files, *odd))
            found += [self._entry(path) for path in paths if is_candidate(self._name(path))]
        if not found:
            raise InvalidSourceError(
                f"{self._folder} has no images: add portraits of the character (JPEG, PNG, WebP, TIFF, HEIC)"
            )
        return sorted(found, key=lambda entry: entry.name)

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a regular file's content, at most `limit` + 1 bytes."""
        path = self._folder / entry.name
        if not self._holds(path):
            raise OSError(f"{entry.name} links to a path outside the source: replace the link by the image")
        # before opening: a pipe would block forever
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(f"{entry.name} is a folder, a pipe or a device")
        with path.open("rb") as file:
            content = file.read(limit + 1)
            if entry.version and _version(os.fstat(file.fileno())) != entry.version:
                raise OSError(f"{entry.name} changed while it was read: run the stage again")
        return content

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _holds(self, path: Path) -> bool:
        """Return whether a path, with its links resolved, is inside the folder."""
        return path.resolve().is_relative_to(self._folder.resolve())

    def _entry(self, path: Path) -> Entry:
        if path.is_symlink() and not self._holds(path):  # `read` reports it
            return Entry(self._name(path))
        try:
            about = path.stat()
        except OSError:  # such as a dangling link: `read` reports it
            return Entry(self._name(path))
        regular = stat.S_ISREG(about.st_mode)
        return Entry(self._name(path), _version(about) if regular else "", about.st_size)


def _version(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ino}"


def _cannot_list(err: OSError) -> None:
    raise InvalidSourceError(
        f"{err.filename} cannot be listed ({err.strerror}): check its permissions"
    ) from err
