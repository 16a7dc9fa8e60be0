"""The independent judge: fitted, written, read again, and asked for the real dlib's opinion of renders."""

import json

import numpy as np
import pytest
from PIL import Image

from valentina_pipeline.image.evaluate.identity_judge import (
    IdentityJudge,
    person_templates,
    similarity_to_others,
)
from valentina_pipeline.image.faces.dlib_network import embed_main_face
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import random_identity, random_scene


def noisy_people(num_people: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 12) far from the origin: people differ in four numbers, light changes four others more."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), each)
    own = np.zeros((num_people, 12))
    own[:, :4] = rng.normal(size=(num_people, 4))
    noise = rng.normal(size=(len(people), 12)) * np.repeat([0.1, 5.0, 0.1], 4)
    return 10 + own[people] + noise, people


def share_of_nearest(vectors: np.ndarray, people: np.ndarray) -> float:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return float((people[similarity.argmax(axis=1)] == people).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_whitening_sees_the_people_where_the_plain_cosine_sees_the_light() -> None:
    judge = IdentityJudge.fit(lambda image: None, *noisy_people(40, 10, seed=1))
    vectors, people = noisy_people(20, 10, seed=2)

    seen = np.stack([judge.project(vector) for vector in vectors])

    assert np.allclose(np.linalg.norm(seen, axis=1), 1)
    assert share_of_nearest(unit(vectors), people) < 0.3
    assert share_of_nearest(seen, people) > 0.9


def test_a_judge_read_from_its_file_sees_the_same() -> None:
    vectors, people = noisy_people(8, 5, seed=1)
    judge = IdentityJudge.fit(lambda image: None, vectors, people)
    again = IdentityJudge.from_json(judge.embed, json.loads(json.dumps(judge.as_json())))

    assert float(judge.project(vectors[0]) @ again.project(vectors[0])) > 0.9999


def test_an_image_without_a_face_has_no_vector_and_counts_nowhere() -> None:
    judge = IdentityJudge(lambda image: None, np.zeros(2), np.eye(2), np.empty((0, 2)))
    assert np.isnan(judge.vectors([Image.new("RGB", (8, 8))])).all()

    vectors = np.array([[1.0, 0.0], [np.nan, np.nan], [0.6, 0.8]])
    assert person_templates(vectors, np.array([1, 1, 2])) == pytest.approx(np.array([[1.0, 0.0], [0.6, 0.8]]))
    assert similarity_to_others(vectors, vectors, [0, 1, None]) == pytest.approx(
        [0.6, np.nan, (0.6 + 1) / 2], nan_ok=True
    )


def test_dlib_finds_a_rendered_face_gives_the_same_bits_again_and_none_where_there_is_no_face() -> None:
    rng = np.random.default_rng(4)
    portrait = Image.fromarray(render(random_identity(rng), random_scene(rng), 1, 128))
    vector = embed_main_face(portrait)

    assert vector is not None and vector.shape == (128,)
    again = embed_main_face(portrait)
    assert again is not None and again.tobytes() == vector.tobytes()
    assert embed_main_face(Image.new("RGB", (128, 128), (90, 90, 90))) is None
