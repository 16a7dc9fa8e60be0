"""The pictures of a run: a concept's own, others that train along, and those of its class."""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from valentina_pipeline.config import CompanionConfig, IngestConfig, TrainConfig
from valentina_pipeline.domain.concept import RightsRecord

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.base import BaseModel
    from valentina_pipeline.image.cache import Cache
    from valentina_pipeline.image.encoding import Sample
    from valentina_pipeline.image.ingest import Intake
    from valentina_pipeline.integrations.sources import Source

logger = logging.getLogger(__name__)

RIGHTS = "rights.yml"
CAPTION_BYTES = 4000
CLASS_PROMPT = "photo of a {class_word}"


class NothingToTrainOn(ValueError):
    """Pictures or captions are missing; the message says which."""


class BadCompanion(ValueError):
    """What is to train along is not what it has to be; the message says what and where."""


def own(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    chosen: Iterable[str],
) -> "list[Sample]":
    """Return the samples of the aligned pictures among `chosen`, sorted by sha256.

    Raises:
        NothingToTrainOn: one has no caption.
    """
    from valentina_pipeline.image.encoding import Sample

    words = dict(zip(captions["sha256"], captions["caption"], strict=True))
    sides = (faces[side].astype(float) for side in ("x0", "y0", "x1", "y1"))
    boxes = dict(zip(faces["sha256"], zip(*sides, strict=True), strict=True))
    names = sorted(set(chosen) & set(aligned))
    for name in names:
        if not words.get(name):
            raise NothingToTrainOn(f"picture {name} has no caption: run the stage caption again")
    return [Sample(name, aligned[name].convert("RGB"), words[name], boxes[name]) for name in names]


def companions(
    extras: Path,
    wanted: Mapping[str, CompanionConfig],
    limits: IngestConfig,
    unsafe: "Callable[[Image.Image], str | None]",
) -> "tuple[list[Sample], list[RightsRecord]]":
    """Return the samples of the folders that train along, and the rights records they stand on.

    Each picture goes through ingest's checks; unlike there, one that is refused stops the run: somebody
    chose these one by one.

    Args:
        extras: data/05_model_input; its README says what a folder holds.
        wanted: by the folder's name.
        limits: ingest's; pictures may be half as large.
        unsafe: says what makes a picture unsafe, or None.

    Raises:
        BadCompanion: a folder, a picture, a caption or a rights record is missing or refused.
    """
    from valentina_pipeline.image.ingest import Intake
    from valentina_pipeline.integrations.sources import SUFFIXES, BadSource, LocalFolder

    samples: list[Sample] = []
    records: dict[str, RightsRecord] = {}
    for name, settings in sorted(wanted.items()):
        folder = inside(extras, name)
        place = LocalFolder(folder)
        try:
            names = [file for file in place.names() if Path(file).suffix.lower() in SUFFIXES]
        except BadSource as err:
            raise BadCompanion(f"train_lora.also.{name}: {err}") from err
        smaller = limits.model_copy(update={"min_side": limits.min_side // 2})
        intake = Intake(smaller, _rights(folder), date.today(), unsafe)
        for file in names:
            sample, record = _companion(place, folder, file, settings, intake)
            samples.append(sample)
            records[record.id] = record
    return samples, list(records.values())


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
    from rich.progress import track

    from valentina_pipeline.image.generate import Request, draw, mark

    prompt = CLASS_PROMPT.format(class_word=class_word)
    images = {}
    for seed in track(range(cfg.class_images), description="class images", transient=True):
        settings = cfg.sample_steps, cfg.sample_guidance, size
        drawn = partial(draw, base.pipe, [Request(prompt, seed)], *settings)
        image = cache.image(f"class image {prompt} {seed} {settings}", drawn)
        if reason := unsafe(image):
            logger.warning("class image %d is left out: %s", seed, reason)
        else:
            images[f"{seed:05d}"] = mark(image, {"prompt": prompt, "seed": seed})
    return images


def with_prior(
    samples: "list[Sample]", images: "Mapping[str, Image.Image]", class_word: str, weight: float
) -> "list[Sample]":
    """Return samples and class images, each side shown about as often as the other (Ruiz et al. 2023, 4)."""
    from dataclasses import replace

    from valentina_pipeline.image.encoding import Sample

    if not images:
        return samples
    more = max(1, round(len(images) / len(samples)))
    less = max(1, round(len(samples) / len(images)))
    caption = CLASS_PROMPT.format(class_word=class_word)
    prior = [
        Sample(f"class {name}", image.convert("RGB"), caption, None, repeats=less, weight=weight)
        for name, image in images.items()
    ]
    return [replace(sample, repeats=sample.repeats * more) for sample in samples] + prior


def inside(folder: Path, name: str) -> Path:
    """Return a path below `folder`.

    Raises:
        BadCompanion: it leaves it.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or path.resolve() == folder.resolve():
        raise BadCompanion(f"{name!r} is not in {folder}: only what lies there trains along")
    return path


def _rights(folder: Path) -> tuple[RightsRecord, ...]:
    import yaml

    file = folder / RIGHTS
    try:
        return TypeAdapter(tuple[RightsRecord, ...]).validate_python(yaml.safe_load(file.read_text("utf-8")))
    except FileNotFoundError as err:
        raise BadCompanion(f"{file} is missing: say there whose pictures these are (see the README)") from err
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as err:
        raise BadCompanion(f"{file}: {err}") from err


def _companion(
    place: "Source", folder: Path, name: str, settings: CompanionConfig, intake: "Intake"
) -> "tuple[Sample, RightsRecord]":
    from valentina_pipeline.image import png
    from valentina_pipeline.image.encoding import Sample
    from valentina_pipeline.image.ingest import Original, Rejection, admit

    words = Path(name).with_suffix(".txt").as_posix()
    try:
        caption = place.read(words, CAPTION_BYTES).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise BadCompanion(f"{folder / name} needs its caption in {words}, UTF-8 ({err})") from err
    if not caption:
        raise BadCompanion(f"{folder / words} is empty: it has to hold the caption of {name}")
    with TemporaryDirectory(prefix="companion-") as temporary:
        try:
            original = Original(name, partial(place.read, name, intake.limits.max_bytes), {})
            accepted = admit(original, intake, Path(temporary))
        except Rejection as rejection:
            raise BadCompanion(f"{folder / name} is refused: {rejection}") from rejection
        image = png.decode(accepted.path.read_bytes())
    record = next(r for r in intake.rights if r.id == accepted.row["rights_id"])
    label = f"{folder.name}/{name}"
    return Sample(label, image, caption, None, settings.repeats, settings.weight), record


def rights_lines(
    concept: Iterable[RightsRecord], used: Iterable[str], beside: Iterable[RightsRecord]
) -> tuple[str, ...]:
    """Return a line about each record that pictures stand on: id, holder and licence.

    Args:
        concept: the concept's records.
        used: the ids of those that its pictures stand on.
        beside: the records of what trains along.
    """
    ids = set(used)
    records = [*(record for record in concept if record.id in ids), *beside]
    return tuple(f"{record.id}: {record.holder}, {record.licence}" for record in records)
