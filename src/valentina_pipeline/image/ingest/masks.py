"""Loss masks from files next to the images: white is learned, black is ignored, gray is weighted."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from PIL import Image

from valentina_pipeline.common.parallel import WorkerFailure, parallel_map
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain.manifest import REJECTION_COLUMNS
from valentina_pipeline.image.ingest.screening import read_content
from valentina_pipeline.image.ingest.source_image import SourceImage, prefetch
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.decode import RejectedImageError, decode
from valentina_pipeline.image.train.bucketing import Size

logger = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG")

MAX_ASPECT_DIFFERENCE = 0.01
"""Relative difference allowed between the aspect ratios of mask and image: a smaller mask is rounded."""

Masked = tuple[SourceImage, Size]
Map = Callable[[Callable[[Masked], bytes | RejectedImageError], Iterable[Masked]], Iterable[Any]]


def take_in(
    source_images: Sequence[SourceImage],
    manifest: pd.DataFrame,
    limits: IngestConfig,
    each: Map = parallel_map,
) -> tuple[Mapping[str, bytes], pd.DataFrame]:
    """Read the masks of the accepted images; an image whose mask is rejected stays.

    Args:
        source_images: source images with their masks.
        manifest: rows of the accepted images.
        limits: maximum bytes and pixels of a file.
        each: maps a function over items; see common/parallel.py.

    Returns:
        PNG masks by the sha256 of their images; one row per rejected mask: source_name, reason, detail.
    """
    mask_files = {source.name: source.mask for source in source_images if source.mask}
    rows = [row for row in manifest.to_dict("records") if row["source_name"] in mask_files]
    masks: dict[str, bytes] = {}
    rejected = []
    sizes = [(int(row["width"]), int(row["height"])) for row in rows]
    with prefetch(mask_files[row["source_name"]] for row in rows) as read:
        # without masks no worker is started
        results = each(partial(_read_encoded, limits), zip(read, sizes, strict=True)) if rows else ()
        for row, mask in zip(rows, results, strict=True):
            if isinstance(mask, bytes):
                masks[row["sha256"]] = mask
                continue
            reason = mask.why if isinstance(mask, WorkerFailure) else mask
            why = f"{reason}; {row['source_name']} is used without it"
            logger.warning("the mask %s is not used: %s", mask_files[row["source_name"]].name, why)
            rejected.append((mask_files[row["source_name"]].name, "mask not used", why))
    return masks, pd.DataFrame(rejected, columns=list(REJECTION_COLUMNS), dtype=str)


def read_mask(source: SourceImage, size: Size, limits: IngestConfig) -> Image.Image:
    """Return the mask in mode L, upright and in its image's size; transparent pixels become black.

    Args:
        source: the mask's file.
        size: width and height of the image in pixels.
        limits: maximum bytes and pixels of the file.

    Raises:
        RejectedImageError: it cannot be read, its aspect ratio differs from the image's, or it is all black.
    """
    content = read_content(source, limits.max_bytes)
    any_side = limits.model_copy(update={"min_side": 1})
    mask = decode(content, any_side, FORMATS, behind="black").image.convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > MAX_ASPECT_DIFFERENCE:
        shapes = f"the mask has {mask.width} x {mask.height} pixels, its image {size[0]} x {size[1]}"
        raise RejectedImageError("another shape", f"{shapes}: save it in the image's size")
    if mask.getextrema() == (0, 0):
        raise RejectedImageError("nothing to learn", "the mask is all black: paint white where to learn")
    # not Lanczos: it rings, so black next to an edge would not stay black
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _read_encoded(limits: IngestConfig, masked: Masked) -> bytes | RejectedImageError:
    try:
        return png.encode(read_mask(*masked, limits))
    except RejectedImageError as rejection:
        return rejection
