"""Dataset of one text file."""

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _PathDataset


class TextFile(_PathDataset[str, str]):
    """One UTF-8 text file."""

    def load(self) -> str:
        """Return the text."""
        return self._require_path().read_bytes().decode()

    def save(self, data: str) -> None:
        """Write the text as it is."""
        atomic_files.replace(self._path, data.encode())
