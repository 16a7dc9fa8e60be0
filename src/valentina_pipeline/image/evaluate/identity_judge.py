"""Independent identity judge: a face network that others trained, fitted to the rendered world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image.evaluate.attributes import round_number

DIMENSIONS = 32
"""Dimensions kept, those in which people differ most."""

RIDGE = 1e-3
"""Share of the mean variance that is added to each, so that directions without variation stay finite."""

Embed = Callable[[Image.Image], np.ndarray | None]


@dataclass(frozen=True)
class IdentityJudge:
    """Compares faces by a network's vectors, centered and whitened within people.

    A network that learned from photographs sees little but the common style in rendered faces. Whitening by
    the variation within rendered people weighs what differs between people (linear discriminant analysis).

    Attributes:
        embed: image -> vector of its main face (d,), or None without a face.
        mean: (d,).
        projection: (k, d).
        strangers: templates of m other people, (m, k), norm 1.
    """

    embed: Embed
    mean: np.ndarray
    projection: np.ndarray
    strangers: np.ndarray

    @classmethod
    def fit(cls, embed: Embed, vectors: np.ndarray, people: np.ndarray) -> "IdentityJudge":
        """Fit mean and projection; there are no strangers yet.

        Args:
            embed: the network.
            vectors: (n, d).
            people: number of the person in each, (n,).
        """
        names = np.unique(people)
        means = np.stack([vectors[people == name].mean(axis=0) for name in names])
        within = vectors - means[np.searchsorted(names, people)]
        variances, axes = np.linalg.eigh(within.T @ within / len(within))
        whiten = (axes / np.sqrt(variances + RIDGE * variances.mean())).T
        mean = means.mean(axis=0)
        _, _, differing = np.linalg.svd((means - mean) @ whiten.T, full_matrices=False)
        return cls(embed, mean, differing[:DIMENSIONS] @ whiten, np.empty((0, min(DIMENSIONS, len(names)))))

    def vectors(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the faces' vectors (n, k), norm 1; a row without a face is NaN."""
        return np.stack([self.project(self.embed(image)) for image in images])

    def project(self, vector: np.ndarray | None) -> np.ndarray:
        """Return the centered and whitened vector (k,), norm 1; NaN for None."""
        if vector is None:
            return np.full(len(self.projection), np.nan)
        projected = self.projection @ (vector - self.mean)
        return np.asarray(projected / np.linalg.norm(projected))

    def as_json(self) -> dict[str, Any]:
        """Return mean, projection and strangers, rounded."""
        arrays = {"mean": self.mean, "projection": self.projection, "strangers": self.strangers}
        return {name: _rounded(values.tolist()) for name, values in arrays.items()}

    @classmethod
    def from_json(cls, embed: Embed, values: Mapping[str, Any]) -> "IdentityJudge":
        """Return the judge of `as_json`."""
        mean, projection, strangers = (np.array(values[name]) for name in ("mean", "projection", "strangers"))
        return cls(embed, mean, projection, strangers)


def person_templates(vectors: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Return each person's mean vector (m, d), norm 1; rows of `vectors` (n, d) that are NaN do not count."""
    found = np.isfinite(vectors).all(axis=1)
    means = np.stack([vectors[found & (people == person)].mean(axis=0) for person in np.unique(people)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def similarity_to_others(
    vectors: np.ndarray, references: np.ndarray, own: Sequence[int | None]
) -> np.ndarray:
    """Return the mean cosine of each vector to the references other than itself, (n,); NaN without a face.

    Args:
        vectors: (n, k), norm 1; a row without a face is NaN.
        references: (m, k), norm 1; rows that are NaN do not count.
        own: for each vector its row in `references`, or None.
    """
    means = []
    for vector, row in zip(vectors, own, strict=True):
        others = np.isfinite(references).all(axis=1)
        if row is not None:
            others[row] = False
        means.append(float((references[others] @ vector).mean()) if others.any() else np.nan)
    return np.array(means)


def _rounded(values: Any) -> Any:
    return [_rounded(value) for value in values] if isinstance(values, list) else round_number(values)
