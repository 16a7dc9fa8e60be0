"""Description of a run for the columns of MLflow's pages: name, source, version and dataset."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.integrations.run_inputs import Commit

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import DatasetInput

TRAINING_IMAGES = "data/06_models/{concept}/training_images.parquet"
"""Table of a LoRA's training and held-out images."""

SOURCE_NAME, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
GIT_COMMIT, GIT_DIRTY = "mlflow.source.git.commit", "mlflow.source.git.dirty"
DATASET_CONTEXT = "mlflow.data.context"
"""MLflow's tags; its own constants would import MLflow, which takes two seconds."""

PARENT_SOURCE, CACHE_SOURCE = "dvc.yaml", "DVC cache"
"""Sources of a parent run, and of a stage that did not run because DVC's cache had its outputs."""

METHODS_WITHOUT_RANK = ("textual_inversion", "full")

HASH_CHARS = 8


def name_run(params: Mapping[str, Any], inputs: str) -> str:
    """Return the name of a parent run, such as `lora r16 500 steps tiny · 1f2e3d4c`.

    The name of a DVC experiment follows.

    Args:
        params: the effective parameters.
        inputs: hash of everything that the result depends on.
    """
    train = params["train_lora"]
    rank = [] if train["method"] in METHODS_WITHOUT_RANK else [f"r{train['rank']}"]
    settings = [train["method"], *rank, f"{train['max_steps']} steps", params["base_name"]]
    experiment = os.environ.get("DVC_EXP_NAME")
    return " · ".join([" ".join(settings), inputs[:HASH_CHARS], *([experiment] if experiment else [])])


def name_stage(stage: str, inputs: str) -> str:
    """Return the name of a stage's child run, such as `train_lora · 1f2e3d4c`."""
    return f"{stage} · {inputs[:HASH_CHARS]}"


def stage_source(stage: str) -> str:
    """Return the command that runs a stage: the source of its child run."""
    return f"kedro run --pipelines {stage}"


def source_tags(source: str, commit: Commit | None) -> dict[str, str]:
    """Return the tags of a run's source and version."""
    tags = {SOURCE_NAME: source, SOURCE_TYPE: "LOCAL"}
    if commit is None:
        return tags
    return tags | {GIT_COMMIT: commit.sha, GIT_DIRTY: str(commit.dirty).lower()}


def read_commit(tags: Mapping[str, str]) -> Commit | None:
    """Return the commit in a run's tags, or None."""
    sha = tags.get(GIT_COMMIT)
    return Commit(sha, tags.get(GIT_DIRTY) == "true") if sha else None


def training_dataset(concept: str, table: "pd.DataFrame") -> "DatasetInput":
    """Return the training images as MLflow's dataset: name, digest, columns and number of images by split.

    The same images in the same splits have the same digest, so that MLflow groups their runs. Image names and
    folders outside the project are not included.

    Args:
        concept: its trigger.
        table: content of `TRAINING_IMAGES`, with the columns `sha256` and `split`.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    images = sorted(f"{sha} {split}" for sha, split in zip(table["sha256"], table["split"], strict=True))
    counts = {str(split): int(count) for split, count in table["split"].value_counts().sort_index().items()}
    columns = [{"name": name, "type": "string", "required": True} for name in table.columns]
    dataset = Dataset(
        name=f"{concept} training images",
        digest=hashlib.sha256("\n".join(images).encode()).hexdigest()[:HASH_CHARS],
        source_type="local",
        source=json.dumps({"uri": TRAINING_IMAGES.format(concept=concept)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": len(table), **counts}),
    )
    return DatasetInput(dataset, [InputTag(DATASET_CONTEXT, "training")])
