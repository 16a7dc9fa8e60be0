"""Dataset of one text file."""

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _OnDisk


class TextFile(_OnDisk[str, str]):
    """One UTF-8 text file."""

    def load(self) -> str:
        """Return the text."""
        return self._present().read_bytes().decode()

    def save(self, data: str) -> None:
        """Write the text as it is."""
        atomic_files.replace(self._path, data.encode())
