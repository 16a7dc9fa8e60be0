"""Datasets of whole folders."""

from collections.abc import Mapping
from pathlib import Path

from kedro.io import DatasetError

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _OnDisk, _replacing_folder


class Folder(_OnDisk[None, Path]):
    """A folder that the project only reads: loads its path."""

    def load(self) -> Path:
        """Return the folder's path."""
        if not self._path.is_dir():
            raise DatasetError(f"{self._path} is not a folder: `git checkout -- {self._path}` brings it back")
        return self._path

    def save(self, data: None) -> None:
        """Refuse: sources are never written."""
        raise DatasetError(f"{self._path} is a source and read only")


class FileFolder(_OnDisk[Mapping[str, bytes | Path], Path]):
    """A folder of any files: saves relative path -> content or file to copy, loads the folder's path."""

    def load(self) -> Path:
        """Return the folder's path."""
        return self._present()

    def save(self, data: Mapping[str, bytes | Path]) -> None:
        """Replace the folder by these files; a path that leaves it is refused."""
        with _replacing_folder(self._path) as folder:
            atomic_files.write(data, folder)
