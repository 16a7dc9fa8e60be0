"""Scorers whose verdicts can be worked out by hand: a picture is one colour, and its vector that colour.

Red, green and blue are the axes; a black picture shows no face, and grey ones a doubtful one.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from portraits import CONCEPT
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.image.evaluate.evaluate import CharacterData, Evaluation, EvaluationModels
from valentina_pipeline.image.evaluate.prompts import PlannedImage
from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.models.scorers import Scorers
from valentina_pipeline.pipelines.report.nodes import report_evaluation

PERSON = Concept.model_validate(CONCEPT)
CONFIG = EvaluateConfig(
    num_images_per_prompt=2, num_inference_steps=1, guidance_scale=1.0, bootstrap_resamples=200
)

TEMPLATES = [
    "photo of {subject}, smiling, wearing a red dress, beach background",
    "photo of {subject}, serious, wearing a blue shirt, teal wall background",
    "photo of {subject}, laughing, wearing a green dress, sunset background",
]
RED, GREEN, BLUE, BLACK, GREY = (250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 0, 0), (128, 128, 128)
LANDMARKS = np.array([[22.0, 25.0], [42.0, 25.0], [32.0, 36.0], [25.0, 46.0], [39.0, 46.0]])
DOUBTFUL = 0.6


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def find(images: Iterable[Image.Image]) -> list[list[Face]]:
    return [_faces(image) for image in images]


def _faces(image: Image.Image) -> list[Face]:
    colour = image.getpixel((0, 0))
    if colour == BLACK:
        return []
    return [Face((16.0, 12.0, 48.0, 52.0), DOUBTFUL if colour == GREY else 0.99, LANDMARKS)]


def vectors(images: Sequence[Image.Image]) -> np.ndarray:
    colours = np.stack([np.asarray(image.convert("RGB"), np.float32).mean(axis=(0, 1)) for image in images])
    return colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1)


class ColourFaces:
    size = 16

    def embed(self, crops: Sequence[Image.Image]) -> np.ndarray:
        return vectors(crops)


class ColourClip:
    """What a prompt says is red."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return vectors(images)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.tile(np.array([1, 0, 0], np.float32), (len(texts), 1))


def judges() -> Scorers:
    return Scorers(find, ColourFaces(), ColourClip())


def known(train: Sequence[tuple[int, int, int]], held_out: Sequence[tuple[int, int, int]]) -> CharacterData:
    """Portraits of these colours, named 00..., 01..., captioned "a photo"."""
    colours = [*train, *held_out]
    names = [f"{index:02d}{'a' * 62}" for index in range(len(colours))]
    faces = pd.DataFrame(
        {
            "sha256": names,
            "embedding": list(vectors([plain(colour) for colour in colours])),
            "accepted": True,
            "split": ["train"] * len(train) + ["held_out"] * len(held_out),
        }
    )
    aligned = {name: plain(colour) for name, colour in zip(names, colours, strict=True)}
    return CharacterData(aligned, faces, dict.fromkeys(names, "a photo"))


def models(**colours: tuple[int, int, int]) -> EvaluationModels:
    """EvaluationModels that draw each variant in its colour; what is not named is black."""

    def draw(takes: Sequence[PlannedImage]) -> list[Image.Image]:
        return [plain(colours.get(take.variant, BLACK)) for take in takes]

    return EvaluationModels(draw, lambda image: None, judges())


def laid_out(
    result: Evaluation, data: CharacterData, templates: list[str], person: Concept
) -> tuple[Image.Image, str]:
    """The grid and the page that the stage `report` makes of an evaluation."""
    captions = pd.DataFrame({"sha256": list(data.captions), "caption": list(data.captions.values())})
    return report_evaluation(
        result.evaluation_images,
        result.image_scores,
        result.metrics,
        result.evaluation_notes,
        result.step_scores,
        data.aligned,
        data.faces,
        captions.assign(rejected=False),
        templates,
        person.name,
        CONFIG.model_dump(),
    )
