"""Nodes of the stage `caption`."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import CaptionConfig, validated
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import reviewed
from valentina_pipeline.domain.rights import RightsRecord

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

logger = logging.getLogger(__name__)


def caption_portraits(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    manifest: "pd.DataFrame",
    concept: dict[str, Any],
    caption: dict[str, Any],
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Say in fields what is seen in each aligned portrait, and word what varies.

    Args:
        aligned: by sha256.
        faces: align's rows; those kept are captioned.
        manifest: domain/manifest.py's, with the attributes.
        concept: domain/concept.py's Concept.
        caption: config.py's CaptionConfig.

    Returns:
        captions: sha256, source_name, machine; descriptions: sha256 and what is seen in fields
        (image/caption.py), without what is hers but for the subject. Both by sha256.
    """
    import pandas as pd

    from valentina_pipeline.image.background import PLAIN
    from valentina_pipeline.image.caption import FIELDS, impersonal, worded
    from valentina_pipeline.image.captioners import describe

    cfg = validated(CaptionConfig, caption, "caption")
    person = validated(Concept, concept, "concept")
    known = manifest.set_index("sha256")
    names = sorted(faces.loc[faces["kept"], "sha256"])
    attributes = {name: json.loads(known.loc[name, "attributes"]) for name in names}
    gone = {*person.identity_words, person.trigger, *person.class_word.split()}
    said = describe(aligned, names, attributes, cfg, person.class_word)
    seen = {name: impersonal(said[name], gone) for name in names}
    for name in faces.loc[faces["background_removed"], "sha256"]:
        if name in seen:
            seen[name] = replace(seen[name], place=PLAIN)
    words = [worded(seen[name], person.trigger, person.class_word) for name in names]
    captions = pd.DataFrame(
        {"sha256": names, "source_name": known.loc[names, "source_name"].to_list(), "machine": words},
        dtype=str,
    )
    fields = {field: [getattr(seen[name], field) for name in names] for field in FIELDS}
    return captions, pd.DataFrame({"sha256": names, **fields}, dtype=str)


def describe_dataset(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    manifest: "pd.DataFrame",
    rejections: "pd.DataFrame",
    captions: "pd.DataFrame",
    descriptions: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    concept: dict[str, Any],
) -> dict[str, bytes]:
    """Say what the dataset has and lacks.

    Args:
        aligned: by sha256.
        faces: align's rows.
        manifest: domain/manifest.py's.
        rejections: ingest's.
        captions: sha256, caption, rejected.
        descriptions: sha256 and what is seen in fields.
        rights: the concept's records.
        concept: domain/concept.py's Concept.

    Returns:
        dataset_card.
    """
    from valentina_pipeline.image.balance import aspects, dataset_card

    person = validated(Concept, concept, "concept")
    faces = reviewed(faces, captions)
    found = aspects(faces, manifest, descriptions)
    for aspect in found:
        for advice in aspect.advice():
            logger.info("%s: %s", aspect.name, advice)
    return dataset_card(person, found, aligned, manifest, faces, rejections, rights)
