"""Nodes of the stage `publish`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.pipelines.package_assembly import PackageInputs, assemble_package

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


def publish_package(
    decision: dict[str, Any],
    lora: Path,
    metrics: dict[str, Any],
    train_metrics: dict[str, Any],
    faces: "pd.DataFrame",
    training_images: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    tiny_weights: Path,
    comparison_grid: "Image.Image",
    scenes: dict[str, Any],
    concept: dict[str, Any],
    base: dict[str, Any],
    train_lora: dict[str, Any],
    evaluate: dict[str, Any],
    publish: dict[str, Any],
) -> dict[str, bytes | Path]:
    """Assemble the package that serves the character; pipelines/package_assembly.py describes the inputs.

    Returns:
        package: relative path -> content, or the path of a file to copy.

    Raises:
        MissingModelError: the base model is not on this machine.
    """
    inputs = PackageInputs(
        lora, metrics, train_metrics, faces, training_images, rights, tiny_weights, comparison_grid, scenes,
        concept, base, train_lora, evaluate, publish,
    )  # fmt: skip
    return assemble_package(inputs, decision)
