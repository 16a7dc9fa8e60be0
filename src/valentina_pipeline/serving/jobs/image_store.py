"""Image folder. On a full disk, accepted jobs wait until there is space."""

from pathlib import Path

from valentina_pipeline.common import atomic_files
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.disk import no_room

PROBE_BYTES = 1 << 20
"""Free space required before generation resumes."""


class ImageStore:
    """Images of a server on a disk.

    Args:
        folder: created where missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed = False

    def path(self, name: str) -> Path:
        """Return the path of an image."""
        return self._folder / name

    def keep(self, name: str, content: bytes) -> None:
        """Write an image.

        Raises:
            UnavailableError: the disk does not accept it.
        """
        try:
            atomic_files.replace(self.path(name), content)
        except OSError as err:
            self._failed = True
            raise UnavailableError(no_room("images", err)) from err

    def remove(self, name: str) -> None:
        """Remove an image, if it exists."""
        self.path(name).unlink(missing_ok=True)

    def probe(self) -> None:
        """Check whether a disk that failed accepts files again.

        Raises:
            UnavailableError: it does not.
        """
        if self._failed:
            self.keep(".probe", bytes(PROBE_BYTES))
            self.remove(".probe")
            self._failed = False
