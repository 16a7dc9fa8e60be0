"""The pictures of a run: a concept's own, others that train along, and those of its class."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.train_lora import CompanionConfig, TrainConfig
from valentina_pipeline.domain import clock, naming
from valentina_pipeline.domain.concept import photo_of
from valentina_pipeline.domain.manifest import TRAIN
from valentina_pipeline.domain.rights import NotAllowedError, RightsRecord, require_permission

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.image.models.base_model import BaseModel
    from valentina_pipeline.image.train.samples import Sample
    from valentina_pipeline.integrations.sources.beside import Beside
    from valentina_pipeline.integrations.sources.files import Entry, Source
    from valentina_pipeline.training.encoding_cache import Cache

logger = logging.getLogger(__name__)

TRAINING_IMAGE_COLUMNS = ("sha256", "source_name", "rights_id", "split")
"""Columns of the table of pictures that a LoRA stands on."""


class NoTrainingImagesError(ValueError):
    """Pictures or captions are missing; the message says which."""


class InvalidExtraDataError(ValueError):
    """What is to train along is not what it has to be; the message says what and where."""


def training_samples(
    aligned: "Mapping[str, Image.Image]",
    masks: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    split: str,
) -> "list[Sample]":
    """Return the samples of the portraits that are kept of a split, sorted by sha256.

    Raises:
        NoTrainingImagesError: one has no caption.
    """
    from valentina_pipeline.image.train.samples import Sample

    words = dict(zip(captions["sha256"], captions["caption"], strict=True))
    sides = (faces[side].astype(float) for side in ("x0", "y0", "x1", "y1"))
    boxes = dict(zip(faces["sha256"], zip(*sides, strict=True), strict=True))
    names = sorted(faces.loc[faces["kept"] & (faces["split"] == split), "sha256"])
    for name in names:
        if not words.get(name):
            raise NoTrainingImagesError(f"picture {name} has no caption: run the stage caption again")
    shown = {name: masks[name].convert("L") for name in names if name in masks}
    for name in (name for name, mask in shown.items() if mask.getextrema() == (0, 0)):
        logger.warning("picture %s: its mask blackens all of the portrait: nothing is learned from it", name)
    return [
        Sample(name, aligned[name].convert("RGB"), words[name], boxes[name], mask=shown.get(name))
        for name in names
    ]


def refuse_captions(samples: "Sequence[Sample]", own: str) -> None:
    """Ask the policy for prompts about what the LoRA is to learn words by.

    Args:
        samples: with their captions.
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
                f"picture {name}: its caption {caption!r} is refused: {err.reason}. "
                "Correct it in `uv run kedro review`, or reject the picture there"
            ) from err


def check_rights(manifest: "pd.DataFrame", rights: Sequence[RightsRecord], today: date) -> None:
    """See that each picture may still be trained on: a record ends without anything changing.

    Raises:
        NoTrainingImagesError: one may not; ingest, run again, leaves such pictures out.
    """
    for name in manifest["source_name"]:
        try:
            require_permission(rights, name, "training", today)
        except NotAllowedError as err:
            raise NoTrainingImagesError(
                f"{name} was taken in and may not be trained on any more: {err}. "
                "`uv run dvc repro --force --single-item ingest@...`, then `uv run dvc repro`, leaves it out"
            ) from err


