"""Nodes of the stage `describe`."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.caption import CaptionConfig
from valentina_pipeline.config.validation import parse_config

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


def describe_portraits(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    manifest: "pd.DataFrame",
    class_word: str,
    caption: dict[str, Any],
) -> "pd.DataFrame":
    """Describe each aligned portrait in fields; no captioner describes an image that came with a caption.

    Args:
        aligned: portraits by sha256.
        faces: align's rows; accepted rows are described.
        manifest: see domain/manifest.py; its attributes and captions are used.
        class_word: the concept's class word.
        caption: see CaptionConfig.

    Returns:
        descriptions: sha256 and the fields of image/caption/description.py, sorted by sha256.
    """
    import pandas as pd

    from valentina_pipeline.image.caption.captioners import describe
    from valentina_pipeline.image.caption.description import FIELDS, from_caption

    cfg = parse_config(CaptionConfig, caption, "caption")
    known = manifest.set_index("sha256")
    names = sorted(faces.loc[faces["accepted"], "sha256"])
    attributes = {name: json.loads(known.loc[name, "attributes"]) for name in names}
    given = {name: known.loc[name, "caption"] for name in names if known.loc[name, "caption"]}
    described = describe(aligned, [n for n in names if n not in given], attributes, cfg, class_word)
    described |= {name: from_caption(text, class_word) for name, text in given.items()}
    columns = {field: [getattr(described[name], field) for name in names] for field in FIELDS}
    return pd.DataFrame({"sha256": names, **columns}, dtype=str)
