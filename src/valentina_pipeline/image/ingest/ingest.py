"""Ingest: screen source images, reject hostile or unusable ones with a reason, and write the manifest.

Limits are checked before an image is decoded. The image is then turned upright, converted to sRGB and
stored as PNG without metadata, named by its sha256. Worker processes do this and may crash.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from valentina_pipeline.common.parallel import WorkerFailure, parallel_map
from valentina_pipeline.common.progress import track_progress
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.manifest import REJECTION_COLUMNS, empty_manifest, validate_manifest
from valentina_pipeline.domain.rights import NotAllowedError, RightsRecord, require_permission
from valentina_pipeline.image.ingest.result_cache import CachedImage, ResultCache
from valentina_pipeline.image.ingest.screening import (
    AcceptedImage,
    ScreeningContext,
    screen_image,
    screening_fingerprint,
)
from valentina_pipeline.image.ingest.source_image import SourceImage, prefetch
from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.image.io.perceptual_hash import PerceptualHashIndex

logger = logging.getLogger(__name__)

RETRYABLE_REASONS = ("cannot be opened", "decoder died")
"""Reasons for rejection that are not cached, because the next run may succeed."""

MAX_LOGGED_REJECTIONS = 20
"""Number of rejections that are logged one by one; rejections.csv has all."""


class NoImagesError(ValueError):
    """No image was accepted; the message names the most frequent reasons."""


Map = Callable[
    [Callable[[SourceImage], AcceptedImage | RejectedImageError], Iterable[SourceImage]], Iterable[Any]
]
Outcome = CachedImage | RejectedImageError


def ingest(
    source_images: Sequence[SourceImage],
    context: ScreeningContext,
    cache: ResultCache,
    each: Map = parallel_map,
    required: bool = True,
) -> tuple[Mapping[str, Path], pd.DataFrame, pd.DataFrame]:
    """Screen every image that the result cache does not hold, and drop duplicates.

    Args:
        source_images: source images in any order.
        context: limits, rights and content filter.
        cache: result cache; also stores the accepted images.
        each: maps a function over items; see common/parallel.py.
        required: at least one image must be accepted.

    Returns:
        PNG files by sha256; the manifest (domain/manifest.py), sorted by source name; the rejections, one
        row per rejected image: source_name, reason, detail.

    Raises:
        NoImagesError: no image was accepted, and one is required.
    """
    ordered = sorted(source_images, key=lambda source: source.name)
    context_hash = screening_fingerprint(context)
    keys = [_key(context_hash, source.version) for source in ordered]
    outcomes: list[Outcome | None] = [
        _rights_rejection(source, context) or _cached_outcome(cache, key)
        for source, key in zip(ordered, keys, strict=True)
    ]
    todo = [row for row, outcome in enumerate(outcomes) if outcome is None]
    if len(todo) < len(ordered):
        logger.info(
            "%d of %d images are unchanged since their screening", len(ordered) - len(todo), len(ordered)
        )
    with prefetch(ordered[row] for row in todo) as read:
        # without images no worker is started
        results = each(partial(screen_image, context), read) if todo else ()
        tracked = track_progress(results, "ingest", len(ordered), len(ordered) - len(todo))
        for row, outcome in zip(todo, tracked, strict=True):
            outcomes[row] = _store_outcome(cache, keys[row], outcome)
    screened = [outcome for outcome in outcomes if outcome is not None]
    kept, rejected = _drop_duplicates(ordered, screened, context.limits.max_phash_distance)
    rejections = pd.DataFrame(
        [(name, r.reason, r.detail) for name, r in rejected], columns=list(REJECTION_COLUMNS), dtype=str
    )
    _log_rejections(len(kept), rejections)
    if required and not kept:
        raise NoImagesError(_describe_rejections(rejections))
    manifest = _manifest(kept, context)
    _log_notes(manifest)
    # keep duplicates, too: an image without its file would be screened again in each run
    cache.forget_all_but(keys, (item.facts["sha256"] for item in screened if isinstance(item, CachedImage)))
    return {item.facts["sha256"]: item.path for _, item in kept}, manifest, rejections


def row(source: SourceImage, facts: Mapping[str, Any], record: RightsRecord) -> dict[str, Any]:
    """Return an image's row of the manifest."""
    return {
        **facts,
        "source_name": source.name,
        "rights_id": record.id,
        "synthetic": record.synthetic,
        "caption": source.caption,
        "attributes": json.dumps(dict(source.attributes), sort_keys=True, ensure_ascii=False),
    }


