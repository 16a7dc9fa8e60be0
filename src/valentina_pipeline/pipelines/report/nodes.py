"""Nodes of the stage `report`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain.manifest import TRAIN, apply_review

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


def report_evaluation(
    evaluation_images: "Mapping[str, Image.Image]",
    image_scores: "pd.DataFrame",
    metrics: dict[str, Any],
    evaluation_notes: dict[str, Any],
    step_scores: "pd.DataFrame",
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    prompts: list[str],
    name: str,
    evaluate: dict[str, Any],
) -> "tuple[Image.Image, str]":
    """Lay out evaluate's results, so that a change of their layout generates no image again.

    Args:
        evaluation_images: generated images by name.
        image_scores: a row of scores for each image.
        metrics: evaluate's metrics.
        evaluation_notes: evaluate's settings, and what it left out.
        step_scores: scores of the LoRAs kept during training, see step_comparison.STEP_COLUMNS.
        aligned: portraits by sha256.
        faces: align's rows.
        captions: sha256, caption, rejected.
        prompts: templates with {subject}.
        name: the concept's name.
        evaluate: see EvaluateConfig.

    Returns:
        comparison_grid, report.
    """
    from valentina_pipeline.image.evaluate.comparison_grid import comparison_grid
    from valentina_pipeline.image.evaluate.html_report import ReportData, report
    from valentina_pipeline.image.evaluate.prompts import group_by_prompt, parse

    cfg = parse_config(EvaluateConfig, evaluate, "evaluate")
    portraits = apply_review(faces, captions)
    portraits = portraits[portraits["accepted"].astype(bool)].sort_values("sha256")
    content = ReportData(
        title=name,
        metrics=metrics,
        prompts=group_by_prompt(image_scores, parse(prompts), cfg.num_images_per_prompt),
        images=evaluation_images,
        aligned=aligned,
        trained=dict(zip(portraits["sha256"], portraits["split"] == TRAIN, strict=True)),
        captions=dict(zip(captions["sha256"], captions["caption"], strict=True)),
        settings=dict(evaluation_notes["settings"]),
        notes=evaluation_notes["notes"],
        step_scores=step_scores.to_dict("records"),
    )
    references = [aligned[sha256] for sha256 in content.references]
    return comparison_grid(content.prompts, evaluation_images, references), report(content)
