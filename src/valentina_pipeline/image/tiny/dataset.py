"""Training images of the tiny networks: rendered people, never a built-in character."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from valentina_pipeline.common import atomic_files
from valentina_pipeline.image.renderer.render import landmarks, render
from valentina_pipeline.image.renderer.traits import (
    Identity,
    Scene,
    attributes,
    random_identity,
    random_scene,
)

SIZE = 128
"""Width and height in pixels: the native resolution of the tiny base."""

RENDER_SIZE = 160
"""Pixels of a render before it is cropped to SIZE around the face: align's framing at margin 2."""


@dataclass(frozen=True)
class RenderedDataset:
    """Rendered portraits of many people.

    Attributes:
        pixels: uint8 (n, 128, 128, 3), sRGB.
        landmarks: float32 (n, 5, 2), in [0, 1] of width and height, MTCNN's order.
        person: int64 (n,), number of the person in each image.
        attributes: n dicts, trait -> word.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    person: np.ndarray
    attributes: list[dict[str, str]]

    def people(self, chosen: np.ndarray) -> "RenderedDataset":
        """Return the rows whose `person` is in `chosen`."""
        rows = np.flatnonzero(np.isin(self.person, chosen))
        return RenderedDataset(
            self.pixels[rows], self.landmarks[rows], self.person[rows], [self.attributes[i] for i in rows]
        )

    def __add__(self, other: "RenderedDataset") -> "RenderedDataset":
        """Return the concatenation of both datasets."""
        return RenderedDataset(
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.landmarks, other.landmarks]),
            np.concatenate([self.person, other.person]),
            self.attributes + other.attributes,
        )

    def digest(self) -> str:
        """Return the sha256 of all data."""
        words = json.dumps(self.attributes, sort_keys=True).encode()
        return hashlib.sha256(self.pixels.tobytes() + self.landmarks.tobytes() + words).hexdigest()


def split(dataset: RenderedDataset, held_out: int) -> tuple[RenderedDataset, RenderedDataset]:
    """Return (train, held out): the last `held_out` people are held out from training."""
    last = int(dataset.person.max()) + 1 - held_out
    return dataset.people(np.arange(last)), dataset.people(np.arange(last, last + held_out))


def load(people: range, scenes: int, seed: int, cache: Path) -> RenderedDataset:
    """Render `scenes` portraits of each of `people`, or read them from `cache`.

    A person is a function of (seed, number): disjoint ranges contain different people.
    """
    if not (cache / "attributes.json").exists():
        _render(people, scenes, seed, cache)
    return RenderedDataset(
        np.load(cache / "pixels.npy"),
        np.load(cache / "landmarks.npy"),
        np.repeat(np.array(people), scenes),
        json.loads((cache / "attributes.json").read_text("utf-8")),
    )


def _render(people: range, scenes: int, seed: int, cache: Path) -> None:
    """Render person by person, so that an interrupted run resumes."""
    parts = cache / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    attributes = []
    for person in track(people, description="render people"):
        attributes += _render_person(person, scenes, seed, parts / f"{person:05d}.npz")
    saved = [np.load(parts / f"{person:05d}.npz") for person in people]
    np.save(cache / "pixels.npy", np.concatenate([part["pixels"] for part in saved]))
    np.save(cache / "landmarks.npy", np.concatenate([part["landmarks"] for part in saved]))
    # last: its presence marks a complete cache
    atomic_files.replace(cache / "attributes.json", json.dumps(attributes).encode())


def _render_person(person: int, scenes: int, seed: int, path: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng([seed, person])
    identity = random_identity(rng)
    views = [random_scene(rng) for _ in range(scenes)]
    seeds = [person * scenes + i for i in range(scenes)]
    if not path.exists():
        jitter = rng.normal(0, 2, size=(scenes, 2))
        rendered = [render_portrait(identity, *args) for args in zip(views, seeds, jitter, strict=True)]
        pixels, landmarks = (np.stack(arrays) for arrays in zip(*rendered, strict=True))
        with atomic_files.replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, pixels=pixels, landmarks=landmarks)
    return [attributes(identity, view) for view in views]


def render_portrait(
    identity: Identity, view: Scene, seed: int, jitter: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Render one image, cropped around its face; return its pixels and landmarks in [0, 1]."""
    pixels = render(identity, view, seed, RENDER_SIZE)
    points = landmarks(identity, view, seed) * RENDER_SIZE
    corner = np.clip(np.round(points.mean(axis=0) - SIZE / 2 + jitter), 0, RENDER_SIZE - SIZE).astype(int)
    x, y = corner
    return pixels[y : y + SIZE, x : x + SIZE], ((points - corner) / SIZE).astype(np.float32)