def extra_samples(
    extras: Path,
    wanted: Mapping[str, CompanionConfig],
    limits: IngestConfig,
    rights: Sequence[RightsRecord],
    unsafe: "Callable[[Image.Image], str | None]",
) -> "tuple[list[Sample], list[dict[str, str]]]":
    """Return the samples of the folders that train along, and each one's row of TRAINING_IMAGE_COLUMNS.

    Each picture goes through ingest's checks; unlike there, one that is refused stops the run: somebody
    chose these one by one.

    Args:
        extras: data/05_model_input/<concept>; data/05_model_input/README.md says what a folder holds.
        wanted: by the folder's name.
        limits: ingest's; pictures may be half as large.
        rights: the concept's records; those count that name the folder: "garden/*".
        unsafe: says what makes a picture unsafe, or None.

    Raises:
        InvalidExtraDataError: a folder, a picture, a caption or a rights record is missing or refused.
    """
    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.integrations.sources.beside import sorted_out
    from valentina_pipeline.integrations.sources.files import InvalidSourceError
    from valentina_pipeline.integrations.sources.folder import SUFFIXES, LocalFolder

    samples, used = [], []
    for name, settings in sorted(wanted.items()):
        folder = inside(extras, name)
        place = LocalFolder(folder)
        try:
            found = sorted_out(place.entries())
        except InvalidSourceError as err:
            raise InvalidExtraDataError(f"train_lora.also.{name}: {err}") from err
        smaller = limits.model_copy(update={"min_side": limits.min_side // 2})
        # a concept's "*" was not written with these pictures in mind; what was revoked stays so
        named = tuple(r for r in rights if r.revoked or naming.names_folder(r.covers, name))
        intake = ScreeningContext(smaller, named, clock.today(), unsafe)
        for entry, why in found.unused.items():
            logger.warning("%s is not used: %s", folder / entry.name, why)
        for entry in found.pictures:
            if Path(entry.name).suffix.lower() not in SUFFIXES:
                logger.warning("%s is not used: it is no picture", folder / entry.name)
                continue
            sample, row = _companion(place, folder, entry, found, settings, intake)
            samples.append(sample)
            used.append(row)
    return samples, used


def class_images(
    base: "BaseModel",
    cfg: TrainConfig,
    class_word: str,
    size: int,
    unsafe: "Callable[[Image.Image], str | None]",
    cache: "Cache",
) -> "dict[str, Image.Image]":
    """Return the class as the bare base draws it: DreamBooth's prior, drawn once and kept in the cache.

    An image that the content filter refuses is left out, with a message.
    """
    from valentina_pipeline.common.progress import track_progress
    from valentina_pipeline.image.generate.sampling import ImageSpec, generate_images
    from valentina_pipeline.image.provenance.metadata import add_provenance

    prompt = photo_of(class_word)
    images = {}
    for seed in track_progress(range(cfg.class_images), "class images", cfg.class_images):
        settings = cfg.sample_steps, cfg.sample_guidance, size
        drawn = partial(generate_images, base.pipe, [ImageSpec(prompt, seed)], *settings)
        image = cache.image(f"class image {prompt} {seed} {settings}", drawn)
        if reason := unsafe(image):
            logger.warning("class image %d is left out: %s", seed, reason)
        else:
            images[f"{seed:05d}"] = add_provenance(image, {"prompt": prompt, "seed": seed})
    return images


def add_prior_preservation(
    samples: "list[Sample]", images: "Mapping[str, Image.Image]", class_word: str, weight: float
) -> "list[Sample]":
    """Return samples and class images, each side shown about as often as the other (Ruiz et al. 2023, 4)."""
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
    """Return a path below `folder`.

    Raises:
        InvalidExtraDataError: it leaves it.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or path.resolve() == folder.resolve():
        raise InvalidExtraDataError(f"{name!r} is not in {folder}: only what lies there trains along")
    return path


def _companion(
    place: "Source",
    folder: Path,
    entry: "Entry",
    found: "Beside",
    settings: CompanionConfig,
    intake: "ScreeningContext",
) -> "tuple[Sample, dict[str, str]]":
    from valentina_pipeline.image.ingest.screening import screen_image
    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.image.io import png
    from valentina_pipeline.image.io.decode import RejectedImageError
    from valentina_pipeline.image.train.samples import Sample
    from valentina_pipeline.integrations.sources.beside import BadCaptionError, read_caption

    name = entry.name
    words = found.captions.get(name)
    if words is None:
        wanted = Path(name).with_suffix(".txt").name
        raise InvalidExtraDataError(f"{folder / name} needs its caption in {wanted} (or .caption) beside it")
    try:
        caption = read_caption(place, words)
    except (OSError, BadCaptionError) as err:
        raise InvalidExtraDataError(f"the caption of {folder / name} cannot be read: {err}") from err
    if not caption:
        raise InvalidExtraDataError(f"{folder / words.name} is empty: it has to hold the caption of {name}")
    full = f"{folder.name}/{name}"
    try:
        record = require_permission(intake.rights, full, "training", intake.today)
    except NotAllowedError as err:
        wanted = f'a record in the concept\'s ledgers has to cover "{folder.name}/*"'
        raise InvalidExtraDataError(f"{folder / name} is refused: {err} ({wanted})") from err
    made = screen_image(intake, SourceImage(name, partial(place.read, entry, intake.limits.max_bytes), {}))
    if isinstance(made, RejectedImageError):
        raise InvalidExtraDataError(f"{folder / name} is refused: {made}")
    image = png.decode(made.content)
    mask = _mask(place, folder, found.masks.get(name), image.size, intake.limits)
    sample = Sample(full, image, caption, None, settings.repeats, settings.weight, mask=mask)
    row = (made.facts["sha256"], full, record.id, TRAIN)
    return sample, dict(zip(TRAINING_IMAGE_COLUMNS, row, strict=True))


def _mask(
    place: "Source", folder: Path, entry: "Entry | None", size: tuple[int, int], limits: IngestConfig
) -> "Image.Image | None":
    from valentina_pipeline.image.ingest.masks import read_mask
    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.image.io.decode import RejectedImageError

    if entry is None:
        return None
    try:
        return read_mask(
            SourceImage(entry.name, partial(place.read, entry, limits.max_bytes), {}), size, limits
        )
    except RejectedImageError as err:
        raise InvalidExtraDataError(f"the mask {folder / entry.name} is refused: {err}") from err
