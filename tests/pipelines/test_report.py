"""The stage `report` on what evaluate saved, read back from the files of the catalog."""

from pathlib import Path
from typing import Any

import pytest
from kedro.io import AbstractDataset

from judges import CONFIG, GREEN, PERSON, RED, TEMPLATES, known, laid_out, models
from valentina_pipeline.datasets.images import ImageFolder
from valentina_pipeline.datasets.json_file import JsonFile
from valentina_pipeline.datasets.tables import Csv
from valentina_pipeline.image.evaluate.evaluate import Evaluation, evaluate
from valentina_pipeline.image.evaluate.prompts import group_by_prompt, parse

DATASETS: dict[str, type[AbstractDataset[Any, Any]]] = {
    "evaluation_images": ImageFolder,
    "image_scores": Csv,
    "metrics": JsonFile,
    "evaluation_notes": JsonFile,
}
SEEN = known([RED, RED], [RED, GREEN])
NA = ["photo of {subject}, NA", "photo of {subject}"]
"""Scenes that a CSV file reads back as missing."""


@pytest.mark.parametrize("templates", [TEMPLATES, NA])
def test_grid_and_page_are_the_same_from_files(templates: list[str], tmp_path: Path) -> None:
    result = evaluate(templates, PERSON, SEEN, models(lora=RED), CONFIG, 7, {"z": "1", "a": "<2>"})
    stored = {}
    for name, kind in DATASETS.items():
        dataset = kind(filepath=str(tmp_path / name))
        dataset.save(getattr(result, name))
        stored[name] = dataset.load()
    read = Evaluation(**stored, identity_plot=result.identity_plot, step_scores=result.step_scores)
    grid, page = laid_out(result, SEEN, templates, PERSON)
    read_grid, read_page = laid_out(read, SEEN, templates, PERSON)
    assert read_grid.tobytes() == grid.tobytes()
    assert read_page == page
    assert page.index("<code>1</code>") < page.index("<code>&lt;2&gt;</code>")  # in the order of the settings


def test_scores_are_grouped_by_the_prompts_of_their_images() -> None:
    result = evaluate(TEMPLATES, PERSON, SEEN, models(lora=RED, floor=GREEN), CONFIG, 7, {})
    groups = group_by_prompt(result.image_scores, parse(TEMPLATES), CONFIG.num_images_per_prompt)
    assert [prompt.number for prompt, _ in groups] == [1, 2, 3]
    assert all(row["prompt"] == prompt.scene for prompt, rows in groups for row in rows)
    assert [len(rows) for _, rows in groups] == [2 + 2 + 1 + 1] * 3
