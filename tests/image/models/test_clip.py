from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_bases
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.image.models.clip import load_clip


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["tiny", "open_clip"])
def test_pictures_and_texts_become_unit_vectors_in_one_space(kind: str) -> None:
    clip = load_clip(kind, tiny_bases.clip_folder())  # type: ignore[arg-type]
    images = clip.images([picture(1), picture(2)])
    texts = clip.texts(["photo of a woman", "photo of a cat", "sky"])
    assert images.shape == (2, 16)
    assert texts.shape == (3, 16)
    assert images.dtype == texts.dtype == np.float32
    for vectors in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-4


def test_a_vector_does_not_depend_on_how_many_are_encoded() -> None:
    clip = load_clip("tiny", tiny_bases.clip_folder())
    many = [picture(i) for i in range(40)]
    np.testing.assert_allclose(clip.images(many)[35], clip.images([many[35]])[0], atol=1e-5)


def test_nothing_to_encode_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image or text"):
        load_clip("tiny", tiny_bases.clip_folder()).texts([])


def test_a_tiny_clip_that_is_not_there_says_how_to_bring_it_back(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="git checkout"):
        load_clip("tiny", tmp_path)


def test_a_published_clip_outside_the_cache_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingModelError, match="hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
        load_clip("open_clip", "ViT-B-32/laion2b_s34b_b79k")


def test_a_model_that_open_clip_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="ViT-B-32/no_such_tag"):
        load_clip("open_clip", "ViT-B-32/no_such_tag")
