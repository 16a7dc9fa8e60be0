"""Nodes of the stage `ingest`."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain import clock, naming
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.rights import InvalidLedgerError, RightsRecord, find_unused_records
from valentina_pipeline.pipelines.ingest import extra_data
from valentina_pipeline.pipelines.ingest.source_images import check_attributes, read_source

if TYPE_CHECKING:
    import pandas as pd

    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.integrations.sources.files import Source

logger = logging.getLogger(__name__)

MAX_CLOSE_NAMES_SHOWN = 3
"""Images with similar names that a message lists."""

Screened = tuple[Mapping[str, Path], "pd.DataFrame", "pd.DataFrame", Mapping[str, bytes]]
"""PNG files by sha256, their manifest, the rejections, and the masks by their images' sha256."""


def ingest_images(
    raw: Path,
    extra_training_data: Path,
    rights: tuple[RightsRecord, ...],
    project_root: Path,
    concept: dict[str, Any],
    ingest: dict[str, Any],
    seed: int,
) -> "tuple[Any, ...]":
    """Import and screen a concept's images and its extra training data.

    The result depends on the date only through expiry: once a rights record has expired, the stage leaves
    its images out.

    Args:
        raw: data/01_raw/<concept>, of which DVC follows the images.
        extra_training_data: data/05_model_input/<concept>; its folders of images are extra training data.
        rights: the concept's records.
        project_root: the project's folder, where relative sources start.
        concept: see Concept.
        ingest: see IngestConfig.
        seed: seed of the rendered scenes.

    Returns:
        images, manifest, rejections, masks; then images, manifest and masks of the extra training data.

    Raises:
        InvalidLedgerError: a revoked record covers no image.
        InvalidAttributesError: attributes.json or a caption file is invalid.
        NoImagesError: no image of the concept is left.
    """
    import pandas as pd

    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.image.safety.content_filter import ContentFilter
    from valentina_pipeline.image.safety.prompt_filter import refuse_concept

    character = parse_config(Concept, concept, "concept")
    refuse_concept(character)
    limits = parse_config(IngestConfig, ingest, "ingest")
    working = project_root / "data/02_intermediate" / character.trigger
    originals = _rendered(character, limits, seed) if character.source == "renderer" else []
    for label, address in _sources(character.source):
        place = _open_source(address, limits, project_root, raw, working / ".frames")
        originals += read_source(place, label, limits)
    folders, others = extra_data.image_folders(extra_training_data)
    extra = extra_data.read_folders(extra_training_data, folders, limits)
    check_attributes([*originals, *extra], character.name)
    _check_coverage(rights, [*(image.name for image in [*originals, *extra]), *others])
    context = ScreeningContext(limits, rights, clock.today(), ContentFilter().unsafe)
    images, manifest, rejections, masks = _screen(originals, context, working / ".journal")
    context = extra_data.context(context, folders)
    extra_images, extra_manifest, refused, extra_masks = _screen(
        extra, context, working / ".journal_extra", required=False
    )
    rejections = pd.concat([rejections, refused]).sort_values("source_name", kind="stable")
    return images, manifest, rejections, masks, extra_images, extra_manifest, extra_masks


def _screen(
    originals: "list[SourceImage]", context: "ScreeningContext", journal: Path, required: bool = True
) -> Screened:
    """Screen images and their masks; the folder `journal` caches the results."""
    import pandas as pd

    from valentina_pipeline.image.ingest import masks
    from valentina_pipeline.image.ingest.ingest import ingest as screen_images
    from valentina_pipeline.image.ingest.result_cache import ResultCache

    with closing(ResultCache(journal)) as cache:
        images, manifest, rejections = screen_images(originals, context, cache, required=required)
    taken, refused = masks.take_in(originals, manifest, context.limits)
    return images, manifest, pd.concat([rejections, refused]), taken


def _open_source(address: str, limits: IngestConfig, root: Path, raw: Path, frames: Path) -> "Source":
    """Return the source at an address; warn where DVC does not follow it."""
    from valentina_pipeline.integrations.sources import source

    place = source(address, root, limits.allowed_hosts, frames)
    if not Path(place.where).is_relative_to(raw):
        inside = raw.relative_to(root)
        logger.warning("%s is not in %s: DVC does not see when images change there", place.where, inside)
    return place


def _rendered(character: Concept, limits: IngestConfig, seed: int) -> "list[SourceImage]":
    from valentina_pipeline.image.ingest import rendered_source
    from valentina_pipeline.image.renderer.prompt_parser import parse_identity

    size = max(rendered_source.SMALLEST, limits.min_side)
    identity = parse_identity(character.renderer_parameters)
    return list(
        rendered_source.portraits(identity, character.trigger, limits.num_rendered_images, size, seed)
    )


def _sources(source: str | Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (label, location) of each source to read; the label of a single source is ""."""
    if isinstance(source, str):
        return [] if source == "renderer" else [("", source)]
    return sorted(source.items())


def _check_coverage(rights: "Sequence[RightsRecord]", names: "Sequence[str]") -> None:
    """Warn of records that cover no image.

    Raises:
        InvalidLedgerError: one of them is revoked: images that it was meant for might be trained on.
    """
    from difflib import get_close_matches

    revoked = []
    for record in find_unused_records(rights, names):
        close = [name for name in names if naming.prohibits(record.covers, name)] or get_close_matches(
            record.covers, names
        )
        problem = f"record {record.id} covers {record.covers!r}, but no image has such a name"
        problem += f" (close: {', '.join(close[:MAX_CLOSE_NAMES_SHOWN])})" if close else ""
        if record.revoked is not None:
            revoked.append(problem)
        else:
            logger.warning("%s: correct `covers`, or remove the record", problem)
    if revoked:
        raise InvalidLedgerError(
            f"{'; '.join(revoked)}. A revoked record must cover its images: correct `covers` in the ledger. "
            f"If the images were deleted, write when: `deleted: {clock.today()}`"
        )
