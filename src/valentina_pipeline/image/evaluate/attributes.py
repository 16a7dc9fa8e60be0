"""Attributes that a prompt requests, and judges that read them from an image.

The judges know the embedded tiny base's rendered world. Each is a linear discriminant over measurements
(attribute_features.py), calibrated on renders of people whom no network was trained on
(image/tiny/judges.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from valentina_pipeline.image.evaluate.attribute_features import FEATURES, measure_attributes
from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.renderer.prompt_parser import described_traits

FIELDS: Mapping[str, str] = {
    "expression": "expression",
    "turn": "side of the turn",
    "clothes_color": "color of the clothes",
    "place": "place",
    "light": "light",
}
"""Judged attributes, with their words for people."""

NOT_VISIBLE = "not visible"

DIGITS = 4
"""Significant digits of a judge's numbers in its file."""


def requested_attributes(text: str) -> dict[str, str]:
    """Return the judged attributes that a prompt or caption names, such as {"turn": "left"}."""
    traits = described_traits(text)
    words = {
        "expression": traits.get("expression"),
        "turn": _side(traits["yaw"]) if "yaw" in traits else None,
        "clothes_color": traits.get("dress_color"),
        "place": traits.get("background"),
        "light": traits.get("light"),
    }
    return {field: word for field, word in words.items() if word is not None}


def _side(yaw: float) -> str:
    return "to the camera" if yaw == 0 else "right" if yaw > 0 else "left"


@dataclass(frozen=True)
class LinearJudge:
    """A linear discriminant: the label with the largest weights @ measurement + bias.

    Attributes:
        labels: k words.
        weights: float64 (k, d).
        biases: float64 (k,).
    """

    labels: tuple[str, ...]
    weights: np.ndarray
    biases: np.ndarray

    @classmethod
    def fit(cls, measurements: np.ndarray, words: Sequence[str], shrinkage: float) -> "LinearJudge":
        """Fit Fisher's discriminant with equal priors.

        Args:
            measurements: (n, d).
            words: the label of each.
            shrinkage: 0 uses the covariance within labels, 1 only its mean variance: the nearest mean wins.
        """
        labels = tuple(sorted(set(words)))
        rows = np.array([labels.index(word) for word in words])
        means = np.stack([measurements[rows == row].mean(axis=0) for row in range(len(labels))])
        within = measurements - means[rows]
        covariance = within.T @ within / len(within)
        size = len(covariance)
        ridge = np.eye(size) * np.trace(covariance) / size
        weights = np.linalg.solve((1 - shrinkage) * covariance + shrinkage * ridge, means.T).T
        return cls(labels, weights, -0.5 * (weights * means).sum(axis=1))

    def read(self, measurement: np.ndarray) -> str:
        """Return the label of one measurement (d,)."""
        return self.labels[int((self.weights @ measurement + self.biases).argmax())]

    def as_json(self) -> dict[str, Any]:
        """Return labels, weights and biases, rounded."""
        return {
            "labels": list(self.labels),
            "weights": [[round_number(value) for value in row] for row in self.weights.tolist()],
            "biases": [round_number(value) for value in self.biases.tolist()],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LinearJudge":
        """Return the judge of `as_json`."""
        return cls(tuple(values["labels"]), np.array(values["weights"]), np.array(values["biases"]))


class AttributeReader(Protocol):
    """Reads attributes from an image."""

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Share of right readings on known images by attribute; empty where it was not measured."""

    def read(self, image: Image.Image, face: Face | None, requested: Mapping[str, str], /) -> dict[str, str]:
        """Return the words that the image shows by attribute.

        Args:
            image: the image.
            face: its main face.
            requested: words that the prompt requests.
        """


@dataclass(frozen=True)
class AttributeJudges:
    """A judge for each attribute.

    Attributes:
        judges: by attribute, in FIELDS.
        accuracy: share of right readings of each judge, on renders of people whom it was not calibrated on.
    """

    judges: Mapping[str, LinearJudge]
    accuracy: Mapping[str, float]

    def read(
        self, image: Image.Image, face: Face | None, requested: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the visible attributes, requested or not; without a face only the place."""
        measured = measure_attributes(image, face)
        return {field: self.judges[field].read(measured[field]) for field in FIELDS if field in measured}

    def as_json(self) -> dict[str, Any]:
        """Return accuracy, labels, weights and biases by attribute."""
        return {
            field: {"accuracy": self.accuracy[field], **judge.as_json()}
            for field, judge in self.judges.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Mapping[str, Any]]) -> "AttributeJudges":
        """Return the judges of `as_json`."""
        judges = {field: LinearJudge.from_json(values[field]) for field in FEATURES}
        return cls(judges, {field: float(values[field]["accuracy"]) for field in FEATURES})


def compare_attributes(requested: Mapping[str, str], seen: Mapping[str, str]) -> dict[str, bool]:
    """Return for each requested attribute whether it is seen."""
    return {field: seen.get(field) == word for field, word in requested.items()}


def describe_missed(requested: Mapping[str, str], seen: Mapping[str, str]) -> str:
    """Return the requested attributes that are not seen: "side of the turn: left, not right"."""
    return "; ".join(
        f"{FIELDS[field]}: {seen.get(field, NOT_VISIBLE)}, not {word}"
        for field, word in requested.items()
        if seen.get(field) != word
    )


def round_number(value: float) -> float:
    """Return a number with DIGITS significant digits, for a file in git."""
    return float(f"{value:.{DIGITS}g}")
