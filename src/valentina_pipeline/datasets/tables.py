"""Datasets of tables."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
from kedro_datasets.pandas import ParquetDataset

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _OnDisk
from valentina_pipeline.integrations import tables


class Csv(_OnDisk[pd.DataFrame, pd.DataFrame]):
    """One table as CSV, without an index; no text in it is a spreadsheet's formula: integrations/tables.py.

    Args:
        filepath: see `_OnDisk`.
        texts: every cell is a text, "" where there is nothing.
        metadata: see `_OnDisk`.
    """

    def __init__(self, *, filepath: str, texts: bool = False, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._how = {"dtype": str, "keep_default_na": False} if texts else {}

    def load(self) -> pd.DataFrame:
        """Return the table."""
        return tables.from_csv(self._present(), **self._how)

    def save(self, data: pd.DataFrame) -> None:
        """Write the table."""
        atomic_files.replace(self._path, tables.to_csv(data))


class ParquetFile(ParquetDataset):
    """Kedro's Parquet table, written beside: in place it would go through a link into DVC's cache."""

    def save(self, data: pd.DataFrame) -> None:
        """Replace the file by the table."""
        content = io.BytesIO()
        data.to_parquet(content, **self._save_args)
        atomic_files.replace(Path(self._filepath), content.getvalue())
