"""Previews of datasets in `kedro viz`, which chooses the display by the return type of `preview()`."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from kedro_datasets._typing import ImagePreview, JSONPreview, PlotlyPreview, TablePreview

__all__ = [
    "ImagePreview",
    "JSONPreview",
    "PlotlyPreview",
    "TablePreview",
    "preview_plot",
    "preview_png",
    "preview_table",
]


def preview_table(table: pd.DataFrame, nrows: int) -> TablePreview:
    """Return the first rows; arrays become lists and missing values None, as in JSON."""
    return TablePreview(json.loads(table.head(nrows).to_json(orient="split", date_format="iso")))


def preview_plot(table: pd.DataFrame, axes: Mapping[str, Any]) -> PlotlyPreview:
    """Return a Plotly figure of one column against another.

    Args:
        table: with the columns of the axes.
        axes: the catalog entry's `metadata.dvc`: `x`, `y`, and optionally `title` and `template`.
    """
    x, y = axes["x"], axes["y"]
    points = json.loads(table[[x, y]].to_json(orient="split"))["data"]
    trace = {
        "type": "scatter",
        "mode": "markers" if axes.get("template") == "scatter" else "lines",
        "x": [point[0] for point in points],
        "y": [point[1] for point in points],
    }
    titles = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return PlotlyPreview({"data": [trace], "layout": {"title": {"text": axes.get("title", y)}, **titles}})


def preview_png(content: bytes) -> ImagePreview:
    """Return a PNG file's content in base64."""
    return ImagePreview(base64.b64encode(content).decode())
