"""Calibration of the evaluation's judges of attributes and identity, and templates of strangers.

It uses rendered people on whom no network was trained. The last of them check the judges, and are the
strangers.
"""

from dataclasses import replace
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
from valentina_pipeline.image.evaluate.identity_judge import IdentityJudge, person_templates
from valentina_pipeline.image.faces import dlib_network
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.similarity import FaceJudge, main_face
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny.dataset import RenderedDataset, split
from valentina_pipeline.image.tiny.near_identity import embed_with

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
    vectors = embed_with(faces)([Image.fromarray(pixels) for pixels in checked.pixels])
    strangers = person_templates(vectors, checked.person)
    return {
        "attributes": AttributeJudges(judges.judges, accuracy).as_json(),
        "strangers": [[round_number(value) for value in row] for row in strangers.tolist()],
        "dlib": _fit_identity(fitted, checked).as_json(),
    }


def _fit_identity(fitted: RenderedDataset, checked: RenderedDataset) -> IdentityJudge:
    """Return the independent judge of the people of `fitted`, with those of `checked` as strangers."""
    found = [dlib_network.embed_main_face(Image.fromarray(pixels)) for pixels in fitted.pixels]
    rows = [row for row, vector in enumerate(found) if vector is not None]
    vectors = np.stack([vector for vector in found if vector is not None])
    judge = IdentityJudge.fit(dlib_network.embed_main_face, vectors, fitted.person[rows])
    strangers = judge.vectors([Image.fromarray(pixels) for pixels in checked.pixels])
    return replace(judge, strangers=person_templates(strangers, checked.person))


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


def _portrait(pixels: np.ndarray) -> tuple[Image.Image, Face | None]:
    image = Image.fromarray(pixels)
    return image, main_face(image, detect_faces)[0]


def _true_attributes(dataset: RenderedDataset) -> list[dict[str, str]]:
    return [requested_attributes(caption_from_traits(traits, "woman")) for traits in dataset.attributes]