def _rights_rejection(source: SourceImage, context: ScreeningContext) -> RejectedImageError | None:
    try:
        require_permission(context.rights, source.name, "training", context.today)
    except NotAllowedError as err:
        return RejectedImageError(err.reason, err.detail)
    return None


def _key(context_hash: str, version: str) -> str:
    # file systems allow names that are not valid UTF-8
    return sha256(f"{context_hash} {version}".encode(errors="backslashreplace")) if version else ""


def _cached_outcome(cache: ResultCache, key: str) -> Outcome | None:
    cached = cache.get(key) if key else None
    return RejectedImageError(*cached) if isinstance(cached, tuple) else cached


def _store_outcome(
    cache: ResultCache, key: str, outcome: "AcceptedImage | RejectedImageError | WorkerFailure"
) -> Outcome:
    if isinstance(outcome, AcceptedImage):
        return cache.keep(key, outcome.facts, outcome.content)
    rejection = (
        RejectedImageError("decoder died", outcome.why) if isinstance(outcome, WorkerFailure) else outcome
    )
    if rejection.reason not in RETRYABLE_REASONS:
        cache.reject(key, rejection.reason, rejection.detail)
    return rejection


def _drop_duplicates(
    source_images: Sequence[SourceImage], outcomes: Sequence[Outcome], bits: int
) -> tuple[list[tuple[SourceImage, CachedImage]], list[tuple[str, RejectedImageError]]]:
    """Reject images that equal, or nearly equal, an earlier one; rejections are sorted by name."""
    kept: list[tuple[SourceImage, CachedImage]] = []
    rejected: list[tuple[str, RejectedImageError]] = []
    hashes = PerceptualHashIndex(len(outcomes))
    first: dict[str, str] = {}
    for source, outcome in zip(source_images, outcomes, strict=True):
        if isinstance(outcome, RejectedImageError):
            rejected.append((source.name, outcome))
            continue
        name, digest = source.name, outcome.facts["sha256"]
        distances = hashes.distances(outcome.facts["phash"])
        if digest in first:
            rejected.append((name, RejectedImageError("duplicate", f"the same pixels as {first[digest]}")))
        elif len(kept) and distances.min() <= bits:
            near = kept[int(distances.argmin())][0].name
            rejected.append(
                (name, RejectedImageError("near duplicate", f"{int(distances.min())} of 64 bits from {near}"))
            )
        else:
            hashes.add(outcome.facts["phash"])
            kept.append((source, outcome))
            first[digest] = name
    return kept, rejected


def _manifest(kept: Sequence[tuple[SourceImage, CachedImage]], context: ScreeningContext) -> pd.DataFrame:
    if not kept:
        return empty_manifest()
    return validate_manifest(
        pd.DataFrame(
            row(
                source,
                item.facts,
                require_permission(context.rights, source.name, "training", context.today),
            )
            for source, item in kept
        )
    )


def _log_rejections(accepted: int, rejections: pd.DataFrame) -> None:
    for rejection in rejections.head(MAX_LOGGED_REJECTIONS).itertuples():
        logger.warning("rejected %s: %s (%s)", rejection.source_name, rejection.reason, rejection.detail)
    if len(rejections) > MAX_LOGGED_REJECTIONS:
        logger.warning("and %d more: rejections.csv has them all", len(rejections) - MAX_LOGGED_REJECTIONS)
    logger.info("%d images accepted, %d rejected", accepted, len(rejections))


def _describe_rejections(rejections: pd.DataFrame) -> str:
    reasons = Counter(rejections["reason"]).most_common(3)
    summary = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    return f"all {len(rejections)} files were rejected: {summary}; see the log above"


def _log_notes(manifest: pd.DataFrame) -> None:
    for note, rows in manifest[manifest["notes"] != ""].groupby("notes"):
        first, *more = rows["source_name"]
        logger.warning("%s%s: %s", first, f" and {len(more)} more" if more else "", note)
