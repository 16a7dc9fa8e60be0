"""Base class of the datasets, and helpers for their files."""

import logging
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from kedro.io import AbstractDataset, DatasetError

logger = logging.getLogger(__name__)

Saved = TypeVar("Saved")

Loaded = TypeVar("Loaded")

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""Name of an image: letters, digits, `_`, `.` and `-`, with at most one subfolder; files add `.png`."""


class _PathDataset(AbstractDataset[Saved, Loaded]):
    """Base of all datasets here: a file or folder at one path.

    Args:
        filepath: the file or folder; Kedro makes it absolute.
        metadata: the catalog entry's `metadata`; its key `dvc` sets DVC's storage and plots' axes.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path.as_posix()}

    def _exists(self) -> bool:
        return self._path.exists()

    def _require_path(self) -> Path:
        if not self._exists():
            raise DatasetError(f"{self._path} is missing: run the stage that writes it, or `dvc checkout`")
        return self._path


def _link_or_copy(source: Path, file: Path) -> None:
    """Hard-link `source` as `file`, or copy it where the file system does not support links."""
    try:
        os.link(source, file)
    except OSError:
        shutil.copyfile(source, file)


def _round_floats(value: Any, where: str) -> Any:
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _round_floats(inner, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_round_floats(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DatasetError(f"{where} is {value}: numbers must be finite")
        return round(value, 6) + 0.0  # -0.0 becomes 0.0
    return value
