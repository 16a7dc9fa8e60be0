import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.image.evaluate.attribute_features import color_histogram
from valentina_pipeline.image.evaluate.attributes import (
    FIELDS,
    AttributeJudges,
    LinearJudge,
    compare_attributes,
    describe_missed,
    requested_attributes,
)
from valentina_pipeline.image.faces.detection import detect_faces
from valentina_pipeline.image.faces.similarity import main_face
from valentina_pipeline.image.renderer.traits import DRESS_COLORS
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.tiny import dataset

PROMPT = "a woman, smiling, turned slightly to the left, wearing a red dress, beach background, soft light"


@pytest.fixture(scope="module")
def saved(root: Path) -> dict:
    return json.loads((root / "tiny/judges.json").read_text())


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> dataset.RenderedDataset:
    """People whom neither networks nor judges have seen."""
    return dataset.load(range(9000, 9003), 6, 7, tmp_path_factory.mktemp("world") / "cache")


def test_a_prompt_requests_what_it_names_and_nothing_else() -> None:
    assert requested_attributes(PROMPT) == {
        "expression": "smiling",
        "turn": "left",
        "clothes_color": "red",
        "place": "beach",
        "light": "soft light",
    }
    assert requested_attributes("photo of a woman, facing the camera") == {"turn": "to the camera"}
    assert requested_attributes("photo of a woman, light from the right") == {"light": "light from the right"}
    assert requested_attributes("photo of a woman wearing a dress") == {}


def test_what_is_missed_says_what_is_seen_instead() -> None:
    requested = {"turn": "left", "place": "beach", "expression": "smiling"}
    seen = {"turn": "right", "place": "beach"}

    assert compare_attributes(requested, seen) == {"turn": False, "place": True, "expression": False}
    assert describe_missed(requested, seen) == (
        "side of the turn: right, not left; expression: not visible, not smiling"
    )
    assert describe_missed({"place": "beach"}, seen) == ""


def test_a_discriminant_separates_along_the_axis_of_little_noise_and_survives_its_file() -> None:
    rng = np.random.default_rng(0)
    words = ["a", "b"] * 100
    measurements = rng.normal(size=(200, 2)) * (10, 0.2) + np.where(np.array(words) == "a", 0, 1)[:, None]
    judge = LinearJudge.fit(measurements, words, shrinkage=0.0)
    again = LinearJudge.from_json(json.loads(json.dumps(judge.as_json())))

    read = [again.read(values) for values in measurements]
    assert np.mean([one == word for one, word in zip(read, words, strict=True)]) > 0.95
    nearest_mean = LinearJudge.fit(measurements, words, shrinkage=1.0)
    assert np.mean([nearest_mean.read(v) == w for v, w in zip(measurements, words, strict=True)]) < 0.8


def test_a_light_blue_is_nearer_to_blue_than_to_gray() -> None:
    def histogram(rgb: tuple[int, int, int]) -> np.ndarray:
        pixels = np.full((1, 50, 3), rgb, np.float32) / 255
        return color_histogram(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0])

    light_blue = histogram((92, 160, 222))
    similarity = {name: float(light_blue @ histogram(rgb)) for name, rgb in DRESS_COLORS.items()}
    assert max(similarity, key=lambda name: similarity[name]) == "blue"
    assert np.linalg.norm(light_blue) == pytest.approx(1)


def test_the_judges_in_git_belong_to_the_embedder_in_git(saved: dict, root: Path) -> None:
    assert saved["face_embedder"] == sha256(root / "tiny/weights/faces.safetensors")
    assert len(saved["strangers"]) == 25
    assert all(values["accuracy"] >= 0.8 for values in saved["attributes"].values())


def test_the_judges_in_git_are_right_about_people_whom_they_have_not_seen(
    saved: dict, strangers: dataset.RenderedDataset
) -> None:
    judges = AttributeJudges.from_json(saved["attributes"])
    right: dict[str, list[bool]] = {field: [] for field in FIELDS}
    for pixels, traits in zip(strangers.pixels, strangers.attributes, strict=True):
        image = Image.fromarray(pixels)
        seen = judges.read(image, main_face(image, detect_faces)[0])
        for field, found in compare_attributes(
            requested_attributes(caption_from_traits(traits, "woman")), seen
        ).items():
            right[field].append(found)

    assert {len(found) for found in right.values()} == {18}
    shares = {field: float(np.mean(found)) for field, found in right.items()}
    assert min(shares.values()) >= 0.7, shares
    assert np.mean(list(shares.values())) >= 0.85, shares


def test_larger_images_are_read_alike_and_without_a_face_only_the_place_is(
    saved: dict, strangers: dataset.RenderedDataset
) -> None:
    judges = AttributeJudges.from_json(saved["attributes"])
    image = Image.fromarray(strangers.pixels[0])
    face, _ = main_face(image, detect_faces)
    assert face is not None
    large = image.resize((256, 256), Image.Resampling.NEAREST)
    seen = judges.read(image, face)

    assert set(seen) == set(FIELDS)
    assert judges.read(large, replace(face, landmarks=face.landmarks * 2)) == seen
    assert judges.read(image, None) == {"place": seen["place"]}
