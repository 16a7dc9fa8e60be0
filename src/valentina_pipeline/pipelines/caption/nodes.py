"""Nodes of the stage `caption`."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import CaptionConfig, validated
from valentina_pipeline.domain.concept import Concept

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


def caption_portraits(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    manifest: "pd.DataFrame",
    concept: dict[str, Any],
    caption: dict[str, Any],
) -> "pd.DataFrame":
    """Word what varies in each aligned portrait.

    Args:
        aligned: by sha256.
        faces: align's rows; those kept are captioned.
        manifest: domain/manifest.py's, with the attributes.
        concept: domain/concept.py's Concept.
        caption: config.py's CaptionConfig.

    Returns:
        captions: sha256, machine; by sha256.
    """
    import pandas as pd

    from valentina_pipeline.image import caption as wording

    cfg = validated(CaptionConfig, caption, "caption")
    person = validated(Concept, concept, "concept")
    names = sorted(faces.loc[faces["kept"], "sha256"])
    if cfg.captioner == "attributes":
        texts = dict(zip(manifest["sha256"], manifest["attributes"], strict=True))
        known = {name: json.loads(texts[name]) for name in names}
        said = wording.from_attributes(known, f"{person.trigger} {person.class_word}", person.variable_traits)
    else:
        own = wording.description_words(person.description)
        rewrite = wording.rewriter(person.trigger, person.class_word, person.fixed_traits, own)
        said = wording.by_blip(aligned, names, rewrite)
    return pd.DataFrame({"sha256": names, "machine": [said[name] for name in names]}, dtype=str)
