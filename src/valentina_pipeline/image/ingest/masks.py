"""Masks beside pictures, as other trainers read them: white is learned, black is not, gray in part."""

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

OTHER_SHAPE = 0.01
"""By how much the proportions of a mask may differ from its picture's: rounding of a smaller one."""

Masked = tuple[SourceImage, Size]
Map = Callable[[Callable[[Masked], bytes | RejectedImageError], Iterable[Masked]], Iterable[Any]]


def take_in(
    originals: Sequence[SourceImage], manifest: pd.DataFrame, limits: IngestConfig, each: Map = parallel_map
) -> tuple[Mapping[str, bytes], pd.DataFrame]:
    """Read the masks of the pictures that were taken in; a picture whose mask is refused stays.

    Args:
        originals: pictures, with their masks.
        manifest: of the pictures that were taken in.
        limits: bytes and pixels of a file.
        each: see each.py.

    Returns:
        PNG files of masks by the sha256 of their pictures; one row a mask refused: source_name, reason,
        detail.
    """
    of = {original.name: original.mask for original in originals if original.mask}
    rows = [row for row in manifest.to_dict("records") if row["source_name"] in of]
    masks: dict[str, bytes] = {}
    refused = []
    sizes = [(int(row["width"]), int(row["height"])) for row in rows]
    with prefetch(of[row["source_name"]] for row in rows) as read:
        # workers are started for nothing else
        made = each(partial(_encoded, limits), zip(read, sizes, strict=True)) if rows else ()
        for row, mask in zip(rows, made, strict=True):
            if isinstance(mask, bytes):
                masks[row["sha256"]] = mask
                continue
            reason = mask.why if isinstance(mask, WorkerFailure) else mask
            why = f"{reason}; {row['source_name']} is taken without it"
            logger.warning("the mask %s is not used: %s", of[row["source_name"]].name, why)
            refused.append((of[row["source_name"]].name, "mask not used", why))
    return masks, pd.DataFrame(refused, columns=list(REJECTION_COLUMNS), dtype=str)


def read_mask(original: SourceImage, size: Size, limits: IngestConfig) -> Image.Image:
    """Return a mask, L, upright and as large as its picture; what is transparent counts as black.

    Args:
        original: the mask's file.
        size: width and height of the picture, in pixels.
        limits: bytes and pixels of the file.

    Raises:
        RejectedImageError: it cannot be read, has other proportions than the picture, or is all black.
    """
    content = read_content(original, limits.max_bytes)
    any_side = limits.model_copy(update={"min_side": 1})
    mask = decode(content, any_side, FORMATS, behind="black").image.convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > OTHER_SHAPE:
        shapes = f"the mask has {mask.width} x {mask.height} pixels, its picture {size[0]} x {size[1]}"
        raise RejectedImageError("another shape", f"{shapes}: save it in the picture's size")
    if mask.getextrema() == (0, 0):
        raise RejectedImageError("nothing to learn", "the mask is all black: white is what is learned")
    # not Lanczos: it rings, and black would no longer be black near an edge
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _encoded(limits: IngestConfig, masked: Masked) -> bytes | RejectedImageError:
    try:
        return png.encode(read_mask(*masked, limits))
    except RejectedImageError as rejection:
        return rejection
