"""Datasets of whole folders."""

from collections.abc import Mapping
from pathlib import Path

from kedro.io import DatasetError

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _PathDataset


class SourceFolder(_PathDataset[None, Path]):
    """A read-only source folder: loads its path."""

    def load(self) -> Path:
        """Return the folder's path."""
        if not self._path.is_dir():
            raise DatasetError(f"{self._path} is not a folder: `git checkout -- {self._path}` restores it")
        return self._path

    def save(self, data: None) -> None:
        """Raise DatasetError: sources are never written."""
        raise DatasetError(f"{self._path} is a read-only source dataset")


class OutputFolder(_PathDataset[Mapping[str, bytes | Path], Path]):
    """A folder that a stage writes: saves relative path -> content or file to copy; loads its path."""

    def load(self) -> Path:
        """Return the folder's path."""
        return self._require_path()

    def save(self, data: Mapping[str, bytes | Path]) -> None:
        """Replace the folder by these files; a path outside the folder is an error."""
        with atomic_files.replacing_folder(self._path) as folder:
            atomic_files.write(data, folder)
