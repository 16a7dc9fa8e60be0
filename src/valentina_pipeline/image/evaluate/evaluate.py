"""The evaluation: draw scenes never trained on, with and without the LoRA, measure them, and show them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from valentina_pipeline.common.progress import counted
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.image.evaluate.comparison_grid import grid
from valentina_pipeline.image.evaluate.html_report import Content, report
from valentina_pipeline.image.evaluate.metrics import figures
from valentina_pipeline.image.evaluate.prompts import BadPrompts, Prompt, Take, parse, subjects, takes, unseen
from valentina_pipeline.image.evaluate.scoring import Measured, NothingToMeasure, measure, portraits
from valentina_pipeline.image.models.scorers import Judges
from valentina_pipeline.image.safety.policy.judge import UnsafePrompt
from valentina_pipeline.image.safety.prompt_filter import refuse_concept, refuse_words

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Known:
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
class Models:
    """What draws and what looks.

    Attributes:
        draw: takes -> their images, in order, as they get ready.
        unsafe: image -> why it is not shown, or None.
        judges: the networks behind the scores.
    """

    draw: Callable[[Sequence[Take]], Iterable[Image.Image]]
    unsafe: Callable[[Image.Image], str | None]
    judges: Judges


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
    known: Known,
    models: Models,
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
        BadPrompts: a prompt cannot be used, or none is left.
        NothingToMeasure: no portraits to compare with, or no image left.
    """
    fresh, seen = chosen(templates, person, known)
    real = portraits(known.aligned, known.faces, models.judges.clip)
    planned = takes(fresh, person, cfg.images_per_prompt, seed)
    images, refused = _drawn(planned, models)
    if not images:
        raise NothingToMeasure(f"the content filter refused every image: {next(iter(refused.values()))}")
    shown = [(take, images[take.name]) for take in planned if take.name in images]
    looked_at = counted(shown, "measure", len(shown))
    measured = measure(looked_at, person.class_word, real, models.judges)
    metrics = {**figures(measured, real, cfg.bootstrap, seed), "rejected": len(refused)}
    notes = [f"Left out, a training caption says it: {prompt.template}" for prompt in seen]
    notes += [f"Left out by the content filter: {name}, {reason}" for name, reason in refused.items()]
    page = Content(
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


def chosen(templates: object, person: Concept, known: Known) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts to draw, and those left out because the LoRA was trained on what they say.

    Raises:
        BadPrompts: see `prompts.parse`; or a prompt is refused, or none is left.
        UnsafePrompt: the concept's description is refused.
    """
    prompts = parse(templates)
    refuse_concept(person)
    for prompt in prompts:
        try:
            refuse_words(prompt.template, person.name)
        except UnsafePrompt as err:
            raise BadPrompts(f"prompt {prompt.number}: {err}") from err
    trained = known.faces.loc[known.faces["split"] == TRAIN, "sha256"]
    captions = [known.captions[name] for name in trained if name in known.captions]
    fresh, seen = unseen(prompts, captions, subjects(person)["lora"])
    if not fresh:
        raise BadPrompts("every prompt is a training caption: write other scenes in conf/base/prompts/")
    return fresh, seen


def _drawn(planned: Sequence[Take], models: Models) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """Return the images by name, and the names of those refused with the reasons."""
    images: dict[str, Image.Image] = {}
    refused: dict[str, str] = {}
    pairs = zip(planned, models.draw(planned), strict=True)
    for take, image in counted(pairs, "draw", len(planned)):
        reason = models.unsafe(image)
        if reason is None:
            images[take.name] = image
        else:
            refused[take.name] = reason
    return images, refused


def _plot(measured: Measured) -> "pd.DataFrame":
    """Return one row an image with a face: prompt, variant, identity."""
    plot = measured.scores[["prompt", "variant", "identity"]].copy()
    plot["prompt"] = [take.prompt.label for take in measured.takes]
    return plot.dropna().reset_index(drop=True)
