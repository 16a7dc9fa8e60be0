from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from packages import stage
from portraits import CONCEPT, noise
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.image.caption import captioners
from valentina_pipeline.image.caption.description import Description
from valentina_pipeline.integrations import tables
from valentina_pipeline.pipelines.caption import nodes
from valentina_pipeline.pipelines.describe.nodes import describe_portraits

FACES = pd.DataFrame(
    {"sha256": ["c", "a", "b"], "accepted": [True, True, False], "background_removed": False}
)
MANIFEST = pd.DataFrame(
    {
        "sha256": ["a", "b", "c"],
        "source_name": ["1.png", "2.png", "3.png"],
        "caption": "",
        "attributes": ['{"eyes": "green", "expression": "smiling", "background": "beach"}', "{}", "{}"],
    }
)
IMAGES = {name: noise(seed) for seed, name in enumerate("ac")}


def caption_portraits(
    images: Mapping[str, Image.Image],
    faces: pd.DataFrame,
    manifest: pd.DataFrame,
    concept: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run `describe` and `caption`, with the table between them stored as the catalog stores it."""
    described = describe_portraits(images, faces, manifest, concept["class_word"], settings)
    stored = tables.from_csv(BytesIO(tables.to_csv(described)), dtype=str, keep_default_na=False)
    return nodes.caption_portraits(stored, faces, manifest, concept)


def test_the_kept_portraits_are_captioned_in_order() -> None:
    captions, seen = caption_portraits(IMAGES, FACES, MANIFEST, CONCEPT, stage("caption"))
    said = "photo of a test_woman woman, smiling, beach background"
    assert captions.to_dict("records") == [
        {"sha256": "a", "source_name": "1.png", "machine": said},
        {"sha256": "c", "source_name": "3.png", "machine": "photo of a test_woman woman"},
    ]
    assert seen["expression"].tolist() == ["smiling", ""] and seen["place"].tolist() == [
        "beach background",
        "",
    ]


def test_words_of_her_are_in_the_description_and_not_in_the_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Description(
        subject="a woman with green eyes", clothes="a hat over her hair and a scarf", light="soft light"
    )
    monkeypatch.setattr(captioners, "describe", lambda images, names, *_: dict.fromkeys(names, seen))
    captions, descriptions = caption_portraits(IMAGES, FACES, MANIFEST, CONCEPT, stage("caption"))
    assert set(captions["machine"]) == {"photo of a test_woman woman, wearing a scarf, soft light"}
    assert set(descriptions["subject"]) == {"a woman with green eyes"}


def test_without_the_captioners_model_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModelError, match="the captioner blip"):
        caption_portraits(IMAGES, FACES, MANIFEST, CONCEPT, {**stage("caption"), "captioner": "blip"})


def test_where_the_background_was_removed_the_caption_says_what_is_there_instead() -> None:
    faces = FACES.assign(background_removed=True)
    captions, _ = caption_portraits(IMAGES, faces, MANIFEST, CONCEPT, stage("caption"))
    assert captions["machine"].tolist() == [
        "photo of a test_woman woman, smiling, plain grey background",
        "photo of a test_woman woman, plain grey background",
    ]


def test_a_caption_left_beside_a_picture_is_taken_as_it_is_and_nobody_looks_at_that_picture(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked_at: list[str] = []

    def look(images: object, names: list[str], *_: object) -> dict[str, Description]:
        looked_at.extend(names)
        return {name: Description(expression="smiling") for name in names}

    monkeypatch.setattr(captioners, "describe", look)
    mine = "Ada's portrait, in a garden, wearing a hat"
    manifest = MANIFEST.assign(caption=["test_woman woman laughing on a beach", "", mine])
    captions, seen = caption_portraits(IMAGES, FACES, manifest, CONCEPT, stage("caption"))
    assert captions["machine"].tolist() == ["test_woman woman laughing on a beach", mine]
    assert looked_at == [] and seen["clothes"].tolist() == ["", "a hat"]
    assert "1 of 2 captions beside images lack the trigger test_woman" in caplog.text
    assert "for example the caption of 3.png" in caplog.text
    captions, _ = caption_portraits(
        IMAGES, FACES, manifest.assign(caption=["", "", mine]), CONCEPT, stage("caption")
    )
    assert looked_at == ["a"] and captions["machine"][0] == "photo of a test_woman woman, smiling"
