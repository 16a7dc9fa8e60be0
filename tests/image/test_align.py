import math

import numpy as np
import pytest
from PIL import Image

from portraits import noise, picture
from valentina_pipeline.config import AlignConfig
from valentina_pipeline.image.align import (
    FACE_COLUMNS,
    Aligned,
    NoPortraits,
    Square,
    align,
    cut,
    flag_outliers,
    main_face,
    portrait_square,
)
from valentina_pipeline.image.faces import Face, FaceEmbedder, find_faces

CFG = AlignConfig(resolution=128, min_face_probability=0.9, margin=2.0, outlier_distance=0.6)


class Colours(FaceEmbedder):
    """Tells people apart by the colour of their crop: enough for a test, and exact."""

    def __init__(self) -> None:
        super().__init__(64, lambda faces: faces, 1.0)

    def embed(self, crops: list[Image.Image]) -> np.ndarray:  # type: ignore[override]
        means = np.stack([np.asarray(crop, np.float32).mean(axis=(0, 1)) for crop in crops])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def face(box: tuple[float, float, float, float], probability: float = 1.0, roll: float = 0.0) -> Face:
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    offsets = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]]) * [w, h]
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return Face(box, probability, offsets @ turn.T + [x, y])


def test_the_largest_of_a_face_and_a_passer_by_is_the_main_face() -> None:
    large, small = face((0, 0, 100, 100)), face((200, 0, 240, 40))
    assert main_face([large, small], 0.9) is large


def test_a_second_face_of_a_quarter_of_the_area_makes_two() -> None:
    assert main_face([face((0, 0, 100, 100)), face((200, 0, 250, 50))], 0.9) == "two faces"


def test_unsure_faces_do_not_count() -> None:
    assert main_face([face((0, 0, 100, 100), 0.8)], 0.9) == "no face"
    sure = face((0, 0, 50, 50), 0.95)
    assert main_face([face((0, 0, 100, 100), 0.8), sure], 0.9) is sure


def test_the_square_is_margin_faces_high_around_the_face_with_the_eyes_level() -> None:
    square = portrait_square(face((400, 300, 500, 400), roll=0.2), 2.0, (1000, 1000))
    assert square.centre == (450, 350) and square.side == 200 and square.angle == pytest.approx(0.2)


def test_a_square_that_would_reach_out_is_moved_inside_and_at_most_a_seventh_smaller() -> None:
    assert portrait_square(face((0, 0, 100, 100)), 2.0, (1000, 1000)).centre == (100, 100)
    assert portrait_square(face((40, 40, 140, 140)), 2.0, (180, 1000)).side == 180
    tight = portrait_square(face((0, 0, 100, 100)), 2.0, (120, 1000))
    assert tight.side == pytest.approx(200 * 6 / 7) and tight.centre[0] == 50


def test_a_cut_of_the_whole_picture_is_the_picture() -> None:
    image = noise(1, 128, 128)
    whole = Square((63.5, 63.5), 128, 0.0)
    assert np.array_equal(np.asarray(cut(image, whole, 128)), np.asarray(image))


def test_a_cut_undoes_a_turn() -> None:
    image = noise(1, 400, 400)
    turned = image.rotate(-20, Image.Resampling.BICUBIC)  # clockwise, as a head tilts to its left
    straight = cut(image, Square((199.5, 199.5), 200, 0.0), 100)
    level = cut(turned, Square((199.5, 199.5), 200, math.radians(20)), 100)
    assert np.abs(np.asarray(straight, int) - np.asarray(level, int)).mean() < 2


def test_a_cut_beyond_the_edge_goes_on_with_the_edges_colour() -> None:
    image = Image.new("RGB", (100, 100), (10, 200, 30))
    assert cut(image, Square((0, 0), 80, 0.3), 64).getextrema() == ((10, 10), (200, 200), (30, 30))


def test_fine_stripes_become_grey_and_not_a_pattern() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = np.asarray(cut(Image.fromarray(stripes), Square((499.5, 499.5), 900, 0.0), 90), int)
    assert shown[10:-10, 10:-10].min() > 115 and shown[10:-10, 10:-10].max() < 140


def test_a_stranger_is_an_outlier_and_the_others_are_not() -> None:
    rng = np.random.default_rng(0)
    hers = [np.array([1, 0, 0]) + rng.normal(0, 0.05, 3) for _ in range(6)]
    vectors = [v / np.linalg.norm(v) for v in [*hers, np.array([0, 1, 0])]]
    found = [Aligned(str(i), embedding=v.astype(np.float32)) for i, v in enumerate(vectors)]

    judged = flag_outliers([*found, Aligned("none", "no face")], 0.5)

    assert [a.reason for a in judged] == [""] * 6 + ["identity outlier", "no face"]
    assert judged[6].outlier_distance > 0.9 > 0.1 > max(a.outlier_distance for a in judged[:6])
    assert math.isnan(judged[7].outlier_distance)


def test_portraits_are_cut_and_everything_else_has_its_reason() -> None:
    both = Image.new("RGB", (512, 256))
    both.paste(picture(0), (0, 0))
    both.paste(picture(1, woman=1), (256, 0))
    # tilted by 20 degrees, on a page with room for it
    images = {"a": picture(0), "b": picture(1), "c": picture(2, roll=10), "d": both, "e": noise(3, 256, 256)}
    splits = {"a": "held_out", "b": "train", "c": "train", "d": "train", "e": "held_out"}

    portraits, frame, sheet = align(images, splits, CFG, Colours())

    assert list(frame.columns) == list(FACE_COLUMNS)
    assert dict(zip(frame["sha256"], frame["reason"], strict=True)) == {
        "a": "", "b": "", "c": "", "d": "two faces", "e": "no face"
    }  # fmt: skip
    assert list(portraits) == ["a", "b", "c"] and list(frame["kept"]) == [True, True, True, False, False]
    assert list(frame["split"]) == list(splits.values())
    assert sheet.width > sheet.height > 200
    for row in frame[frame["kept"]].to_dict("records"):
        image = portraits[str(row["sha256"])]
        assert image.size == (128, 128) and abs(row["ly0"] - row["ly1"]) < 0.05  # level
        (again,) = find_faces([image])[0]
        told = np.array([[row[f"lx{i}"], row[f"ly{i}"]] for i in range(5)])
        assert np.abs(again.landmarks - told).max() < 6
        assert row["y1"] - row["y0"] == pytest.approx(64, rel=0.17)


def test_when_no_face_is_left_the_error_says_why() -> None:
    with pytest.raises(NoPortraits, match=r"none is left to train on: no face \(2\)"):
        align({"a": noise(1), "b": noise(2)}, {"a": "train", "b": "held_out"}, CFG, Colours())


def test_without_a_held_out_portrait_there_is_nothing_to_measure_against() -> None:
    with pytest.raises(NoPortraits, match="none is left to measure against: too few pictures"):
        align({"a": picture(0)}, {"a": "train"}, CFG, Colours())
