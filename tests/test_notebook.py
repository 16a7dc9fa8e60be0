"""The notebook runs from its first cell to its last, on a project whose outputs have the real shapes."""

from contextlib import chdir
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog
from nbclient import NotebookClient

from judges import CONFIG, GREEN, PERSON, RED, TEMPLATES, known, laid_out, models
from valentina_pipeline.config_loader import ProjectConfigLoader
from valentina_pipeline.image.evaluate.evaluate import evaluate
from valentina_pipeline.image.io.contact_sheet import contact_sheet

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "explore.ipynb"


def outputs() -> dict[str, Any]:
    """What the stages before and the evaluation would have saved, by catalog name."""
    seen = known([RED, RED], [RED, GREEN])
    result = evaluate(TEMPLATES, PERSON, seen, models(lora=RED, base=GREEN), CONFIG, 7, {})
    names = list(seen.aligned)
    splits = seen.faces["split"].tolist()
    manifest = {"sha256": names, "source_name": names, "width": 64, "height": 64, "rights_id": "test"}
    steps = np.arange(1, 40)
    return {
        "manifest": pd.DataFrame(manifest),
        "rejections": pd.DataFrame({"source_name": ["a"], "reason": ["unreadable"], "detail": [""]}),
        "aligned": seen.aligned,
        "faces": seen.faces,
        "alignment_overview": contact_sheet(seen.aligned.values(), splits, 2, 64),
        "captions": pd.DataFrame({"sha256": names, "machine": "photo of a test_woman woman"}),
        "train_loss": pd.DataFrame({"step": steps, "train_loss": 1 / steps, "learning_rate": 1e-4}),
        "evaluation_images": result.evaluation_images,
        "image_scores": result.image_scores,
        "metrics": result.metrics,
        "comparison_grid": laid_out(result, seen, TEMPLATES, PERSON)[0],
    }


def run(folder: Path) -> str:
    """Execute the notebook with `folder` as its working directory and return all that it printed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in found)


@pytest.mark.slow
def test_the_notebook_reads_what_the_pipeline_saved(project: Path) -> None:
    loader = ProjectConfigLoader(project / "conf", base_env="base", default_run_env="local")
    with chdir(project):
        catalog = DataCatalog.from_config(loader["catalog"])
        for name, data in outputs().items():
            catalog[name].save(data)
    printed = run(project)

    assert "Valentina Moreau" in printed
    assert "4 images; 2 train, 2 held_out" in printed
    assert "likeness 1.000; copies count from 1.000" in printed


@pytest.mark.slow
def test_the_notebook_runs_on_the_projects_own_outputs(root: Path) -> None:
    if not list(root.glob("data/07_model_output/*/image_scores.csv")):
        pytest.skip("`dvc repro` has not run here: the test above covers the notebook on made-up outputs")
    assert "copies count from" in run(root)


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells

    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
