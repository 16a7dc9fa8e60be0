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
"""Beside the pictures, if anybody has them: {"file name": {"expression": "smiling", ...}, ...}."""

SIDECAR_BYTES = 20_000_000

CAPTIONS_AT_ONCE = 16

SHOWN, CLOSE = 20, 3
"""Names that a message lists: of pictures that are not there, and of those that may be meant."""


class InvalidAttributesError(ValueError):
    """A file of attributes or a caption beside the pictures is not what it has to be."""


def ingest_images(
    raw: Path, rights: tuple[RightsRecord, ...], concept: dict[str, Any], ingest: dict[str, Any], seed: int
) -> tuple[Mapping[str, Path], "pd.DataFrame", "pd.DataFrame", Mapping[str, bytes]]:
    """Take in a concept's pictures.

    The result depends on the day only where a rights record expires: from then on its pictures are left
    out whenever the stage runs.

    Args:
        raw: data/01_raw/<concept>; relative sources count from the project's folder, three above.
        rights: the concept's records.
        concept: see Concept.
        ingest: see IngestConfig.
        seed: of the rendered scenes.

    Returns:
        images, manifest, rejections, masks.

    Raises:
        InvalidLedgerError: a revoked record covers no picture.
        InvalidAttributesError: attributes.json is not what it has to be.
        NoImages: nothing is left.
    """
    import pandas as pd

    from valentina_pipeline.image.ingest import masks
    from valentina_pipeline.image.ingest.ingest import ingest as take_in
    from valentina_pipeline.image.ingest.result_cache import ResultCache
    from valentina_pipeline.image.ingest.screening import ScreeningContext
    from valentina_pipeline.image.safety.content_filter import ContentFilter
    from valentina_pipeline.image.safety.prompt_filter import refuse_concept

    person = parse_config(Concept, concept, "concept")
    refuse_concept(person)
    limits = parse_config(IngestConfig, ingest, "ingest")
    working = raw.parents[1] / "02_intermediate" / person.trigger
    originals = _rendered(person, limits, seed) if person.source == "renderer" else []
    for label, place in _places(person.source):
        originals += _found(label, place, limits, raw, working / ".frames")
    _refuse_attributes(originals, person.name)
    _check_coverage(
        rights,
        [each.name for each in originals] + _beside(raw.parents[1] / "05_model_input" / person.trigger),
    )
    intake = ScreeningContext(limits, rights, clock.today(), ContentFilter().unsafe)
    with closing(ResultCache(working / ".journal")) as journal:
        images, manifest, rejections = take_in(originals, intake, journal)
    taken, refused = masks.take_in(originals, manifest, limits)
    if len(refused):
        rejections = pd.concat([rejections, refused]).sort_values("source_name", kind="stable")
    return images, manifest, rejections, taken


def _rendered(person: Concept, limits: IngestConfig, seed: int) -> "list[SourceImage]":
    from valentina_pipeline.image import renderer
    from valentina_pipeline.image.ingest import rendered_source

    size = max(rendered_source.SMALLEST, limits.min_side)
    woman = renderer.identity(person.identity)
    return list(rendered_source.portraits(woman, person.trigger, limits.count, size, seed))


def _places(source: str | Mapping[str, str]) -> list[tuple[str, str]]:
    """Return label and place of each source that is read; of a single one the label is ""."""
    if isinstance(source, str):
        return [] if source == "renderer" else [("", source)]
    return sorted(source.items())


def _found(label: str, address: str, limits: IngestConfig, raw: Path, frames: Path) -> "list[SourceImage]":
    from functools import partial

    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.integrations.sources import source
    from valentina_pipeline.integrations.sources.beside import sorted_out

    place = source(address, raw.parents[2], limits.hosts, frames)
    if not Path(place.where).is_relative_to(raw):
        inside = raw.relative_to(raw.parents[2])
        logger.warning("%s is not in %s: DVC does not see when pictures change there", place.where, inside)
    entries = place.entries()
    known = _attributes(place, entries)
    prefix = f"{label}/" if label else ""
    found = sorted_out(entry for entry in entries if entry.name != SIDECAR)
    captions = _captions(place, found.captions)
    masks = {
        name: SourceImage(
            prefix + _printable(mask.name),
            partial(place.read, mask, limits.max_bytes),
            {},
            remote=place.remote,
        )
        for name, mask in found.masks.items()
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
        for entry in found.pictures
    ]
    return taken + [
        SourceImage(prefix + _printable(entry.name), partial(_refuse, why), {})
        for entry, why in found.unused.items()
    ]


