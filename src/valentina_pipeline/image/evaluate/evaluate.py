"""Evaluation: generate scenes outside the training set with and without the LoRA, and score them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from valentina_pipeline.common.progress import track_progress
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.image.evaluate.metrics import COMPARED, VariantScores, compute_metrics
from valentina_pipeline.image.evaluate.panel import (
    Panel,
    generated_readings,
    panel_metrics,
    read_portraits,
)
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
    Portraits,
    ScoredImages,
    portraits,
    score_images,
)
from valentina_pipeline.image.evaluate.step_comparison import compare_steps, plan_step_images
from valentina_pipeline.image.models.scorers import Scorers
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.image.safety.prompt_filter import refuse_concept, refuse_words

if TYPE_CHECKING:
    import pandas as pd


WITHOUT_PANEL = (
    "Attributes and identification were not measured: their judges know only the rendered world of the "
    "embedded tiny base and its face embedder. evaluate.attribute_model names a vision-language model that "
    "reads attributes from any image."
)

WITHOUT_STRANGERS = (
    "Identification and the identity scale were not measured: they need portraits of other people from the "
    "base model's world, which only the embedded tiny base has."
)

WITHOUT_INDEPENDENT_JUDGE = (
    "Identity was not measured by an independent judge, for dlib is not installed: uv sync --extra judges"
)


@dataclass(frozen=True)
class CharacterData:
    """Reference data of the character.

    Attributes:
        aligned: portraits by sha256.
        faces: the table of faces from align.
        captions: sha256 -> caption.
    """

    aligned: Mapping[str, Image.Image]
    faces: "pd.DataFrame"
    captions: Mapping[str, str]


@dataclass(frozen=True)
class EvaluationModels:
    """Image generator, content filter and scoring models.

    Attributes:
        draw: planned images -> generated images, in order, as they become ready.
        unsafe: image -> reason why it is unsafe, or None.
        judges: scoring models.
        panel: judges of attributes, and strangers; None on a base model that they do not know.
        reconstruct: images -> the same images through the VAE, for the panel.
        step_variants: training step -> variant of its images, see step_comparison.py; empty if none was kept.
    """

    draw: Callable[[Sequence[PlannedImage]], Iterable[Image.Image]]
    unsafe: Callable[[Image.Image], str | None]
    judges: Scorers
    panel: Panel | None = None
    reconstruct: Callable[[Sequence[Image.Image]], list[Image.Image]] = list
    step_variants: Mapping[int, str] = field(default_factory=dict)


class Evaluation(NamedTuple):
    """The stage's outputs, by their names in the catalog and in its order.

    `evaluation_notes` holds `settings`, pairs of name and value, and `notes`, what was left out and why.
    """

    evaluation_images: Mapping[str, Image.Image]
    image_scores: "pd.DataFrame"
    metrics: dict[str, Any]
    identity_plot: "pd.DataFrame"
    evaluation_notes: dict[str, Any]
    step_scores: "pd.DataFrame"


def evaluate(
    templates: object,
    person: Concept,
    known: CharacterData,
    models: EvaluationModels,
    cfg: EvaluateConfig,
    seed: int,
    settings: Mapping[str, str],
) -> Evaluation:
    """Measure a LoRA against its base model.

    Prompts that occur as training captions and images that the content filter rejects are excluded and
    reported; the metrics `num_images` and `num_filtered` count the images.

    Args:
        templates: the prompts, see prompts.parse.
        person: the trained concept.
        known: portraits and captions of the character.
        models: image generator, content filter and scoring models.
        cfg: number of images and of bootstrap resamples.
        seed: seed of images and resamples.
        settings: lines of the report, name -> value.

    Raises:
        InvalidPromptsError: a prompt is invalid, or none is left.
        NothingToMeasureError: there are no reference portraits, or no image is left.
    """
    fresh, seen = select_prompts(templates, person, known)
    judge = models.panel.independent if models.panel else None
    real = portraits(known.aligned, known.faces, models.judges.clip, judge)
    planned = plan_images(fresh, person, cfg.num_images_per_prompt, seed)
    images, refused, measured = _measure(planned, person, real, models)
    step_images, step_refused, step_scores = _measure_steps(
        planned, measured, person, real, models, cfg, seed
    )
    metrics = {**compute_metrics(measured, real, cfg.bootstrap_resamples, seed), "num_filtered": len(refused)}
    metrics |= _panel_metrics(measured, real, known, models, cfg.bootstrap_resamples, seed)
    notes = _missing_judges(models.panel)
    notes += [f"Excluded, it is a training caption: {prompt.template}" for prompt in seen]
    rejected = refused | step_refused
    notes += [f"Rejected by the content filter: {name}, {reason}" for name, reason in rejected.items()]
    return Evaluation(
        evaluation_images=images | step_images,
        image_scores=measured.scores,
        metrics=metrics,
        identity_plot=_plot(measured),
        evaluation_notes={"settings": [list(line) for line in settings.items()], "notes": notes},
        step_scores=step_scores,
    )


def select_prompts(
    templates: object, person: Concept, known: CharacterData
) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts to generate, and the excluded ones, which are training captions.

    Raises:
        InvalidPromptsError: a prompt is invalid (see `prompts.parse`) or unsafe, or none is left.
        UnsafePromptError: the concept's description is unsafe.
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
            "every prompt is a training caption: add other scenes in conf/base/prompts/"
        )
    return fresh, seen


def _missing_judges(panel: Panel | None) -> list[str]:
    if panel is None:
        return [WITHOUT_PANEL]
    if not len(panel.strangers):
        return [WITHOUT_STRANGERS]
    return [] if panel.independent else [WITHOUT_INDEPENDENT_JUDGE]


def _measure(
    planned: Sequence[PlannedImage], person: Concept, real: Portraits, models: EvaluationModels
) -> tuple[dict[str, Image.Image], dict[str, str], ScoredImages]:
    """Return the generated images by name, the reasons for rejected ones by name, and the scores.

    Raises:
        NothingToMeasureError: the content filter rejected every image.
    """
    images, refused = _generate(planned, models)
    if not images:
        reason = next(iter(refused.values()))
        raise NothingToMeasureError(f"the content filter rejected every image: {reason}")
    shown = [(plan, images[plan.name]) for plan in planned if plan.name in images]
    tracked = track_progress(shown, "measure", len(shown))
    return images, refused, score_images(tracked, person.class_word, real, models.judges, models.panel)


def _measure_steps(
    planned: Sequence[PlannedImage],
    measured: ScoredImages,
    person: Concept,
    real: Portraits,
    models: EvaluationModels,
    cfg: EvaluateConfig,
    seed: int,
) -> "tuple[dict[str, Image.Image], dict[str, str], pd.DataFrame]":
    """Return images and rejections of the LoRAs kept during training, and the scores of all steps."""
    variants = models.step_variants
    kept = plan_step_images(planned, [variant for variant in variants.values() if variant != "lora"])
    images, refused, further = _measure(kept, person, real, models) if kept else ({}, {}, measured)
    scores = {
        step: VariantScores.of(measured if variant == "lora" else further, variant)
        for step, variant in variants.items()
    }
    return images, refused, compare_steps(scores, cfg.bootstrap_resamples, seed)


def _generate(
    planned: Sequence[PlannedImage], models: EvaluationModels
) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """Return the images by name, and the reasons for rejected ones by name."""
    images: dict[str, Image.Image] = {}
    refused: dict[str, str] = {}
    pairs = zip(planned, models.draw(planned), strict=True)
    for plan, image in track_progress(pairs, "generate", len(planned)):
        reason = models.unsafe(image)
        if reason is None:
            images[plan.name] = image
        else:
            refused[plan.name] = reason
    return images, refused


def _panel_metrics(
    measured: ScoredImages,
    real: Portraits,
    known: CharacterData,
    models: EvaluationModels,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the panel's metrics for LoRA, base model and real portraits, also through the VAE."""
    if not models.panel:
        return {}
    readings = {name: generated_readings(measured, name) for name in COMPARED}
    images = [known.aligned[name] for name in real.names]
    captions = [known.captions.get(name, "") for name in real.names]
    for name, shown in (("real", images), ("real_vae", models.reconstruct(images))):
        readings[name] = read_portraits(shown, captions, real, models.judges, models.panel)
    return panel_metrics(readings, models.panel, models.panel.floors(real), resamples, seed)


def _plot(measured: ScoredImages) -> "pd.DataFrame":
    """Return one row per image with a face: prompt, variant, identity."""
    plot = measured.scores[["prompt", "variant", "identity"]].copy()
    plot["prompt"] = [plan.prompt.label for plan in measured.planned]
    return plot.dropna().reset_index(drop=True)
