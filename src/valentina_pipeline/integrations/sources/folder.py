"""A folder as a source."""

import os
import stat
from pathlib import Path

from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, is_candidate

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"})
"""What makes a folder or a link to one look like a picture, so that it gets a row in the report."""


class LocalFolder:
    """The files of a folder and of the folders in it; hidden ones and DVC's own are no pictures."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def entries(self) -> list[Entry]:
        """Return the files, and what is no file but is named like a picture."""
        if not self._folder.is_dir():
            raise InvalidSourceError(
                f"{self._folder} is not a folder: create it and put her portraits there, "
                "or set `source` in her concept file to where they are"
            )
        found = []
        for parent, folders, files in os.walk(self._folder, onerror=_cannot_list):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            odd = [f for f in folders if Path(f).suffix.lower() in SUFFIXES or Path(parent, f).is_symlink()]
            here = (Path(parent, name) for name in (*files, *odd))
            found += [self._entry(path) for path in here if is_candidate(self._name(path))]
        if not found:
            raise InvalidSourceError(
                f"{self._folder} is empty: put her portraits there (JPEG, PNG, WebP, TIFF, HEIC)"
            )
        return sorted(found, key=lambda entry: entry.name)

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a regular file's content, at most `limit` + 1 bytes of it."""
        path = self._folder / entry.name
        if not self._holds(path):
            raise OSError(f"{entry.name} leads out of the source: put the picture itself there, not a link")
        # before opening: a pipe would block for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(f"{entry.name} is a folder, a pipe or a device")
        with path.open("rb") as file:
            content = file.read(limit + 1)
            if entry.version and _version(os.fstat(file.fileno())) != entry.version:
                raise OSError(f"{entry.name} was changed while it was read: run the stage again")
        return content

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _holds(self, path: Path) -> bool:
        """Return whether a path is inside of the folder, wherever links lead."""
        return path.resolve().is_relative_to(self._folder.resolve())

    def _entry(self, path: Path) -> Entry:
        if path.is_symlink() and not self._holds(path):  # reading it says so
            return Entry(self._name(path))
        try:
            about = path.stat()
        except OSError:  # such as a link to nothing: reading it says what is wrong
            return Entry(self._name(path))
        regular = stat.S_ISREG(about.st_mode)
        return Entry(self._name(path), _version(about) if regular else "", about.st_size)


def _version(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ino}"


def _cannot_list(err: OSError) -> None:
    raise InvalidSourceError(
        f"{err.filename} cannot be listed ({err.strerror}): check its permissions"
    ) from err
