"""Images of a training run: the character's own, extra data, and class images for prior preservation."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from valentina_pipeline.config.train_lora import ExtraDatasetConfig, TrainConfig
from valentina_pipeline.domain import clock
from valentina_pipeline.domain.concept import photo_of
from valentina_pipeline.domain.extra_data import records_naming
from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.domain.rights import NotAllowedError, RightsRecord, require_permission

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.models.base_model import BaseModel
    from valentina_pipeline.image.train.samples import Sample
    from valentina_pipeline.training.encoding_cache import Cache

logger = logging.getLogger(__name__)

TRAINING_IMAGE_COLUMNS = ("sha256", "source_name", "rights_id", "split")
"""Columns of the table of images that a LoRA was trained on."""


class NoTrainingImagesError(ValueError):
    """Training images or their captions are missing or refused; the message names them."""


class InvalidExtraDataError(ValueError):
    """Extra training data or a LoRA to start from is missing or invalid; the message says what to do."""


def training_samples(
    aligned: "Mapping[str, Image.Image]",
    masks: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    split: str,
) -> "list[Sample]":
    """Return the samples of the accepted portraits of a split, sorted by sha256.

    Raises:
        NoTrainingImagesError: one has no caption.
    """
    from valentina_pipeline.image.train.samples import Sample

    words = dict(zip(captions["sha256"], captions["caption"], strict=True))
    sides = (faces[side].astype(float) for side in ("x0", "y0", "x1", "y1"))
    boxes = dict(zip(faces["sha256"], zip(*sides, strict=True), strict=True))
    names = sorted(faces.loc[faces["accepted"] & (faces["split"] == split), "sha256"])
    for name in names:
        if not words.get(name):
            raise NoTrainingImagesError(f"image {name} has no caption: run the stage caption again")
    masks_by_name = {name: masks[name].convert("L") for name in names if name in masks}
    for name in (name for name, mask in masks_by_name.items() if mask.getextrema() == (0, 0)):
        logger.warning("image %s: its mask is black everywhere: nothing is learned from it", name)
    return [
        Sample(name, aligned[name].convert("RGB"), words[name], boxes[name], mask=masks_by_name.get(name))
        for name in names
    ]


def refuse_captions(samples: "Sequence[Sample]", own: str) -> None:
    """Check the captions by the prompt filter.

    Args:
        samples: samples with their captions.
        own: the character's name.

    Raises:
        NoTrainingImagesError: a caption is refused.
    """
    from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
    from valentina_pipeline.image.safety.prompt_filter import refuse_words

    for caption, name in {sample.caption: sample.name for sample in reversed(samples)}.items():
        try:
            refuse_words(caption, own)
        except UnsafePromptError as err:
            raise NoTrainingImagesError(
                f"image {name}: its caption {caption!r} is refused: {err.reason}. "
                "Correct it in `uv run kedro review`, or reject the image there"
            ) from err


def check_rights(manifest: "pd.DataFrame", rights: Sequence[RightsRecord], today: date) -> None:
    """Check that each image may still be trained on: a record can expire after ingest ran.

    Raises:
        NoTrainingImagesError: an image may not; running ingest again leaves such images out.
    """
    for name in manifest["source_name"]:
        try:
            require_permission(rights, name, "training", today)
        except NotAllowedError as err:
            raise NoTrainingImagesError(
                f"{name} was ingested, but may no longer be trained on: {err}. "
                "`uv run dvc repro --force --single-item ingest@...`, then `uv run dvc repro`, leaves it out"
            ) from err


def extra_samples(
    images: "Mapping[str, Image.Image]",
    masks: "Mapping[str, Image.Image]",
    manifest: "pd.DataFrame",
    settings_by_folder: Mapping[str, ExtraDatasetConfig],
    rights: Sequence[RightsRecord],
) -> "tuple[list[Sample], list[dict[str, str]]]":
    """Return the samples of the extra data, and a row of TRAINING_IMAGE_COLUMNS for each.

    Args:
        images: ingest's images of the extra data by sha256.
        masks: masks of some of them, by the image's sha256.
        manifest: their rows; an image's source name is FOLDER/FILE.
        settings_by_folder: settings of each folder by its name.
        rights: the concept's records; only records that name the folder ("garden/*") count.

    Raises:
        InvalidExtraDataError: no image of a folder was accepted.
        NoTrainingImagesError: an image may no longer be trained on.
    """
    from valentina_pipeline.image.train.samples import Sample

    samples, used = [], []
    for folder, settings in sorted(settings_by_folder.items()):
        accepted = manifest[manifest["source_name"].str.startswith(f"{folder}/")]
        if accepted.empty:
            raise InvalidExtraDataError(
                f"train_lora.extra_datasets.{folder}: ingest accepted no image of this folder of "
                "data/05_model_input/<concept>: see rejections.csv"
            )
        check_rights(accepted, records_naming(rights, [folder]), clock.today())
        for row in accepted.to_dict("records"):
            name, image = row["source_name"], images[row["sha256"]].convert("RGB")
            mask = masks[row["sha256"]].convert("L") if row["sha256"] in masks else None
            repeats, weight = settings.num_repeats, settings.loss_weight
            samples.append(Sample(name, image, row["caption"], None, repeats, weight, mask=mask))
            used.append({**row, "split": TRAIN})
    return samples, [{column: row[column] for column in TRAINING_IMAGE_COLUMNS} for row in used]


def class_images(
    base: "BaseModel",
    cfg: TrainConfig,
    class_word: str,
    size: int,
    unsafe: "Callable[[Image.Image], str | None]",
    cache: "Cache",
) -> "dict[str, Image.Image]":
    """Return images of the class by the untrained base model: DreamBooth's prior, cached once generated.

    Images that the content filter refuses are left out with a warning.
    """
    from valentina_pipeline.common.progress import track_progress
    from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
    from valentina_pipeline.image.provenance.metadata import add_provenance

    prompt = photo_of(class_word)
    images = {}
    for seed in track_progress(range(cfg.num_class_images), "class images", cfg.num_class_images):
        settings = cfg.sample_inference_steps, cfg.sample_guidance_scale, size
        generate = partial(generate_images, base.pipe, [ImageSpec(prompt, seed)], *settings)
        image = cache.image(f"class image {prompt} {seed} {settings}", generate)
        if reason := unsafe(image):
            logger.warning("class image %d is left out: %s", seed, reason)
        else:
            images[f"{seed:05d}"] = add_provenance(image, {"prompt": prompt, "seed": seed})
    return images


def add_prior_preservation(
    samples: "list[Sample]", images: "Mapping[str, Image.Image]", class_word: str, weight: float
) -> "list[Sample]":
    """Return samples and class images, repeated so that both occur equally often (Ruiz et al. 2023, 4)."""
    from dataclasses import replace

    from valentina_pipeline.image.train.samples import Sample

    if not images:
        return samples
    more = max(1, round(len(images) / len(samples)))
    less = max(1, round(len(samples) / len(images)))
    caption = photo_of(class_word)
    prior = [
        Sample(f"class {name}", image.convert("RGB"), caption, None, repeats=less, weight=weight)
        for name, image in images.items()
    ]
    return [replace(sample, repeats=sample.repeats * more) for sample in samples] + prior


def inside(folder: Path, name: str) -> Path:
    """Return the path of `name` below `folder`.

    Raises:
        InvalidExtraDataError: the path is outside `folder`.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or path.resolve() == folder.resolve():
        raise InvalidExtraDataError(f"{name!r} must be inside {folder}: extra data is read only from there")
    return path
