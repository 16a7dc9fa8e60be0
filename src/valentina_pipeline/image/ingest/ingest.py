"""Taking in pictures: every one that is left out has its reason, and nothing hostile gets further.

A picture is bounded before it is decoded, then turned upright, into sRGB and into a PNG without
metadata, whose sha256 is its name from then on. That happens in other processes, which may die.
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

PASSING = ("cannot be opened", "decoder died")
"""Reasons that may not hold the next time."""

SHOWN = 20
"""Rejections that are logged one by one; all are in the report."""


class NoImagesError(ValueError):
    """Not one picture was taken in; the message names the most frequent reasons."""


Map = Callable[
    [Callable[[SourceImage], AcceptedImage | RejectedImageError], Iterable[SourceImage]], Iterable[Any]
]
Outcome = CachedImage | RejectedImageError


def ingest(
    originals: Sequence[SourceImage], intake: ScreeningContext, journal: ResultCache, each: Map = parallel_map
) -> tuple[Mapping[str, Path], pd.DataFrame, pd.DataFrame]:
    """Judge every picture that the journal does not know yet.

    Args:
        originals: in any order.
        intake: see there.
        journal: what is known, and where pictures are kept.
        each: see each.py.

    Returns:
        PNG files by sha256; the manifest (domain/manifest.py), by source name; the rejections, one row
        a picture left out: source_name, reason, detail.

    Raises:
        NoImagesError: nothing is left.
    """
    ordered = sorted(originals, key=lambda original: original.name)
    about = screening_fingerprint(intake)
    keys = [_key(about, original.version) for original in ordered]
    outcomes: list[Outcome | None] = [
        _refused(original, intake) or _known(journal, key)
        for original, key in zip(ordered, keys, strict=True)
    ]
    todo = [row for row, outcome in enumerate(outcomes) if outcome is None]
    if len(todo) < len(ordered):
        logger.info(
            "%d of %d pictures did not change since they were judged", len(ordered) - len(todo), len(ordered)
        )
    with prefetch(ordered[row] for row in todo) as read:
        made = each(partial(screen_image, intake), read)
        shown = track_progress(made, "ingest", len(ordered), len(ordered) - len(todo))
        for row, outcome in zip(todo, shown, strict=True):
            outcomes[row] = _remembered(journal, keys[row], outcome)
    judged = [outcome for outcome in outcomes if outcome is not None]
    kept, rejected = _without_likenesses(ordered, judged, intake.limits.near_duplicate_bits)
    rejections = pd.DataFrame(
        [(name, r.reason, r.detail) for name, r in rejected], columns=list(REJECTION_COLUMNS), dtype=str
    )
    _report(len(kept), rejections)
    manifest = _manifest(kept, intake)
    _say_notes(manifest)
    # duplicates, too: without its file a picture would be judged again each time
    journal.forget_all_but(keys, (item.facts["sha256"] for item in judged if isinstance(item, CachedImage)))
    return {item.facts["sha256"]: item.path for _, item in kept}, manifest, rejections


def row(original: SourceImage, facts: Mapping[str, Any], record: RightsRecord) -> dict[str, Any]:
    """Return a picture's row of the manifest."""
    return {
        **facts,
        "source_name": original.name,
        "rights_id": record.id,
        "synthetic": record.synthetic,
        "caption": original.caption,
        "attributes": json.dumps(dict(original.attributes), sort_keys=True, ensure_ascii=False),
    }


def _refused(original: SourceImage, intake: ScreeningContext) -> RejectedImageError | None:
    try:
        require_permission(intake.rights, original.name, "training", intake.today)
    except NotAllowedError as err:
        return RejectedImageError(err.reason, err.detail)
    return None


def _key(about: str, version: str) -> str:
    # file systems allow names that are no UTF-8
    return sha256(f"{about} {version}".encode(errors="backslashreplace")) if version else ""


def _known(journal: ResultCache, key: str) -> Outcome | None:
    known = journal.get(key) if key else None
    return RejectedImageError(*known) if isinstance(known, tuple) else known


def _remembered(
    journal: ResultCache, key: str, outcome: "AcceptedImage | RejectedImageError | WorkerFailure"
) -> Outcome:
    if isinstance(outcome, AcceptedImage):
        return journal.keep(key, outcome.facts, outcome.content)
    rejection = (
        RejectedImageError("decoder died", outcome.why) if isinstance(outcome, WorkerFailure) else outcome
    )
    if rejection.reason not in PASSING:
        journal.reject(key, rejection.reason, rejection.detail)
    return rejection


def _without_likenesses(
    originals: Sequence[SourceImage], outcomes: Sequence[Outcome], bits: int
) -> tuple[list[tuple[SourceImage, CachedImage]], list[tuple[str, RejectedImageError]]]:
    """Leave out pictures that equal, or nearly equal, one before them; rejections in order of names."""
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


def _report(accepted: int, rejections: pd.DataFrame) -> None:
    for left_out in rejections.head(SHOWN).itertuples():
        logger.warning("left out %s: %s (%s)", left_out.source_name, left_out.reason, left_out.detail)
    if len(rejections) > SHOWN:
        logger.warning("and %d more: rejections.csv has them all", len(rejections) - SHOWN)
    logger.info("%d images taken in, %d left out", accepted, len(rejections))
    if accepted == 0:
        reasons = Counter(rejections["reason"]).most_common(3)
        said = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        raise NoImagesError(f"none of {len(rejections)} files was taken in: {said}; each is logged above")


def _say_notes(manifest: pd.DataFrame) -> None:
    for note, rows in manifest[manifest["notes"] != ""].groupby("notes"):
        first, *more = rows["source_name"]
        logger.warning("%s%s: %s", first, f" and {len(more)} more" if more else "", note)
