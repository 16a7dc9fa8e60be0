"""Paired comparison of runs: scores of images that were generated from the same prompts and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from valentina_pipeline.common.confidence_intervals import Interval, paired_difference
from valentina_pipeline.image.evaluate import html_page
from valentina_pipeline.image.faces.similarity import FACE_PROBABILITY
from valentina_pipeline.image.io.contact_sheet import PAPER, contact_sheet

if TYPE_CHECKING:
    import pandas as pd

KEY = ["variant", "prompt", "seed"]
"""Columns that identify an image in every run."""

NOT_COMPARED = {*KEY, "name", "nearest_name", "nearest_training", "nearest_layout", "identity_training"}
"""Columns that are not scores, or are no better when higher or lower."""

CELL_PIXELS, LABEL_CHARS = 192, 30

MARK_MEANING = "* the 95% interval of the difference excludes 0"

EMPTY = Image.new("RGB", (8, 8), PAPER)


class NothingSharedError(ValueError):
    """Two runs have no image of the same variant, prompt and seed."""


@dataclass(frozen=True)
class MetricComparison:
    """One score of the images that two runs share.

    Attributes:
        metric: name of the score.
        first: mean of the first run.
        other: mean of the other run.
        difference: other minus first, paired by prompt and seed.
        num_images: number of pairs.
    """

    metric: str
    first: float
    other: float
    difference: Interval
    num_images: int

    @property
    def differs(self) -> bool:
        """True if the interval of the difference excludes 0."""
        return self.difference.ci_low > 0 or self.difference.ci_high < 0

    def words(self) -> str:
        """Return the other run's mean and the difference, such as "0.700  +0.100 (+0.050 to +0.150) *"."""
        mean, low, high = self.difference.mean, self.difference.ci_low, self.difference.ci_high
        return f"{self.other:.3f}  {mean:+.3f} ({low:+.3f} to {high:+.3f}){' *' if self.differs else ''}"


def compare_runs(
    first: "pd.DataFrame", other: "pd.DataFrame", variant: str, resamples: int, seed: int
) -> list[MetricComparison]:
    """Compare the scores that two runs have in common, image by image.

    The intervals resample prompts, then the seeds of each prompt. An image whose score is missing in one of
    the runs, such as the identity of an image without a face, counts in neither.

    Args:
        first: image scores of the first run.
        other: image scores of the other run.
        variant: a key of prompts.VARIANTS.
        resamples: number of resamples behind each interval.
        seed: seed of the resampling.

    Raises:
        NothingSharedError: the runs share no image of this variant.
    """
    tables = [_scores(table[table["variant"] == variant]) for table in (first, other)]
    shared = tables[0].index.intersection(tables[1].index)
    if shared.empty:
        raise NothingSharedError(f"no image of the variant {variant} has the same prompt and seed in both")
    left, right = (table.loc[shared].sort_index() for table in tables)
    rows = []
    for metric in [column for column in left if column in right]:
        a, b = (table[metric].to_numpy(np.float64) for table in (left, right))
        paired = ~np.isnan(a) & ~np.isnan(b)
        if not paired.any():
            continue
        prompts = left.index[paired].get_level_values("prompt")
        difference = paired_difference((b - a)[paired], list(prompts), resamples, seed)
        means = float(a[paired].mean()), float(b[paired].mean())
        rows.append(MetricComparison(str(metric), *means, difference, int(paired.sum())))
    return rows


def _scores(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the compared columns by KEY, with `face_found` in place of the detector's probability."""
    table = table.set_index(KEY, drop=False)
    found = (table["face_probability"] >= FACE_PROBABILITY).astype(float)
    compared = table.select_dtypes(["number", "bool"]).drop(columns=["face_probability"])
    return compared.drop(columns=NOT_COMPARED & set(compared)).assign(face_found=found)


def run_grid(images: Mapping[str, Mapping[str, Image.Image]]) -> Image.Image:
    """Lay out the runs' images of the same prompts below each other, a column for each prompt.

    Args:
        images: run -> prompt -> image.
    """
    prompts = list(dict.fromkeys(prompt for run in images.values() for prompt in run))
    cells = [(run, prompt, images[run].get(prompt)) for run in images for prompt in prompts]
    labels = [f"{run}\n{fill(prompt, LABEL_CHARS) if image else 'no image'}" for run, prompt, image in cells]
    return contact_sheet((image or EMPTY for *_, image in cells), labels, len(prompts), CELL_PIXELS)


def comparison_page(
    title: str,
    compared: Mapping[str, Sequence[MetricComparison]],
    first: str,
    images: Mapping[str, Mapping[str, Image.Image]],
    scores: Mapping[str, "pd.DataFrame"],
) -> str:
    """Return an HTML page: the scores with their differences, and the runs' images of each prompt.

    Args:
        title: heading.
        compared: comparison of each other run with the first one.
        first: name of the first run.
        images: run -> prompt -> image.
        scores: image scores of each run.
    """
    pairs = count_pairs(list(compared.values()))
    summary = f"Each run beside {first}, over {pairs} images with the same prompt and seed. {MARK_MEANING}."
    sections = {
        "Scores": html_page.table(["", first, *compared], score_lines(list(compared.values()))),
        "Images by prompt": _images_by_prompt(images, scores),
    }
    return html_page.page(title, "comparison of runs", summary, sections)


def count_pairs(compared: Sequence[Sequence[MetricComparison]]) -> str:
    """Return the number of images that each other run shares with the first one, such as "24 and 20"."""
    return " and ".join(str(max(row.num_images for row in rows)) for rows in compared)


def score_lines(compared: Sequence[Sequence[MetricComparison]]) -> list[list[str]]:
    """Return a row for each score: its name, its mean in the first run, and each other run's words."""
    by_metric = [{row.metric: row for row in rows} for rows in compared]
    metrics = dict.fromkeys(metric for rows in by_metric for metric in rows)
    lines = []
    for metric in metrics:
        rows = [shared.get(metric) for shared in by_metric]
        first = next(row.first for row in rows if row)
        lines.append([metric, f"{first:.3f}", *(row.words() if row else "" for row in rows)])
    return lines


def _images_by_prompt(
    images: Mapping[str, Mapping[str, Image.Image]], scores: Mapping[str, "pd.DataFrame"]
) -> str:
    rows = {run: {row["name"]: row for row in table.to_dict("records")} for run, table in scores.items()}
    names = {run: {row["prompt"]: name for name, row in reversed(rows[run].items())} for run in rows}
    strips = []
    for prompt in dict.fromkeys(prompt for shown in images.values() for prompt in shown):
        cells = [
            html_page.picture(
                shown[prompt], run, html_page.image_score(rows[run][names[run][prompt]]), "lora"
            )
            for run, shown in images.items()
            if prompt in shown
        ]
        strips.append(f'<h3>{escape(prompt)}</h3><div class="strip">{"".join(cells)}</div>')
    return "".join(strips)


def first_images(table: "pd.DataFrame", variant: str) -> dict[str, str]:
    """Return prompt -> name of its first image of a variant."""
    rows = table[table["variant"] == variant].drop_duplicates("prompt")
    return dict(zip(rows["prompt"], rows["name"], strict=True))
