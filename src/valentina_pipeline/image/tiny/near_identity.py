"""Near-identity triples (NearID 2026): a portrait, the same person elsewhere, another person in its scene.

A judge of identity must rank the same person higher. The other person has the same colors and hair, so that
neither they nor the scene help.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
from PIL import Image

from valentina_pipeline.image.faces.detection import detect_faces
from valentina_pipeline.image.faces.similarity import FaceJudge, embed_faces, main_face
from valentina_pipeline.image.renderer.traits import GEOMETRY, Identity, random_identity, random_scene
from valentina_pipeline.image.tiny.dataset import render_portrait

Embed = Callable[[Sequence[Image.Image]], np.ndarray]
"""Images -> vectors (n, d), norm 1; NaN without a face."""

FACE = tuple(name for name in GEOMETRY if not name.startswith("hair"))
SHIFT = 0.25
"""Shift of each feature of the nearly equal face; features lie in [0, 1]."""

KINDS = ("another face", f"each feature moved by {SHIFT:g}")


def measure(judges: Mapping[str, Embed], people: Sequence[int], seed: int) -> dict[str, dict[str, float]]:
    """Return by judge and kind of the other person the share of triples in the right order.

    Args:
        judges: embedders by name.
        people: numbers of the triples' people, as in dataset.load.
        seed: seed of the people.
    """
    triples = [_render_triple(person, seed) for person in people]
    shares: dict[str, dict[str, float]] = {}
    for judge, embed in judges.items():
        vectors = np.stack([embed(images) for images in triples])
        similarity = np.einsum("nd,nkd->nk", vectors[:, 0], vectors[:, 1:])
        right = similarity[:, :1] > similarity[:, 1:]  # a missing face makes the order wrong
        shares[judge] = {kind: float(share) for kind, share in zip(KINDS, right.mean(axis=0), strict=True)}
    return shares


def embed_with(faces: FaceJudge) -> Embed:
    """Return the embedder of images by their main face."""

    def embed(images: Sequence[Image.Image]) -> np.ndarray:
        found = [main_face(image, detect_faces)[0] for image in images]
        vectors = [embed_faces(i, [f], faces)[0] if f else None for i, f in zip(images, found, strict=True)]
        size = next((len(vector) for vector in vectors if vector is not None), 1)
        return np.stack([np.full(size, np.nan) if vector is None else vector for vector in vectors])

    return embed


def _render_triple(person: int, seed: int) -> list[Image.Image]:
    """Return the portrait, the same person elsewhere, and other people of KINDS in the portrait's scene."""
    rng = np.random.default_rng([seed, person])
    identity, other = random_identity(rng), random_identity(rng)
    scene, elsewhere = random_scene(rng), random_scene(rng)
    alike = {
        field.name: getattr(identity, field.name) for field in fields(Identity) if field.name not in FACE
    }
    shown = [
        (identity, scene),
        (identity, elsewhere),
        (replace(other, **alike), scene),
        (_shift_features(identity, rng), scene),
    ]
    return [
        Image.fromarray(render_portrait(who, view, 4 * person + row, np.zeros(2))[0])
        for row, (who, view) in enumerate(shown)
    ]


def _shift_features(identity: Identity, rng: np.random.Generator) -> Identity:
    """Move each feature of the face by SHIFT, up or down at random where both stay in [0, 1]."""
    moved = {}
    for name in FACE:
        value = getattr(identity, name)
        up = value < SHIFT or (value <= 1 - SHIFT and rng.random() < 0.5)
        moved[name] = value + SHIFT if up else value - SHIFT
    return replace(identity, **moved)
