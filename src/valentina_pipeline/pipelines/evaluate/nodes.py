"""Nodes of the stage `evaluate`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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

    from valentina_pipeline.image.evaluate.prompts import PlannedImage
    from valentina_pipeline.image.models.base_model import BaseModel

PIXELS_AT_ONCE = 2**21
"""Drawn in one batch: 8 images of 128 or 512 px, 2 of 1024 px."""

Outputs = tuple[
    "Mapping[str, Image.Image]", "pd.DataFrame", dict[str, Any], "pd.DataFrame", "Image.Image", str
]


def evaluate_adapter(
    lora: Path,
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    weights: Path,
    prompts: list[str],
    used_pictures: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    concept: dict[str, Any],
    base: dict[str, Any],
    evaluate: dict[str, Any],
    seed: int,
    threads: int,
) -> Outputs:
    """Measure a LoRA against its bare base, on scenes that it was never trained on.

    Args:
        lora: train_lora's folder.
        aligned: portraits by sha256.
        faces: align's rows.
        captions: sha256, caption, rejected.
        weights: tiny/weights; a relative path of the base counts from the project's folder, two above.
        prompts: templates with {subject}.
        used_pictures: train_lora's rows; their records must allow generation today.
        rights: the concept's records.
        concept: see Concept.
        base: see BaseConfig.
        evaluate: see EvaluateConfig.
        seed: of images and resamples.
        threads: torch's; another number rounds differently.

    Returns:
        evaluation_images, scores, metrics, identity_plot, grid, report.

    Raises:
        NotAllowed: a record that the LoRA was trained under does not allow generation.
    """
    from valentina_pipeline.common.threads import use_threads
    from valentina_pipeline.image.evaluate.evaluate import CharacterData, EvaluationModels
    from valentina_pipeline.image.evaluate.evaluate import evaluate as measured
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.image.models.scorers import load_scorers
    from valentina_pipeline.image.models.weights import base_hash
    from valentina_pipeline.image.safety.content_filter import ContentFilter

    require_use(rights, set(used_pictures["rights_id"]), "generation", clock.today())
    person = parse_config(Concept, concept, "concept")
    where = parse_config(BaseConfig, base, "base")
    cfg = parse_config(EvaluateConfig, evaluate, "evaluate")
    use_threads(threads)
    root = weights.parent.parent
    model = load_base(where, root)
    hashes = {
        "base": where.path,
        "base_hash": base_hash(model.folder),
        "lora": sha256(primary_weights(lora.iterdir())),
    }
    draw = image_generator(model, lora, cfg, where.resolution, hashes)
    known = CharacterData(
        aligned,
        apply_review(faces, captions),
        dict(zip(captions["sha256"], captions["caption"], strict=True)),
    )
    settings = {**_settings(person, where, cfg), **hashes, "seed": str(seed), "torch threads": str(threads)}
    models = EvaluationModels(draw, ContentFilter().unsafe, load_scorers(where, root))
    result = measured(prompts, person, known, models, cfg, seed, settings)
    return (
        result.evaluation_images,
        result.scores,
        result.metrics,
        result.identity_plot,
        result.grid,
        result.report,
    )


def image_generator(
    model: "BaseModel", lora: Path, cfg: EvaluateConfig, size: int, hashes: Mapping[str, str]
) -> "Callable[[Sequence[PlannedImage]], Iterator[Image.Image]]":
    """Return what draws takes: the variant `lora` with the LoRA, the others with the bare base.

    Args:
        model: the base.
        lora: the folder of the LoRA.
        cfg: steps and guidance.
        size: width and height in pixels.
        hashes: base, base_hash and lora: the marks of each image.
    """
    from itertools import groupby

    from valentina_pipeline.image.generate.sampling import ImageSpec, generate_images
    from valentina_pipeline.image.lora.loading import load_pipeline

    batch = max(1, min(8, PIXELS_AT_ONCE // size**2))
    bare = {name: value for name, value in hashes.items() if name != "lora"}

    def paint(takes: "Sequence[PlannedImage]") -> "Iterator[Image.Image]":
        for adapted, group in groupby(takes, key=lambda take: take.variant == "lora"):
            pipe = load_pipeline(model, lora if adapted else None)
            requests = [ImageSpec(take.text, take.seed) for take in group]
            for start in range(0, len(requests), batch):
                part = requests[start : start + batch]
                marks = hashes if adapted else bare
                yield from generate_images(pipe, part, cfg.steps, cfg.guidance, size, batch, marks)

    return paint


def _settings(person: Concept, base: BaseConfig, cfg: EvaluateConfig) -> dict[str, str]:
    return {
        "trigger": person.trigger,
        "class word": person.class_word,
        "description for the bare base": person.description,
        "steps": str(cfg.steps),
        "guidance": str(cfg.guidance),
        "resolution": str(base.resolution),
        "images per prompt": f"{cfg.images_per_prompt}; 1 of the variants that only give the scale",
        "resamples": str(cfg.bootstrap),
        "face embedder": f"{base.face_embedder.kind}: {base.face_embedder.path}",
        "CLIP": f"{base.clip.kind}: {base.clip.path}",
    }
