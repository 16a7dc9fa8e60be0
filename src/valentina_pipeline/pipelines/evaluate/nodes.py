"""Nodes of the stage `evaluate`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain import clock
from valentina_pipeline.domain.artifacts import primary_weights, sha256
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import apply_review
from valentina_pipeline.domain.rights import RightsRecord, require_use

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.evaluate.evaluate import Evaluation, EvaluationModels
    from valentina_pipeline.image.evaluate.panel import Panel
    from valentina_pipeline.image.evaluate.prompts import PlannedImage
    from valentina_pipeline.image.models.base_model import BaseModel

MAX_BATCH_PIXELS = 2**21
"""Pixels of one batch: 8 images of 128 or 512 px, 2 of 1024 px."""


def evaluate_adapter(
    lora: Path,
    lora_steps: Path,
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    project_root: Path,
    tiny_weights: Path,
    tiny_judges: dict[str, Any],
    prompts: list[str],
    training_images: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    concept: dict[str, Any],
    base: dict[str, Any],
    evaluate: dict[str, Any],
    seed: int,
    num_threads: int,
) -> "Evaluation":
    """Compare a LoRA with its base model, on scenes that it was never trained on.

    Args:
        lora: train_lora's output folder.
        lora_steps: LoRAs that train_lora kept, a folder for each step; the last is the finished one.
        aligned: portraits by sha256.
        faces: align's rows.
        captions: sha256, caption, rejected.
        project_root: the project's folder, where relative paths of a base start.
        tiny_weights: an input so that DVC follows the models that those paths name.
        tiny_judges: judges of attributes and templates of strangers, for the embedded tiny base.
        prompts: templates with {subject}.
        training_images: train_lora's rows; their rights records must allow generation today.
        rights: the concept's records.
        concept: see Concept.
        base: see BaseConfig.
        evaluate: see EvaluateConfig.
        seed: seed of images and bootstrap resamples.
        num_threads: threads of torch; another number rounds differently.

    Returns:
        evaluation_images, image_scores, metrics, identity_plot, evaluation_notes, step_scores.

    Raises:
        NotAllowedError: a rights record of the training images does not allow generation.
    """
    from valentina_pipeline.common.threads import use_threads
    from valentina_pipeline.image.evaluate.evaluate import CharacterData
    from valentina_pipeline.image.evaluate.evaluate import evaluate as compute_evaluation
    from valentina_pipeline.image.evaluate.step_comparison import step_variants
    from valentina_pipeline.image.models.base_model import load_base

    require_use(rights, set(training_images["rights_id"]), "generation", clock.today())
    character = parse_config(Concept, concept, "concept")
    base_config = parse_config(BaseConfig, base, "base")
    cfg = parse_config(EvaluateConfig, evaluate, "evaluate")
    use_threads(num_threads)
    model = load_base(base_config, project_root)
    hashes = _hashes(base_config, model, lora)
    words = dict(zip(captions["sha256"], captions["caption"], strict=True))
    data = CharacterData(aligned, apply_review(faces, captions), words)
    settings = _settings(character, base_config, cfg) | hashes
    settings |= {"seed": str(seed), "torch threads": str(num_threads)}
    variants = step_variants(lora_steps)
    loras = {variant: lora_steps / str(step) for step, variant in variants.items()} | {"lora": lora}
    generate = image_generator(model, loras, cfg, base_config.resolution, hashes)
    panel = _load_panel(tiny_judges, base_config, cfg, project_root)
    models = _evaluation_models(generate, model, base_config, project_root, panel, variants)
    result = compute_evaluation(prompts, character, data, models, cfg, seed, settings)
    _log_steps(result.step_scores)
    return result


def _log_steps(step_scores: "pd.DataFrame") -> None:
    """Log the mean scores of the training steps as series: step.identity and others."""
    from valentina_pipeline.integrations.tracking import current_tracker

    for row in step_scores.to_dict("records"):
        current_tracker().log({f"step.{row['score']}": row["mean"]}, int(row["step"]))


def _load_panel(
    tiny_judges: Mapping[str, Any], base: BaseConfig, cfg: EvaluateConfig, root: Path
) -> "Panel | None":
    """Return the panel of the tiny base, or of a vision-language model, or None."""
    from dataclasses import replace

    from valentina_pipeline.common.missing_model import resolve_path
    from valentina_pipeline.image.evaluate.attribute_questions import load_questions
    from valentina_pipeline.image.evaluate.panel import Panel, load_panel

    panel = load_panel(tiny_judges, Path(resolve_path(base.face_embedder.path, root)))
    if not cfg.attribute_model:
        return panel
    questions = load_questions(resolve_path(cfg.attribute_model, root))
    return replace(panel, attributes=questions) if panel else Panel(questions)


def _evaluation_models(
    generate: "Callable[[Sequence[PlannedImage]], Iterator[Image.Image]]",
    model: "BaseModel",
    base: BaseConfig,
    root: Path,
    panel: "Panel | None",
    variants: Mapping[int, str],
) -> "EvaluationModels":
    """Return the generator with the content filter, the scoring models and the panel."""
    from valentina_pipeline.image.evaluate.evaluate import EvaluationModels
    from valentina_pipeline.image.evaluate.panel import reconstruct
    from valentina_pipeline.image.models.scorers import load_scorers
    from valentina_pipeline.image.safety.content_filter import ContentFilter

    scorers = load_scorers(base, root)
    decode = partial(reconstruct, model.vae)
    return EvaluationModels(generate, ContentFilter().unsafe, scorers, panel, decode, variants)


def _hashes(base: BaseConfig, model: "BaseModel", lora: Path) -> dict[str, str]:
    """Return the base model's path and hash and the LoRA's sha256."""
    from valentina_pipeline.image.models.weights import base_hash

    return {
        "base": base.path,
        "base_hash": base_hash(model.path),
        "lora": sha256(primary_weights(lora.iterdir())),
    }


def image_generator(
    model: "BaseModel",
    loras: Mapping[str, Path],
    cfg: EvaluateConfig,
    size: int,
    hashes: Mapping[str, str],
) -> "Callable[[Sequence[PlannedImage]], Iterator[Image.Image]]":
    """Return a generator of planned images: variants of `loras` with their LoRA, others with the base alone.

    Args:
        model: the base model.
        loras: folder of the LoRA of each variant that has one.
        cfg: steps and guidance.
        size: width and height in pixels.
        hashes: base, base_hash and lora; the first two are written to each image's metadata, the hash of the
            finished LoRA to those of the variant `lora`.
    """
    from itertools import groupby

    from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
    from valentina_pipeline.image.lora.loading import load_pipeline

    batch = max(1, min(8, MAX_BATCH_PIXELS // size**2))
    base_hashes = {name: value for name, value in hashes.items() if name != "lora"}

    def generate(planned: "Sequence[PlannedImage]") -> "Iterator[Image.Image]":
        for lora, group in groupby(planned, key=lambda image: loras.get(image.variant)):
            pipe = load_pipeline(model, lora)
            requests = [ImageSpec(image.text, image.seed) for image in group]
            for start in range(0, len(requests), batch):
                part = requests[start : start + batch]
                metadata = hashes if lora == loras["lora"] else base_hashes
                yield from generate_images(
                    pipe, part, cfg.num_inference_steps, cfg.guidance_scale, size, batch, metadata
                )

    return generate


def _settings(character: Concept, base: BaseConfig, cfg: EvaluateConfig) -> dict[str, str]:
    return {
        "trigger": character.trigger,
        "class word": character.class_word,
        "description for the base model": character.description,
        "steps": str(cfg.num_inference_steps),
        "guidance": str(cfg.guidance_scale),
        "resolution": str(base.resolution),
        "images per prompt": f"{cfg.num_images_per_prompt}; 1 for the reference variants",
        "resamples": str(cfg.bootstrap_resamples),
        "face embedder": f"{base.face_embedder.kind}: {base.face_embedder.path}",
        "CLIP": f"{base.clip.kind}: {base.clip.path}",
        **({"attribute model": cfg.attribute_model} if cfg.attribute_model else {}),
    }
