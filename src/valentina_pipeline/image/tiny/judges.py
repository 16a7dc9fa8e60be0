"""Calibration of the evaluation's attribute judges, and templates of strangers, on rendered people.

No network was trained on these people. The last of them check the judges, and are the strangers.
"""

from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image.evaluate.attribute_features import measure_attributes
from valentina_pipeline.image.evaluate.attributes import (
    FIELDS,
    AttributeJudges,
    LinearJudge,
    requested_attributes,
    round_number,
)
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.similarity import FaceJudge, embed_faces, main_face
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny.dataset import RenderedDataset, split

SHRINKAGE = {"expression": 0.5, "turn": 0.0, "clothes_color": 0.05, "place": 1.0, "light": 0.02}
"""Shrinkage of each discriminant, chosen on other renders; 1 for place compares with mean vectors."""


def calibrate(dataset: RenderedDataset, num_strangers: int, faces: FaceJudge) -> dict[str, Any]:
    """Return the content of tiny/judges.json but for the hash of the face embedder.

    Args:
        dataset: portraits of people whom no network was trained on.
        num_strangers: number of the last people, who check the judges and give the templates of strangers.
        faces: face embedder of the templates.
    """
    fitted, checked = split(dataset, num_strangers)
    judges = AttributeJudges(_fit(fitted), {})
    accuracy = _check(judges, checked)
    strangers = _templates(checked, faces)
    return {
        "attributes": AttributeJudges(judges.judges, accuracy).as_json(),
        "strangers": [[round_number(value) for value in row] for row in strangers.tolist()],
    }


def _fit(dataset: RenderedDataset) -> dict[str, LinearJudge]:
    measured = [measure_attributes(*_portrait(pixels)) for pixels in dataset.pixels]
    true = _true_attributes(dataset)
    judges = {}
    for field in FIELDS:
        rows = [row for row, values in enumerate(measured) if field in values]
        measurements = np.stack([measured[row][field] for row in rows])
        judges[field] = LinearJudge.fit(measurements, [true[row][field] for row in rows], SHRINKAGE[field])
    return judges


def _check(judges: AttributeJudges, dataset: RenderedDataset) -> dict[str, float]:
    """Return the share of right readings by attribute; a face that is not found counts as wrong."""
    seen = [judges.read(*_portrait(pixels)) for pixels in dataset.pixels]
    pairs = list(zip(_true_attributes(dataset), seen, strict=True))
    return {
        field: round(float(np.mean([true[field] == read.get(field) for true, read in pairs])), 4)
        for field in FIELDS
    }


def _templates(dataset: RenderedDataset, faces: FaceJudge) -> np.ndarray:
    """Return each person's mean face vector, (n, d), norm 1."""
    templates = []
    for person in np.unique(dataset.person):
        found = [_portrait(pixels) for pixels in dataset.pixels[dataset.person == person]]
        vectors = [embed_faces(image, [face], faces) for image, face in found if face is not None]
        mean = np.concatenate(vectors).mean(axis=0)
        templates.append(mean / np.linalg.norm(mean))
    return np.stack(templates)


def _portrait(pixels: np.ndarray) -> tuple[Image.Image, Face | None]:
    image = Image.fromarray(pixels)
    return image, main_face(image, detect_faces)[0]


def _true_attributes(dataset: RenderedDataset) -> list[dict[str, str]]:
    return [requested_attributes(caption_from_traits(traits, "woman")) for traits in dataset.attributes]
