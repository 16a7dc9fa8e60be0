"""The folder of images, which may be full: then what was accepted waits until there is room."""

from pathlib import Path

from valentina_pipeline.common import atomic_files
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.disk import no_room

PROBE = 1 << 20
"""Bytes that have to fit again before drawing goes on."""


class ImageStore:
    """The images of a server, on a disk.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refused = False

    def path(self, name: str) -> Path:
        """Return where an image is."""
        return self._folder / name

    def keep(self, name: str, content: bytes) -> None:
        """Write an image.

        Raises:
            UnavailableError: the disk does not take it.
        """
        try:
            atomic_files.replace(self.path(name), content)
        except OSError as err:
            self._refused = True
            raise UnavailableError(no_room("images", err)) from err

    def remove(self, name: str) -> None:
        """Remove an image, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def probe(self) -> None:
        """See whether a disk that refused an image takes one by now.

        Raises:
            UnavailableError: it does not.
        """
        if self._refused:
            self.keep(".probe", bytes(PROBE))
            self.remove(".probe")
            self._refused = False
