"""Command `kedro compare`: scores of runs side by side, paired by prompt and seed."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.image.evaluate.prompts import MAIN_VARIANTS

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image
    from rich.table import Table

    from valentina_pipeline.image.evaluate.run_comparison import MetricComparison
    from valentina_pipeline.integrations.past_runs import PastRun

SCORES = "data/07_model_output/{concept}/image_scores.csv"
IMAGES = "data/07_model_output/{concept}/images"

PAGE = "comparison/{variant}.html"
"""Path of the page among the artifacts of MLflow's runs."""

RESAMPLES, SEED = 5000, 0


@click.command()
@click.argument("runs", metavar="RUN [RUN]...", nargs=-1, required=True)
@click.option("--concept", help="Concept of the runs. Default: the first of params.yaml.")
@click.option(
    "--variant",
    type=click.Choice(MAIN_VARIANTS),
    default="lora",
    show_default=True,
    help="Images to compare.",
)
@click.option(
    "--grid", type=click.Path(path_type=Path), help="Also write the images, cell by cell, as a PNG."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Also write scores and images as an HTML page, and log it to the runs that are MLflow's.",
)
@click.pass_obj
def compare(
    metadata: ProjectMetadata,
    runs: tuple[str, ...],
    concept: str | None,
    variant: str,
    grid: Path | None,
    report: Path | None,
) -> None:
    r"""Compare the image scores of two or more runs with the first one.

    \b
      kedro compare HEAD~3 .                     an earlier commit with the working tree
      kedro compare 1f2e3d4c 5a6b7c8d            two runs of MLflow, by the ends of their names
      kedro compare main . --grid grid.png       also the images of each prompt
      kedro compare main . --report page.html    all of it as a page, with the scores of each image

    \b
    RUN is `.` (the working tree), a git revision, or a run's name or id in MLflow; a single RUN is compared
    with the working tree. Only images with the same prompt and seed count. The differences have 95%
    intervals, which resample prompts and seeds; a difference whose interval excludes 0 is marked with *.
    """
    import pandas as pd
    from rich.console import Console

    from valentina_pipeline.common import atomic_files
    from valentina_pipeline.config_loader import read_concepts
    from valentina_pipeline.image.evaluate.run_comparison import (
        NothingSharedError,
        compare_runs,
        comparison_page,
        run_grid,
    )
    from valentina_pipeline.image.io import png
    from valentina_pipeline.integrations.past_runs import WORKING_TREE, PastRun, RunNotFoundError

    root = metadata.project_path
    concept = concept or read_concepts(root)[0]
    names = list(dict.fromkeys(runs if len(runs) > 1 else (*runs, WORKING_TREE)))
    if len(names) == 1:
        raise click.UsageError(f"{names[0]} is compared with itself: name another run")
    try:
        found = [PastRun(root, concept, name) for name in names]
        scores = SCORES.format(concept=concept)
        tables = {run.name: pd.read_csv(BytesIO(run.read(scores))) for run in found}
        first, *others = tables.values()
        compared = [compare_runs(first, other, variant, RESAMPLES, SEED) for other in others]
        images = _read_images(found, tables, concept, variant) if grid or report else {}
    except (RunNotFoundError, NothingSharedError) as err:
        raise click.ClickException(str(err)) from err
    title = f"{concept}, {variant}"
    if grid is not None:
        atomic_files.replace(grid, png.encode(run_grid(images)))
    if report is not None:
        by_run = dict(zip(names[1:], compared, strict=True))
        text = comparison_page(title, by_run, names[0], images, tables)
        atomic_files.replace(report, text.encode())
        for run in found:
            run.log_page(PAGE.format(variant=variant), text)
    Console(soft_wrap=True).print(_table(names, compared, title))


def _read_images(
    runs: "list[PastRun]", tables: "dict[str, pd.DataFrame]", concept: str, variant: str
) -> "dict[str, dict[str, Image.Image]]":
    """Return each run's first image of each prompt: run -> prompt -> image."""
    from valentina_pipeline.image.evaluate.run_comparison import first_images
    from valentina_pipeline.image.io import png

    shown = {run: first_images(table, variant) for run, table in tables.items()}
    images = {}
    for run in runs:
        names = {f"{name}.png": prompt for prompt, name in shown[run.name].items()}
        files = run.read_folder(IMAGES.format(concept=concept), names.__contains__)
        images[run.name] = {names[name]: png.decode(content) for name, content in files.items()}
    return images


def _table(runs: list[str], compared: "list[list[MetricComparison]]", title: str) -> "Table":
    """Return a row for each score: its mean in the first run, then in each other run with the difference."""
    from rich.table import Table

    from valentina_pipeline.image.evaluate.run_comparison import MARK_MEANING, count_pairs, score_lines

    heading = f"{title}: {count_pairs(compared)} shared images"
    table = Table("score", *runs, title=heading, title_justify="left")
    table.caption = MARK_MEANING
    table.caption_justify = "left"
    for line in score_lines(compared):
        table.add_row(*line)
    return table
