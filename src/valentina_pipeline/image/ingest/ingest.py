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
from valentina_pipeline.domain.manifest import REJECTION_COLUMNS, validate_manifest
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
    originals: Sequence[SourceImage], intake: ScreeningContext, journal: ResultCache, each: Map = parallel_map
) -> tuple[Mapping[str, Path], pd.DataFrame, pd.DataFrame]:
    """Screen every image that the result cache does not hold, and drop duplicates.

    Args:
        originals: source images in any order.
        intake: limits, rights and content filter.
        journal: result cache; also stores the accepted images.
        each: maps a function over items; see common/parallel.py.

    Returns:
        PNG files by sha256; the manifest (domain/manifest.py), sorted by source name; the rejections, one
        row per rejected image: source_name, reason, detail.

    Raises:
        NoImagesError: no image was accepted.
    """
    ordered = sorted(originals, key=lambda original: original.name)
    context_hash = screening_fingerprint(intake)
    keys = [_key(context_hash, original.version) for original in ordered]
    outcomes: list[Outcome | None] = [
        _rights_rejection(original, intake) or _cached_outcome(journal, key)
        for original, key in zip(ordered, keys, strict=True)
    ]
    todo = [row for row, outcome in enumerate(outcomes) if outcome is None]
    if len(todo) < len(ordered):
        logger.info(
            "%d of %d images are unchanged since the last run", len(ordered) - len(todo), len(ordered)
        )
    with prefetch(ordered[row] for row in todo) as read:
        results = each(partial(screen_image, intake), read)
        tracked = track_progress(results, "ingest", len(ordered), len(ordered) - len(todo))
        for row, outcome in zip(todo, tracked, strict=True):
            outcomes[row] = _store_outcome(journal, keys[row], outcome)
    screened = [outcome for outcome in outcomes if outcome is not None]
    kept, rejected = _drop_duplicates(ordered, screened, intake.limits.near_duplicate_bits)
    rejections = pd.DataFrame(
        [(name, r.reason, r.detail) for name, r in rejected], columns=list(REJECTION_COLUMNS), dtype=str
    )
    _log_rejections(len(kept), rejections)
    manifest = _manifest(kept, intake)
    _log_notes(manifest)
    # keep duplicates, too: an image without its file would be screened again in each run
    journal.forget_all_but(keys, (item.facts["sha256"] for item in screened if isinstance(item, CachedImage)))
    return {item.facts["sha256"]: item.path for _, item in kept}, manifest, rejections


def row(original: SourceImage, facts: Mapping[str, Any], record: RightsRecord) -> dict[str, Any]:
    """Return an image's row of the manifest."""
    return {
        **facts,
        "source_name": original.name,
        "rights_id": record.id,
        "synthetic": record.synthetic,
        "caption": original.caption,
        "attributes": json.dumps(dict(original.attributes), sort_keys=True, ensure_ascii=False),
    }


def _rights_rejection(original: SourceImage, intake: ScreeningContext) -> RejectedImageError | None:
    try:
        require_permission(intake.rights, original.name, "training", intake.today)
    except NotAllowedError as err:
        return RejectedImageError(err.reason, err.detail)
    return None


def _key(context_hash: str, version: str) -> str:
    # file systems allow names that are not valid UTF-8
    return sha256(f"{context_hash} {version}".encode(errors="backslashreplace")) if version else ""


def _cached_outcome(journal: ResultCache, key: str) -> Outcome | None:
    cached = journal.get(key) if key else None
    return RejectedImageError(*cached) if isinstance(cached, tuple) else cached


def _store_outcome(
    journal: ResultCache, key: str, outcome: "AcceptedImage | RejectedImageError | WorkerFailure"
) -> Outcome:
    if isinstance(outcome, AcceptedImage):
        return journal.keep(key, outcome.facts, outcome.content)
    rejection = (
        RejectedImageError("decoder died", outcome.why) if isinstance(outcome, WorkerFailure) else outcome
    )
    if rejection.reason not in RETRYABLE_REASONS:
        journal.reject(key, rejection.reason, rejection.detail)
    return rejection


def _drop_duplicates(
    originals: Sequence[SourceImage], outcomes: Sequence[Outcome], bits: int
) -> tuple[list[tuple[SourceImage, CachedImage]], list[tuple[str, RejectedImageError]]]:
    """Reject images that equal, or nearly equal, an earlier one; rejections are sorted by name."""
    kept: list[tuple[SourceImage, CachedImage]] = []
    rejected: list[tuple[str, RejectedImageError]] = []
    hashes = PerceptualHashIndex(len(outcomes))
    first: dict[str, str] = {}
    for original, outcome in zip(originals, outcomes, strict=True):
        if isinstance(outcome, RejectedImageError):
            rejected.append((original.name, outcome))
            continue
        name, digest = original.name, outcome.facts["sha256"]
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
            kept.append((original, outcome))
            first[digest] = name
    return kept, rejected


def _manifest(kept: Sequence[tuple[SourceImage, CachedImage]], intake: ScreeningContext) -> pd.DataFrame:
    return validate_manifest(
        pd.DataFrame(
            row(
                original,
                item.facts,
                require_permission(intake.rights, original.name, "training", intake.today),
            )
            for original, item in kept
        )
    )


def _log_rejections(accepted: int, rejections: pd.DataFrame) -> None:
    for rejection in rejections.head(MAX_LOGGED_REJECTIONS).itertuples():
        logger.warning("rejected %s: %s (%s)", rejection.source_name, rejection.reason, rejection.detail)
    if len(rejections) > MAX_LOGGED_REJECTIONS:
        logger.warning("and %d more: rejections.csv has them all", len(rejections) - MAX_LOGGED_REJECTIONS)
    logger.info("%d images accepted, %d rejected", accepted, len(rejections))
    if accepted == 0:
        reasons = Counter(rejections["reason"]).most_common(3)
        summary = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        raise NoImagesError(f"all {len(rejections)} files were rejected: {summary}; see the log above")


def _log_notes(manifest: pd.DataFrame) -> None:
    for note, rows in manifest[manifest["notes"] != ""].groupby("notes"):
        first, *more = rows["source_name"]
        logger.warning("%s%s: %s", first, f" and {len(more)} more" if more else "", note)
