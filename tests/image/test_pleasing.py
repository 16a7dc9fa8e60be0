import numpy as np
import pytest
from PIL import Image

from portraits import noise
from tiny_bases import clip_folder
from valentina_pipeline.image import pleasing
from valentina_pipeline.image.clip import load_clip
from valentina_pipeline.image.missing import MissingModel
from valentina_pipeline.image.pleasing import clip_iqa


def test_the_score_is_the_share_of_the_good_prompt() -> None:
    folder, image = str(clip_folder()), noise(1)
    clip = load_clip("open_clip", folder)
    cosines = clip.images([image])[0].astype(np.float64) @ clip.texts(["Good photo.", "Bad photo."]).T
    expected = np.exp(100 * cosines) / np.exp(100 * cosines).sum()
    assert clip_iqa(image, folder) == pytest.approx(expected[0], abs=1e-3)
    assert clip_iqa(image, folder) == clip_iqa(image, folder)


def test_a_picture_near_the_good_prompt_scores_high(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def images(self, _: list[Image.Image]) -> np.ndarray:
            return np.array([[1.0, 0.0]])

        def texts(self, _: list[str]) -> np.ndarray:
            return np.array([[0.9, 0.1], [0.8, 0.2]])

    monkeypatch.setattr(pleasing, "_clip", lambda _: Fake())
    assert clip_iqa(noise(1), "any") == pytest.approx(1.0, abs=1e-3)


def test_a_model_that_is_not_here_is_not_downloaded() -> None:
    with pytest.raises(MissingModel, match="ViT-B-32"):
        clip_iqa(noise(1), "ViT-B-32/laion2b_s34b_b79k")
