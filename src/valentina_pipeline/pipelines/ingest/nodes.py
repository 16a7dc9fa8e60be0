"""Nodes of the stage `ingest`."""

import json
import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import IngestConfig, validated
from valentina_pipeline.domain.concept import Concept

if TYPE_CHECKING:
    import pandas as pd

    from valentina_pipeline.image.ingest import Original
    from valentina_pipeline.integrations.sources import Source

logger = logging.getLogger(__name__)

SIDECAR = "attributes.json"
"""Beside the pictures, if anybody has them: {"file name": {"expression": "smiling", ...}, ...}."""

SIDECAR_BYTES = 20_000_000


class BadSidecar(ValueError):
    """The file of attributes beside the pictures is not what it has to be."""


def ingest_images(
    raw: Path, concept: dict[str, Any], ingest: dict[str, Any], seed: int
) -> tuple[Mapping[str, bytes], "pd.DataFrame", "pd.DataFrame"]:
    """Take in a concept's pictures.

    The result depends on the day only where a rights record expires: from then on its pictures are left
    out whenever the stage runs.

    Args:
        raw: data/01_raw; relative sources count from the project's folder, two above.
        concept: domain/concept.py's Concept.
        ingest: config.py's IngestConfig.
        seed: of the rendered scenes.

    Returns:
        images, manifest, rejections.
    """
    from valentina_pipeline.image.ingest import Intake
    from valentina_pipeline.image.ingest import ingest as take_in
    from valentina_pipeline.image.safety import ContentFilter

    person = validated(Concept, concept, "concept")
    limits = validated(IngestConfig, ingest, "ingest")
    if person.source == "renderer":
        originals = _rendered(person, limits, seed)
    else:
        originals = _found(person, limits, raw)
    return take_in(originals, Intake(limits, person.rights, date.today(), ContentFilter().unsafe))


def _rendered(person: Concept, limits: IngestConfig, seed: int) -> "list[Original]":
    from valentina_pipeline.image import studio

    size = max(studio.SMALLEST, limits.min_side)
    woman = studio.identity(person.identity)
    return list(studio.portraits(woman, person.trigger, limits.count, size, seed))


def _found(person: Concept, limits: IngestConfig, raw: Path) -> "list[Original]":
    from functools import partial

    from valentina_pipeline.image.ingest import Original
    from valentina_pipeline.integrations.sources import source

    root = raw.parent.parent
    place = source(person.source, root)
    if not Path(place.where).is_relative_to(raw):
        logger.warning("%s is not in data/01_raw: DVC does not see when pictures change there", place.where)
    names = [name for name in place.names() if name != SIDECAR]
    known = _attributes(place)
    return [
        Original(_printable(name), partial(place.read, name, limits.max_bytes), known.get(name, {}))
        for name in names
    ]


def _printable(name: str) -> str:
    """Escape what a file name may hold but a table and a terminal may not: bytes not in UTF-8, controls."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _attributes(place: "Source") -> dict[str, dict[str, str]]:
    if SIDECAR not in place.names():
        return {}
    try:
        known = json.loads(place.read(SIDECAR, SIDECAR_BYTES))
    except ValueError as err:
        raise BadSidecar(f"{place.where}/{SIDECAR} is no JSON ({err})") from err
    if not isinstance(known, dict) or not all(_is_words(words) for words in known.values()):
        raise BadSidecar(f'{place.where}/{SIDECAR} has to be {{"file name": {{"trait": "word"}}}}')
    return known


def _is_words(words: object) -> bool:
    return isinstance(words, dict) and all(isinstance(word, str) for word in words.values())
