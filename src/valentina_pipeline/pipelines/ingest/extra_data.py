"""Extra training data: folders of images in data/05_model_input/<concept>, screened like the portraits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain.extra_data import records_naming
from valentina_pipeline.pipelines.ingest.source_images import read_source

if TYPE_CHECKING:
    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.image.ingest.source_image import SourceImage


def image_folders(place: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders of images, and of all files outside them.

    A folder with weights is a LoRA to start from.
    """
    from valentina_pipeline.integrations.sources.files import InvalidSourceError
    from valentina_pipeline.integrations.sources.folder import LocalFolder

    try:
        names = [entry.name for entry in LocalFolder(place).entries()]
    except InvalidSourceError:  # the concept has no extra data
        return [], []
    weights = {name.partition("/")[0] for name in names if name.endswith(".safetensors")}
    folders = sorted({name.partition("/")[0] for name in names if "/" in name} - weights)
    return folders, [name for name in names if name.partition("/")[0] not in folders]


def read_folders(place: Path, folders: Sequence[str], limits: IngestConfig) -> "list[SourceImage]":
    """Return the images of these folders, named FOLDER/FILE.

    Raises:
        InvalidAttributesError: attributes.json or a caption file is invalid.
    """
    from valentina_pipeline.integrations.sources.folder import LocalFolder

    read = (read_source(LocalFolder(place / name), name, limits, need_captions=True) for name in folders)
    return [image for images in read for image in images]


def context(own: "ScreeningContext", folders: Sequence[str]) -> "ScreeningContext":
    """Return the settings for extra data: images may be half as large, records must name their folder."""
    smaller = own.limits.model_copy(update={"min_side": own.limits.min_side // 2})
    return replace(own, limits=smaller, rights=records_naming(own.rights, folders))
