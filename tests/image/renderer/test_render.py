import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest

from valentina_pipeline.image.renderer.prompt_parser import parse_scene
from valentina_pipeline.image.renderer.render import landmarks, render
from valentina_pipeline.image.renderer.traits import (
    BACKGROUNDS,
    DRESS_COLORS,
    DRESSES,
    EXPRESSIONS,
    GEOMETRY,
    LIGHTS,
    Identity,
    Scene,
    attributes,
    random_identity,
    random_scene,
)
from valentina_pipeline.image.renderer.wording import caption_from_traits

AVERAGE = Identity(
    **dict.fromkeys(GEOMETRY, 0.5),
    eye_color="blue",
    hair_color="blonde",
    skin_tone="light",
    parting="middle",
)
FRONT = Scene(0.0, 0.0, 0.0, "neutral", "t-shirt", "red", "grey studio", "soft light")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_the_same_arguments_give_the_same_bytes_with_any_number_of_threads():
    first = render(AVERAGE, FRONT, seed=3, size=48)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        second = render(AVERAGE, FRONT, seed=3, size=48)
    finally:
        numba.set_num_threads(before)
    assert first.dtype == np.uint8
    assert first.shape == (48, 48, 3)
    assert first.tobytes() == second.tobytes()


def test_the_seed_changes_the_picture_only_a_little():
    one, other = (render(AVERAGE, FRONT, seed, size=48) for seed in (0, 1))
    stranger = render(replace(AVERAGE, hair_color="black", skin_tone="dark"), FRONT, 0, size=48)
    assert 0.0 < difference(one, other) < difference(one, stranger)


@pytest.mark.parametrize("name", GEOMETRY)
def test_every_number_of_an_identity_changes_the_picture(name):
    scene = replace(FRONT, yaw=15.0)
    low, high = (render(replace(AVERAGE, **{name: end}), scene, 0, size=64, samples=1) for end in (0.0, 1.0))
    assert difference(low, high) > 0.05


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("expression", EXPRESSIONS),
        ("dress", DRESSES),
        ("dress_color", tuple(DRESS_COLORS)),
        ("background", BACKGROUNDS),
        ("light", LIGHTS),
    ],
)
def test_no_two_names_of_a_scene_look_alike(field, names):
    images = [render(AVERAGE, replace(FRONT, **{field: name}), 0, size=48, samples=1) for name in names]
    for i, image in enumerate(images):
        assert all(difference(image, other) > 0.3 for other in images[:i])


def test_every_name_of_the_vocabularies_can_be_drawn():
    rng = np.random.default_rng(0)
    for seed in range(20):
        image = render(random_identity(rng), random_scene(rng), seed, size=24, samples=1)
        assert image.std() > 10.0


def test_landmarks_lie_in_the_picture_in_mtcnn_order():
    left_eye, right_eye, nose, left_mouth, right_mouth = landmarks(AVERAGE, FRONT, seed=0)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1] < 1.0


def test_a_positive_yaw_turns_the_nose_to_the_right_of_the_eyes_middle():
    for yaw, sign in ((25.0, 1.0), (-25.0, -1.0)):
        left, right, nose, *_ = landmarks(AVERAGE, replace(FRONT, yaw=yaw), seed=0)
        assert sign * (nose[0] - (left[0] + right[0]) / 2) > 0.02


def test_the_eyes_of_the_picture_are_where_the_landmarks_say():
    size = 128
    image = render(AVERAGE, FRONT, seed=5, size=size).astype(float)
    for x, y in landmarks(AVERAGE, FRONT, seed=5)[:2] * size:
        patch = image[int(y) - 3 : int(y) + 4, int(x) - 4 : int(x) + 5]
        # Blue eyes: nowhere else on the face is blue above red.
        assert (patch[..., 2] - patch[..., 0]).max() > 40.0


def test_attributes_follow_the_numbers():
    identity = replace(
        AVERAGE, hair_length=0.9, brow_thickness=0.9, nose_width=0.1, lip_fullness=0.9, parting="left side"
    )
    scene = replace(FRONT, yaw=-15.0, pitch=9.0)
    words = attributes(identity, scene)
    assert words["face"] == "oval"
    assert words["hair_length"] == "long"
    assert words["brows"] == "thick"
    assert words["nose"] == "delicate"
    assert words["lips"] == "full"
    assert words["parting"] == "side-parted on the left"
    assert words["pose"] == "turned slightly to the left, looking up"
    assert words["dress"] == "red t-shirt"


def test_importing_the_module_compiles_nothing():
    code = (
        "from valentina_pipeline.image.renderer import kernel\n"
        "assert not kernel.draw.signatures and not kernel.front_depth.signatures"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_prompt_in_the_words_of_attributes_says_the_same_scene():
    rng = np.random.default_rng(3)
    for seed in range(200):
        scene = random_scene(rng)
        said = attributes(AVERAGE, scene)
        again = attributes(AVERAGE, parse_scene(caption_from_traits(said, "woman"), seed))
        assert again == said


def test_what_a_prompt_leaves_open_is_the_seed_s():
    free = "a woman laughs in a blue dress at the beach, grey hair"
    scenes = [parse_scene(free, seed) for seed in range(20)]
    assert {(s.expression, s.dress_color, s.dress, s.background) for s in scenes} == {
        ("laughing", "blue", "dress", "beach")
    }
    assert len({s.light for s in scenes}) > 1
    assert parse_scene(free, 3) == scenes[3]
