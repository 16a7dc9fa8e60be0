"""Nodes of the stage `ingest`."""

import json
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

if TYPE_CHECKING:
    import pandas as pd

    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.integrations.sources.files import Entry, Source

logger = logging.getLogger(__name__)

SIDECAR = "attributes.json"
"""Optional file beside the images: {"file name": {"expression": "smiling", ...}, ...}."""

MAX_SIDECAR_BYTES = 20_000_000

CAPTION_THREADS = 16

MAX_NAMES_SHOWN, MAX_CLOSE_NAMES_SHOWN = 20, 3
"""Names that a message lists: of missing images, and of images with similar names."""


class InvalidAttributesError(ValueError):
    """An attributes file or a caption beside the images is invalid; the message names it."""


def ingest_images(
    raw: Path, rights: tuple[RightsRecord, ...], concept: dict[str, Any], ingest: dict[str, Any], seed: int
) -> tuple[Mapping[str, Path], "pd.DataFrame", "pd.DataFrame", Mapping[str, bytes]]:
    """Import and screen a concept's images.

    The result depends on the date only through expiry: once a rights record has expired, the stage leaves
    its images out.

    Args:
        raw: data/01_raw/<concept>; relative sources count from the project's folder, three above.
        rights: the concept's records.
        concept: see Concept.
        ingest: see IngestConfig.
        seed: seed of the rendered scenes.

    Returns:
        images, manifest, rejections, masks.

    Raises:
        InvalidLedgerError: a revoked record covers no image.
        InvalidAttributesError: attributes.json or a caption file is invalid.
        NoImagesError: no image is left.
    """
    import pandas as pd

    from valentina_pipeline.image.ingest import masks
    from valentina_pipeline.image.ingest.ingest import ingest as screen_images
    from valentina_pipeline.image.ingest.result_cache import ResultCache
    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.image.safety.content_filter import ContentFilter
    from valentina_pipeline.image.safety.prompt_filter import refuse_concept

    character = parse_config(Concept, concept, "concept")
    refuse_concept(character)
    limits = parse_config(IngestConfig, ingest, "ingest")
    working = raw.parents[1] / "02_intermediate" / character.trigger
    originals = _rendered(character, limits, seed) if character.source == "renderer" else []
    for label, place in _sources(character.source):
        originals += _read_source(label, place, limits, raw, working / ".frames")
    _check_attributes(originals, character.name)
    _check_coverage(
        rights,
        [original.name for original in originals]
        + _extra_image_names(raw.parents[1] / "05_model_input" / character.trigger),
    )
    context = ScreeningContext(limits, rights, clock.today(), ContentFilter().unsafe)
    with closing(ResultCache(working / ".journal")) as cache:
        images, manifest, rejections = screen_images(originals, context, cache)
    taken, refused = masks.take_in(originals, manifest, limits)
    if len(refused):
        rejections = pd.concat([rejections, refused]).sort_values("source_name", kind="stable")
    return images, manifest, rejections, taken


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


def _read_source(
    label: str, address: str, limits: IngestConfig, raw: Path, frames: Path
) -> "list[SourceImage]":
    from functools import partial

    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.integrations.sources import source
    from valentina_pipeline.integrations.sources.beside import sorted_out

    place = source(address, raw.parents[2], limits.allowed_hosts, frames)
    if not Path(place.where).is_relative_to(raw):
        inside = raw.relative_to(raw.parents[2])
        logger.warning("%s is not in %s: DVC does not see when images change there", place.where, inside)
    entries = place.entries()
    known = _attributes(place, entries)
    prefix = f"{label}/" if label else ""
    files = sorted_out(entry for entry in entries if entry.name != SIDECAR)
    captions = _read_captions(place, files.captions)
    masks = {
        name: SourceImage(
            prefix + _printable(mask.name),
            partial(place.read, mask, limits.max_bytes),
            {},
            remote=place.remote,
        )
        for name, mask in files.masks.items()
    }
    taken = [
        SourceImage(
            name=prefix + _printable(entry.name),
            content=partial(place.read, entry, limits.max_bytes),
            attributes=known.get(naming.canonical(entry.name), {}),
            version=entry.version and f"{place.where} {entry.name} {entry.version}",
            remote=place.remote,
            caption=captions.get(entry.name, ""),
            mask=masks.get(entry.name),
        )
        for entry in files.pictures
    ]
    return taken + [
        SourceImage(prefix + _printable(entry.name), partial(_reject, reason), {})
        for entry, reason in files.unused.items()
    ]


