from collections.abc import Callable

import pandas as pd
import pytest

from portraits import CONCEPT, noise
from valentina_pipeline.image import caption
from valentina_pipeline.image.missing import MissingModel
from valentina_pipeline.pipelines.caption.nodes import caption_portraits

FACES = pd.DataFrame({"sha256": ["c", "a", "b"], "kept": [True, True, False]})
MANIFEST = pd.DataFrame(
    {
        "sha256": ["a", "b", "c"],
        "attributes": ['{"eyes": "green", "expression": "smiling", "background": "beach"}', "{}", "{}"],
    }
)
IMAGES = {name: noise(seed) for seed, name in enumerate("ac")}


def test_the_kept_portraits_are_captioned_in_order() -> None:
    captions = caption_portraits(IMAGES, FACES, MANIFEST, CONCEPT, {"captioner": "attributes"})
    assert captions.to_dict("records") == [
        {"sha256": "a", "machine": "photo of a test_woman woman, smiling, beach background"},
        {"sha256": "c", "machine": "photo of a test_woman woman"},
    ]


def test_the_other_captioner_is_asked_for_the_same_portraits(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(_: object, names: list[str], rewrite: Callable[[str], str]) -> dict[str, str]:
        return {name: rewrite("a woman with green eyes and a hat") for name in names}

    monkeypatch.setattr(caption, "by_blip", says)
    captions = caption_portraits(IMAGES, FACES, MANIFEST, CONCEPT, {"captioner": "blip"})
    assert list(captions["sha256"]) == ["a", "c"]
    assert set(captions["machine"]) == {"photo of a test_woman woman with a hat"}


def test_without_the_captioners_model_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModel, match="BLIP"):
        caption_portraits(IMAGES, FACES, MANIFEST, CONCEPT, {"captioner": "blip"})
