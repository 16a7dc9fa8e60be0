"""Layers and previews, as `kedro viz` itself loads them."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro_viz.data_access.managers import DataAccessManager
from kedro_viz.integrations.kedro.data_loader import load_data
from kedro_viz.models.flowchart.node_metadata import DataNodeMetadata
from kedro_viz.models.flowchart.nodes import GraphNode
from kedro_viz.server import populate_data
from PIL import Image

from valentina_pipeline.datasets.captions import ReviewedCsv
from valentina_pipeline.datasets.images import ImageFile, ImageFolder
from valentina_pipeline.datasets.json_file import JsonFile
from valentina_pipeline.datasets.tables import Csv, ParquetFile, PlotCsv

LAYERS = (
    "raw", "intermediate", "primary", "feature", "model input", "models", "model output", "reporting",
)  # fmt: skip
"""By the number of the folder in data/."""

CAPTIONS = pd.DataFrame({"sha256": ["a" * 64], "source_name": ["a.png"], "machine": ["photo"]})
CURVE = pd.DataFrame({"step": [1, 2], "train_loss": [0.5, np.nan], "learning_rate": [0.1, 0.1]})
BOXES = pd.DataFrame({"sha256": list("abcdefg"), "box": [np.array([1.0, 2.0])] * 7})
AXES = {"kind": "plots", "x": "step", "y": "train_loss", "title": "training loss"}


@pytest.fixture(scope="module")
def viz(root: Path) -> DataAccessManager:
    manager = DataAccessManager()
    populate_data(manager, *load_data(root))
    return manager


def shown(dataset: Any) -> tuple[str | None, Any]:
    """Return the type and the content of a dataset's preview, as sent to the page."""
    node = GraphNode.create_data_node("id", "name", None, set(), dataset, set())
    metadata = DataNodeMetadata(data_node=node)
    return metadata.preview_type, json.loads(json.dumps(metadata.preview, allow_nan=False))


def decoded(preview: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(preview)))


def test_every_dataset_is_in_the_layer_of_its_folder(viz: DataAccessManager, root: Path) -> None:
    catalog = yaml.safe_load((root / "conf/base/catalog.yml").read_text())
    entries = {name: entry["filepath"] for name, entry in catalog.items() if isinstance(entry, dict)}
    expected = {
        name: LAYERS[int(path[5:7]) - 1] if path.startswith("data/") else "raw"
        for name, path in entries.items()
    }
    found = {node.name: node.layer for node in viz.nodes.as_list() if getattr(node, "layer", None)}
    assert found == expected | {"built_package": "release", "package": "release"}


def test_the_layers_have_an_order(viz: DataAccessManager) -> None:
    order = viz.get_sorted_layers_for_registered_pipeline("__default__")
    assert sorted(order) == sorted([*LAYERS, "release"])
    order.remove("model input")  # nothing of this repository is computed for it, so that it may be first
    assert order == [layer for layer in [*LAYERS, "release"] if layer != "model input"]


def test_every_table_plot_and_sheet_of_the_catalog_has_a_preview(viz: DataAccessManager) -> None:
    without = {
        node.name
        for node in viz.nodes.as_list()
        if getattr(node, "layer", None) and not hasattr(node.kedro_obj, "preview")
    }
    sources = {"raw", "tiny_weights", "extra_training_data", "rights"}
    assert without == sources | {"dataset_card", "lora", "lora_steps", "report", "built_package", "package"}


@pytest.mark.parametrize("dataset", [Csv, ParquetFile, ReviewedCsv])
def test_a_table_shows_its_first_rows(dataset: Any, tmp_path: Path) -> None:
    table = dataset(filepath=str(tmp_path / "table"))
    table.save(CAPTIONS)
    kind, preview = shown(table)
    assert kind == "TablePreview"
    assert preview["columns"][0] == "sha256" and preview["data"][0][0] == "a" * 64


def test_a_table_with_arrays_shows_some_rows(tmp_path: Path) -> None:
    table = ParquetFile(filepath=str(tmp_path / "faces.parquet"))
    table.save(BOXES)
    kind, preview = shown(table)
    assert kind == "TablePreview"
    assert preview["data"] == [[name, [1.0, 2.0]] for name in "abcde"]


@pytest.mark.parametrize(("template", "mode"), [({}, "lines"), ({"template": "scatter"}, "markers")])
def test_a_plot_of_dvc_is_a_plot_here(template: dict[str, str], mode: str, tmp_path: Path) -> None:
    plot = PlotCsv(filepath=str(tmp_path / "train_loss.csv"), metadata={"dvc": AXES | template})
    plot.save(CURVE)
    kind, preview = shown(plot)
    assert kind == "PlotlyPreview"
    assert preview["data"] == [{"type": "scatter", "mode": mode, "x": [1, 2], "y": [0.5, None]}]
    assert preview["layout"]["title"]["text"] == "training loss"


def test_a_sheet_is_shown_whole_and_a_folder_of_images_as_a_sheet(tmp_path: Path) -> None:
    sheet, folder = ImageFile(filepath=str(tmp_path / "a.png")), ImageFolder(filepath=str(tmp_path / "a"))
    sheet.save(Image.new("RGB", (40, 30), "red"))
    folder.save({f"b{number}": Image.new("RGB", (8, 8), "red") for number in range(14)})
    for dataset, size in ((sheet, (40, 30)), (folder, (700, 591))):
        kind, preview = shown(dataset)
        assert kind == "ImagePreview"
        image = decoded(preview)
        assert image.size == size
        assert image.getpixel((30, 20)) == (255, 0, 0)


def test_an_empty_folder_of_images_shows_nothing(tmp_path: Path) -> None:
    folder = ImageFolder(filepath=str(tmp_path / "masks"))
    folder.save({})
    assert shown(folder) == ("ImagePreview", "")


def test_metrics_are_shown_as_json(tmp_path: Path) -> None:
    metrics = JsonFile(filepath=str(tmp_path / "metrics.json"))
    metrics.save({"identity": 0.7})
    assert shown(metrics) == ("JSONPreview", '{"identity": 0.7}')