def _read_captions(place: "Source", files: "Mapping[str, Entry]") -> dict[str, str]:
    """Read the captions by image name; captions of remote sources are read in parallel.

    Raises:
        InvalidAttributesError: a caption cannot be read; the message names the first such file.
    """
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from valentina_pipeline.integrations.sources.beside import BadCaptionError, read_caption

    try:
        with ThreadPoolExecutor(CAPTION_THREADS if place.remote else 1) as threads:
            read = threads.map(partial(read_caption, place), files.values())
            texts = dict(zip(files, read, strict=True))
    except (BadCaptionError, OSError) as err:
        raise InvalidAttributesError(str(err)) from err
    for name, text in texts.items():
        if not text:
            logger.warning("%s is empty: the stage caption will caption %s", files[name].name, name)
    return texts


def _reject(reason: str) -> bytes:
    """Raise RejectedImageError in place of reading a file that is not an image."""
    from valentina_pipeline.image.io.decode import RejectedImageError

    raise RejectedImageError("not an image", reason)


def _check_attributes(originals: "Sequence[SourceImage]", own: str) -> None:
    """Check the attributes of the images by the prompt filter, since captions are made of them.

    Raises:
        InvalidAttributesError: an attribute is refused.
    """
    from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
    from valentina_pipeline.image.safety.prompt_filter import refuse_words

    first: dict[str, str] = {}
    for original in originals:
        for words in original.attributes.values():
            first.setdefault(words, original.name)
    for words, name in first.items():
        try:
            refuse_words(words, own)
        except UnsafePromptError as err:
            raise InvalidAttributesError(
                f"{name}: its attribute {words!r} is refused: {err.reason}. Reword it, or remove the image"
            ) from err


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


def _extra_image_names(folder: Path) -> list[str]:
    """Return the names of the extra data's images: the concept's ledgers cover them, too."""
    from valentina_pipeline.integrations.sources.files import InvalidSourceError
    from valentina_pipeline.integrations.sources.folder import LocalFolder

    try:
        return [entry.name for entry in LocalFolder(folder).entries()]
    except InvalidSourceError:  # the concept has no extra data
        return []


def _printable(name: str) -> str:
    """Escape control characters and bytes outside UTF-8, which tables and terminals cannot hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _attributes(place: "Source", entries: "Sequence[Entry]") -> dict[str, dict[str, str]]:
    """Return the attributes of each image by its canonical name; warn of names without an image."""
    sidecar = next((entry for entry in entries if entry.name == SIDECAR), None)
    if sidecar is None:
        return {}
    where = f"{place.where}/{SIDECAR}"
    try:
        known = json.loads(place.read(sidecar, MAX_SIDECAR_BYTES))
    except (ValueError, RecursionError) as err:
        raise InvalidAttributesError(f"{where} is not valid JSON: {err}") from err
    if not isinstance(known, dict) or not all(_is_words(words) for words in known.values()):
        raise InvalidAttributesError(f'{where} must have the form {{"file name": {{"trait": "word"}}}}')
    try:
        by_name = naming.by_name(known)
    except ValueError as err:
        raise InvalidAttributesError(f"{where}: {err}: keep one of them") from err
    names = {naming.canonical(entry.name) for entry in entries}
    if unused := [name for name in by_name if name not in names]:
        listed = ", ".join(map(_printable, unused[:MAX_NAMES_SHOWN]))
        more = f" and {len(unused) - MAX_NAMES_SHOWN} more" if len(unused) > MAX_NAMES_SHOWN else ""
        logger.warning("%s: no image is named %s%s; their attributes are not used", where, listed, more)
    return by_name


def _is_words(words: object) -> bool:
    return isinstance(words, dict) and all(isinstance(word, str) for word in words.values())