def _captions(place: "Source", files: "Mapping[str, Entry]") -> dict[str, str]:
    """Return the captions by picture, those behind a network read many at once.

    Raises:
        InvalidAttributesError: some cannot be read; the message names the first.
    """
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from valentina_pipeline.integrations.sources.beside import BadCaptionError, read_caption

    try:
        with ThreadPoolExecutor(CAPTIONS_AT_ONCE if place.remote else 1) as threads:
            read = threads.map(partial(read_caption, place), files.values())
            texts = dict(zip(files, read, strict=True))
    except (BadCaptionError, OSError) as err:
        raise InvalidAttributesError(str(err)) from err
    for name, text in texts.items():
        if not text:
            logger.warning("%s is empty: %s is captioned by the stage caption", files[name].name, name)
    return texts


def _refuse(why: str) -> bytes:
    """Stand in for the content of a file that is no picture."""
    from valentina_pipeline.image.io.decode import RejectedImageError

    raise RejectedImageError("not an image", why)


def _refuse_attributes(originals: "Sequence[SourceImage]", own: str) -> None:
    """Ask the policy for prompts about what is said of the pictures: their captions are made of it.

    Raises:
        InvalidAttributesError: a picture's words are refused.
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
                f"{name}: its words {words!r} are refused: {err.reason}. "
                "Say it otherwise, or take the picture out"
            ) from err


def _check_coverage(rights: "Sequence[RightsRecord]", names: "Sequence[str]") -> None:
    """Warn of records that cover no picture.

    Raises:
        InvalidLedgerError: one of them is revoked, so that pictures may be trained on that it was meant for.
    """
    from difflib import get_close_matches

    wrong = []
    for record in find_unused_records(rights, names):
        close = [name for name in names if naming.prohibits(record.covers, name)] or get_close_matches(
            record.covers, names
        )
        said = f"record {record.id} covers {record.covers!r}, and no picture has such a name"
        said += f" (close: {', '.join(close[:CLOSE])})" if close else ""
        if record.revoked is not None:
            wrong.append(said)
        else:
            logger.warning("%s: correct `covers`, or remove it", said)
    if wrong:
        raise InvalidLedgerError(
            f"{'; '.join(wrong)}. What is revoked must not slip through: correct `covers` in the ledger. "
            f"Where the pictures were deleted, write when: `deleted: {clock.today()}`"
        )


def _beside(folder: Path) -> list[str]:
    """Return the names of the pictures that may train along: the concept's ledgers cover them, too."""
    from valentina_pipeline.integrations.sources.files import InvalidSourceError
    from valentina_pipeline.integrations.sources.folder import LocalFolder

    try:
        return [entry.name for entry in LocalFolder(folder).entries()]
    except InvalidSourceError:  # there is none
        return []


def _printable(name: str) -> str:
    """Escape what a file name may hold but a table and a terminal may not: bytes not in UTF-8, controls."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _attributes(place: "Source", entries: "Sequence[Entry]") -> dict[str, dict[str, str]]:
    """Return the words about each picture by its canonical name; warn of names that no picture has."""
    found = next((entry for entry in entries if entry.name == SIDECAR), None)
    if found is None:
        return {}
    where = f"{place.where}/{SIDECAR}"
    try:
        known = json.loads(place.read(found, SIDECAR_BYTES))
    except (ValueError, RecursionError) as err:
        raise InvalidAttributesError(f"{where} is no JSON ({err})") from err
    if not isinstance(known, dict) or not all(_is_words(words) for words in known.values()):
        raise InvalidAttributesError(f'{where} has to be {{"file name": {{"trait": "word"}}}}')
    try:
        by_name = naming.by_name(known)
    except ValueError as err:
        raise InvalidAttributesError(f"{where}: {err}: keep one") from err
    names = {naming.canonical(entry.name) for entry in entries}
    if astray := [name for name in by_name if name not in names]:
        listed = ", ".join(map(_printable, astray[:SHOWN]))
        more = f" and {len(astray) - SHOWN} more" if len(astray) > SHOWN else ""
        logger.warning("%s: no picture is named %s%s; what is said of them is not used", where, listed, more)
    return by_name


def _is_words(words: object) -> bool:
    return isinstance(words, dict) and all(isinstance(word, str) for word in words.values())
