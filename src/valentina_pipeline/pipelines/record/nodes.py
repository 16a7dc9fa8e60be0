"""Nodes of the stage `record`."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common.confidence_intervals import format_interval
from valentina_pipeline.domain.concept import STAGE_NAMES

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

logger = logging.getLogger(__name__)

SHEETS = ("alignment_overview.png", "comparison_grid.png")


def record_run(
    metrics: dict[str, Any],
    train_metrics: dict[str, Any],
    training_images: "pd.DataFrame",
    decision: dict[str, Any],
    package: Path,
    project_root: Path,
    concept: dict[str, Any],
    base: dict[str, Any],
) -> None:
    """Complete the tracked run, including stages restored from DVC's cache, and print the metrics.

    Repeating it changes nothing. Without a tracking store it only prints.

    Args:
        metrics: evaluate's metrics.
        train_metrics: train_lora's metrics.
        training_images: train_lora's table of images.
        decision: register's decision.
        package: publish's folder.
        project_root: the project's folder.
        concept: see Concept.
        base: see BaseConfig.
    """
    from rich.console import Console

    trigger = concept["trigger"]
    figures = {"train_lora": train_metrics, "evaluate": metrics}
    try:
        complete(project_root, trigger, figures, training_images, decision)
    except (
        Exception
    ) as err:  # the outputs are on disk already: a store that is unreachable must not fail the run
        logger.warning("MLflow does not answer; the tracked run stays incomplete: %s", err)
    console = Console(soft_wrap=True)
    console.print(table(concept["name"], base["path"], metrics, decision))
    console.print(where_next(project_root, trigger, package))


def complete(
    root: Path,
    trigger: str,
    figures: Mapping[str, Mapping[str, Any]],
    training_images: "pd.DataFrame",
    decision: Mapping[str, Any],
) -> None:
    """Give each stage a child run with its outputs, and the parent run all that runs are compared by."""
    from valentina_pipeline.integrations.mlflow import FINISHED, close_parent, flatten_metrics, parent
    from valentina_pipeline.integrations.run_inputs import locked_outputs

    run = parent()
    if run is None:
        return
    outputs, present = locked_outputs(root, trigger), run.children()
    for stage in STAGE_NAMES:
        if stage not in present:
            run.add_cached(stage)
        outs = {"outs": json.dumps(outputs[stage])} if stage in outputs else {}
        run.log(stage, flatten_metrics(figures.get(stage, {})), outs)
    run.log_training_images(training_images)
    together = {**flatten_metrics(figures["evaluate"]), **flatten_metrics({"train": figures["train_lora"]})}
    tags = {
        "decision": decision["status"],
        "reasons": "\n".join(decision["reasons"]),
        "content_hash": decision["content_hash"],
    }
    run.log(None, together, tags)
    reporting = root / "data/08_reporting" / trigger
    run.files([file for file in sorted(reporting.glob("[!.]*")) if file.is_file()])
    close_parent(FINISHED)


def table(name: str, base: str, metrics: Mapping[str, Any], decision: Mapping[str, Any]) -> "Table":
    """Return the main metrics as a table, each with its 95% interval."""
    from rich.table import Table

    identity, found, clip = metrics["identity"], metrics["face_detection_rate"], metrics["clip_t"]
    copied = metrics["memorization"]["rate"]
    shown = Table("metric", "LoRA", "base model", title=f"{name} on {base}", title_justify="left")
    shown.add_row("identity", format_interval(identity["lora"]), format_interval(identity["base"]))
    shown.add_row(
        "  ceiling (real portraits), floor (other people)",
        format_interval(identity["ceiling"]),
        format_interval(identity["floor"]),
    )
    shown.add_row(
        "  gain, and share of the ceiling",
        f"{identity['gain_over_base']:+.3f}",
        f"{identity['ratio_to_ceiling']:.1%}",
    )
    for judge in ("embedder", "dlib"):
        if places := metrics.get("identity_scale", {}).get(judge):
            words = f"  between strangers and real portraits, by {judge}"
            shown.add_row(words, format_interval(places["lora"]), format_interval(places["base"]))
    shown.add_row("face found", format_interval(found["lora"]), format_interval(found["base"]))
    shown.add_row("prompt followed (CLIP-T)", format_interval(clip["lora"]), format_interval(clip["base"]))
    for field, shares in metrics.get("attributes", {}).items():
        words = f"  shown: {field.replace('_', ' ')}"
        shown.add_row(words, format_interval(shares["lora"]), format_interval(shares["base"]))
    shown.add_row(
        "similarity to portraits (CLIP-I)",
        format_interval(metrics["clip_i"]["lora"]),
        _of(metrics["clip_i"], "base"),
    )
    shown.add_row(
        "diversity", format_interval(metrics["diversity"]["lora"]), _of(metrics["diversity"], "base")
    )
    shown.add_row("memorized", f"{copied:.1%}", "")
    good = decision["status"] == "champion"
    shown.add_section()
    shown.add_row("decision", f"[{'green' if good else 'yellow'}]{decision['status']}", "")
    shown.caption = "\n".join(decision["reasons"])
    shown.caption_justify = "left"
    return shown


def where_next(root: Path, trigger: str, package: Path) -> str:
    """Return the paths of the results and the next commands."""
    reporting = (root / "data/08_reporting" / trigger).relative_to(root)
    sheets = ", ".join(str(reporting / name) for name in SHEETS)
    command = f'uv run kedro generate "smiling, wearing a red dress" --concept {trigger}'
    return "\n".join(
        [
            f"contact sheets   {sheets}",
            f"report           {reporting / 'report.html'}",
            f"package          {package.relative_to(root)}",
            "experiments      uv run mlflow ui",
            f"generate         {command}",
        ]
    )


def _of(figures: Mapping[str, Any], variant: str) -> str:
    return format_interval(figures[variant]) if variant in figures else ""
