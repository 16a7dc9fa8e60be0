"""Nodes of the stage `caption`."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import apply_review
from valentina_pipeline.domain.rights import RightsRecord

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

logger = logging.getLogger(__name__)


def caption_portraits(
    descriptions: "pd.DataFrame",
    faces: "pd.DataFrame",
    manifest: "pd.DataFrame",
    concept: dict[str, Any],
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Compose a caption of what varies from each portrait's description.

    A caption that a person left beside an image is used unchanged.

    Args:
        descriptions: describe's rows.
        faces: align's rows; accepted rows are captioned.
        manifest: see domain/manifest.py; its captions are used.
        concept: see Concept.

    Returns:
        captions: sha256, source_name, machine; caption_fields: sha256 and the fields of
        image/caption/description.py, without identity traits except the subject. Both sorted by sha256.
    """
    import pandas as pd

    from valentina_pipeline.image.align.background_removal import PLAIN
    from valentina_pipeline.image.caption.description import (
        FIELDS,
        Description,
        compose_caption,
        drop_identity_phrases,
    )

    character = parse_config(Concept, concept, "concept")
    known = manifest.set_index("sha256")
    names = sorted(faces.loc[faces["accepted"], "sha256"])
    excluded = {*character.caption_excluded_words, character.trigger, *character.class_word.split()}
    given = {name: known.loc[name, "caption"] for name in names if known.loc[name, "caption"]}
    described = {row["sha256"]: Description(*(row[f] for f in FIELDS)) for _, row in descriptions.iterrows()}
    _check_trigger(given, known["source_name"], character.trigger)
    fields_by_name = {name: drop_identity_phrases(described[name], excluded) for name in names}
    for name in faces.loc[faces["background_removed"], "sha256"]:
        if name in fields_by_name:
            fields_by_name[name] = replace(fields_by_name[name], place=PLAIN)
    words = [
        given.get(name) or compose_caption(fields_by_name[name], character.trigger, character.class_word)
        for name in names
    ]
    captions = pd.DataFrame(
        {"sha256": names, "source_name": known.loc[names, "source_name"].to_list(), "machine": words},
        dtype=str,
    )
    columns = {field: [getattr(fields_by_name[name], field) for name in names] for field in FIELDS}
    return captions, pd.DataFrame({"sha256": names, **columns}, dtype=str)


def _check_trigger(given: Mapping[str, str], files: "pd.Series", trigger: str) -> None:
    """Warn of captions beside images that lack the trigger: it learns nothing from these images."""
    without = [files[name] for name, text in given.items() if trigger not in re.findall(r"\w+", text.lower())]
    if without:
        logger.warning(
            "%d of %d captions beside images lack the trigger %s, for example the caption of %s: the trigger "
            "learns nothing from these images; add it to the captions",
            len(without), len(given), trigger, without[0],
        )  # fmt: skip


def describe_dataset(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    manifest: "pd.DataFrame",
    rejections: "pd.DataFrame",
    captions: "pd.DataFrame",
    caption_fields: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    concept: dict[str, Any],
) -> dict[str, bytes]:
    """Write the dataset card: contents, gaps and advice.

    Args:
        aligned: portraits by sha256.
        faces: align's rows.
        manifest: see domain/manifest.py.
        rejections: ingest's table of rejected images.
        captions: sha256, caption, rejected.
        caption_fields: sha256 and the fields of each portrait.
        rights: the concept's records.
        concept: see Concept.

    Returns:
        dataset_card.
    """
    from valentina_pipeline.image.caption.dataset_card import aspects, dataset_card

    character = parse_config(Concept, concept, "concept")
    faces = apply_review(faces, captions)
    dataset_aspects = aspects(faces, manifest, caption_fields)
    for aspect in dataset_aspects:
        for advice in aspect.advice():
            logger.info("%s: %s", aspect.name, advice)
    return dataset_card(character, dataset_aspects, aligned, manifest, faces, rejections, rights)
