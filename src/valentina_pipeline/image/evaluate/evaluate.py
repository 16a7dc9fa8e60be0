"""The evaluation: draw scenes never trained on, with and without the LoRA, measure them, and show them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from valentina_pipeline.common.progress import track_progress
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.image.evaluate.comparison_grid import grid
from valentina_pipeline.image.evaluate.html_report import ReportData, report
from valentina_pipeline.image.evaluate.metrics import compute_metrics
from valentina_pipeline.image.evaluate.prompts import (
    InvalidPromptsError,
    PlannedImage,
    Prompt,
    parse,
    plan_images,
    split_seen,
    subjects,
)
from valentina_pipeline.image.evaluate.scoring import (
    NothingToMeasureError,
    ScoredImages,
    portraits,
    score_images,
)
from valentina_pipeline.image.models.scorers import Scorers
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.image.safety.prompt_filter import refuse_concept, refuse_words

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CharacterData:
    """What is known of her before anything is drawn.

    Attributes:
        aligned: portraits by sha256.
        faces: align's rows.
        captions: sha256 -> caption.
    """

    aligned: Mapping[str, Image.Image]
    faces: "pd.DataFrame"
    captions: Mapping[str, str]


@dataclass(frozen=True)
class EvaluationModels:
    """What draws and what looks.

    Attributes:
        draw: takes -> their images, in order, as they get ready.
        unsafe: image -> why it is not shown, or None.
        judges: the networks behind the scores.
    """

    draw: Callable[[Sequence[PlannedImage]], Iterable[Image.Image]]
    unsafe: Callable[[Image.Image], str | None]
    judges: Scorers


@dataclass(frozen=True)
class Evaluation:
    """The stage's outputs, by their names in the catalog."""

    evaluation_images: Mapping[str, Image.Image]
    scores: "pd.DataFrame"
    metrics: dict[str, Any]
    identity_plot: "pd.DataFrame"
    grid: Image.Image
    report: str


def evaluate(
    templates: object,
    person: Concept,
    known: CharacterData,
    models: EvaluationModels,
    cfg: EvaluateConfig,
    seed: int,
    settings: Mapping[str, str],
) -> Evaluation:
    """Measure a LoRA against its bare base.

    A prompt that a training caption says, and an image that the content filter refuses, are left out and
    reported; metrics count the images in `images` and `rejected`.

    Args:
        templates: the prompts, as prompts.parse takes them.
        person: who was learnt.
        known: her portraits and captions.
        models: what draws and looks.
        cfg: how much is drawn, and how many resamples stand behind an interval.
        seed: of images and resamples.
        settings: what else the report shows, name -> value.

    Raises:
        InvalidPromptsError: a prompt cannot be used, or none is left.
        NothingToMeasureError: no portraits to compare with, or no image left.
    """
    fresh, seen = select_prompts(templates, person, known)
    real = portraits(known.aligned, known.faces, models.judges.clip)
    planned = plan_images(fresh, person, cfg.images_per_prompt, seed)
    images, refused = _drawn(planned, models)
    if not images:
        raise NothingToMeasureError(f"the content filter refused every image: {next(iter(refused.values()))}")
    shown = [(take, images[take.name]) for take in planned if take.name in images]
    looked_at = track_progress(shown, "measure", len(shown))
    measured = score_images(looked_at, person.class_word, real, models.judges)
    metrics = {**compute_metrics(measured, real, cfg.bootstrap, seed), "rejected": len(refused)}
    notes = [f"Left out, a training caption says it: {prompt.template}" for prompt in seen]
    notes += [f"Left out by the content filter: {name}, {reason}" for name, reason in refused.items()]
    page = ReportData(
        person.name, metrics, measured, images, known.aligned, real, known.captions, settings, notes
    )
    references = [known.aligned[real.names[row]] for row in real.references]
    return Evaluation(
        evaluation_images=images,
        scores=measured.scores,
        metrics=metrics,
        identity_plot=_plot(measured),
        grid=grid(measured, images, references),
        report=report(page),
    )


def select_prompts(
    templates: object, person: Concept, known: CharacterData
) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts to draw, and those left out because the LoRA was trained on what they say.

    Raises:
        InvalidPromptsError: see `prompts.parse`; or a prompt is refused, or none is left.
        UnsafePromptError: the concept's description is refused.
    """
    prompts = parse(templates)
    refuse_concept(person)
    for prompt in prompts:
        try:
            refuse_words(prompt.template, person.name)
        except UnsafePromptError as err:
            raise InvalidPromptsError(f"prompt {prompt.number}: {err}") from err
    trained = known.faces.loc[known.faces["split"] == TRAIN, "sha256"]
    captions = [known.captions[name] for name in trained if name in known.captions]
    fresh, seen = split_seen(prompts, captions, subjects(person)["lora"])
    if not fresh:
        raise InvalidPromptsError(
            "every prompt is a training caption: write other scenes in conf/base/prompts/"
        )
    return fresh, seen


def _drawn(
    planned: Sequence[PlannedImage], models: EvaluationModels
) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """Return the images by name, and the names of those refused with the reasons."""
    images: dict[str, Image.Image] = {}
    refused: dict[str, str] = {}
    pairs = zip(planned, models.draw(planned), strict=True)
    for take, image in track_progress(pairs, "draw", len(planned)):
        reason = models.unsafe(image)
        if reason is None:
            images[take.name] = image
        else:
            refused[take.name] = reason
    return images, refused


def _plot(measured: ScoredImages) -> "pd.DataFrame":
    """Return one row an image with a face: prompt, variant, identity."""
    plot = measured.scores[["prompt", "variant", "identity"]].copy()
    plot["prompt"] = [take.prompt.label for take in measured.takes]
    return plot.dropna().reset_index(drop=True)
