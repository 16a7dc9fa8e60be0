from collections.abc import Sequence

import numpy as np
from PIL import Image

from valentina_pipeline.image.renderer.traits import GEOMETRY, random_identity
from valentina_pipeline.image.tiny import near_identity
from valentina_pipeline.image.tiny.near_identity import FACE, KINDS, SHIFT, _shift_features, measure


def judge(*values: float) -> near_identity.Embed:
    """A judge with one angle for the portrait, the person elsewhere, and each other person."""
    vectors = np.stack([np.cos(values), np.sin(values)], axis=1)

    def embed(images: Sequence[Image.Image]) -> np.ndarray:
        assert len(images) == len(values)
        return vectors

    return embed


def test_a_judge_of_scenes_is_never_right_and_one_of_persons_always() -> None:
    shares = measure(
        {
            "person": judge(0, 0.1, 1, 0.2),
            "scene": judge(0, 1, 0.1, 0.1),
            "blind": judge(0, np.nan, 1, 1),
            "coarse": judge(0, 0.5, 1, 0.1),
        },
        range(4000, 4002),
        seed=7,
    )

    assert shares["person"] == dict.fromkeys(KINDS, 1)
    assert shares["scene"] == shares["blind"] == dict.fromkeys(KINDS, 0)
    assert list(shares["coarse"].values()) == [1, 0]


def test_a_nearly_equal_face_differs_in_each_feature_and_keeps_its_hair() -> None:
    identity = random_identity(np.random.default_rng(1))
    moved = _shift_features(identity, np.random.default_rng(2))

    for name in GEOMETRY:
        difference = abs(getattr(moved, name) - getattr(identity, name))
        assert np.isclose(difference, SHIFT if name in FACE else 0)
        assert 0 <= getattr(moved, name) <= 1
    assert {name for name in GEOMETRY if name not in FACE} == {"hair_length", "hair_volume", "hair_wave"}
