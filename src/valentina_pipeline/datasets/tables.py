"""Datasets of tables."""

import io
from typing import Any

import pandas as pd

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _PathDataset
from valentina_pipeline.datasets.previews import PlotlyPreview, TablePreview, preview_plot, preview_table
from valentina_pipeline.integrations import tables


class _CsvFile(_PathDataset[pd.DataFrame, pd.DataFrame]):
    """Base of CSV tables without an index; texts cannot act as formulas: integrations/tables.py.

    Args:
        filepath: see `_PathDataset`.
        texts: read every cell as text, empty cells as "".
        metadata: see `_PathDataset`.
    """

    def __init__(self, *, filepath: str, texts: bool = False, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._read_options = {"dtype": str, "keep_default_na": False} if texts else {}

    def load(self) -> pd.DataFrame:
        """Return the table."""
        return tables.from_csv(self._require_path(), **self._read_options)

    def save(self, data: pd.DataFrame) -> None:
        """Write the table."""
        atomic_files.replace(self._path, tables.to_csv(data))


class Csv(_CsvFile):
    """A table as CSV."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first rows for `kedro viz`."""
        return preview_table(self.load(), nrows)


class PlotCsv(_CsvFile):
    """A table as CSV that DVC and `kedro viz` plot by the axes in its `metadata.dvc`."""

    def preview(self) -> PlotlyPreview:
        """Return the plot for `kedro viz`."""
        return preview_plot(self.load(), (self.metadata or {})["dvc"])


class ParquetFile(_PathDataset[pd.DataFrame, pd.DataFrame]):
    """A table as Parquet."""

    def load(self) -> pd.DataFrame:
        """Return the table."""
        return pd.read_parquet(self._require_path())

    def save(self, data: pd.DataFrame) -> None:
        """Write the table."""
        content = io.BytesIO()
        data.to_parquet(content)
        atomic_files.replace(self._path, content.getvalue())

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first rows for `kedro viz`."""
        return preview_table(self.load(), nrows)
