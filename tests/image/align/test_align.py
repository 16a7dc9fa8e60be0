import math
import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from packages import stage
from portraits import noise, picture
from valentina_pipeline.config.align import AlignConfig
from valentina_pipeline.domain.manifest import apply_review, assign_splits
from valentina_pipeline.image.align.align import align, flag_outliers, main_face, rejection_reason
from valentina_pipeline.image.align.head_pose import Pose
from valentina_pipeline.image.align.person import person_score
from valentina_pipeline.image.align.portrait_crop import Crop, apply_crop, portrait_crop
from valentina_pipeline.image.align.result import FACE_COLUMNS, Aligned
from valentina_pipeline.image.align.sufficiency import TooFewPortraitsError, check_portraits
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.embedding import FaceEmbedder

CFG = AlignConfig.model_validate(stage("align"))


class Colours(FaceEmbedder):
    """Tells people apart by the colour of their crop: enough for a test, and exact."""

    def __init__(self) -> None:
        super().__init__(64, lambda faces: faces, 1.0)

    def embed(self, crops: list[Image.Image]) -> np.ndarray:  # type: ignore[override]
        means = np.stack([np.asarray(crop, np.float32).mean(axis=(0, 1)) for crop in crops])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def named(images: Mapping[str, Image.Image]) -> dict[str, str]:
    return {name: f"{name}.png" for name in images}


def face(box: tuple[float, float, float, float], probability: float = 1.0, roll: float = 0.0) -> Face:
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    offsets = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]]) * [w, h]
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return Face(box, probability, offsets @ turn.T + [x, y])


def test_the_largest_of_a_face_and_a_passer_by_is_the_main_face() -> None:
    large, small = face((0, 0, 100, 100)), face((200, 0, 240, 40))
    assert main_face([large, small], 0.9) is large


def test_a_second_face_of_a_quarter_of_the_area_makes_two() -> None:
    two = main_face([face((0, 0, 100, 100)), face((200, 0, 250, 50))], 0.9)
    assert two == "two faces: the second is 0.25 of the largest, less than 0.25 is required"
    six = [face((200 * i, 0, 200 * i + 100, 100)) for i in range(6)]
    assert str(main_face([*six, face((0, 200, 10, 210))], 0.9)).startswith("six faces: ")
    assert str(main_face(six * 3, 0.9)).startswith("18 faces: ")


def test_unsure_faces_do_not_count() -> None:
    limit = "at least 0.9 (align.min_detection_confidence) is required"
    said = f"no face: the best detection has probability 0.80, {limit}"
    assert main_face([face((0, 0, 100, 100), 0.8)], 0.9) == said
    assert main_face([], 0.9) == "no face"
    sure = face((0, 0, 50, 50), 0.95)
    assert main_face([face((0, 0, 100, 100), 0.8), sure], 0.9) is sure


def test_the_square_is_margin_faces_high_around_the_face_with_the_eyes_level() -> None:
    square = portrait_crop(face((400, 300, 500, 400), roll=0.2), "face", 2.0, (1000, 1000))
    assert (
        square.center == (450, 350)
        and square.width == square.height == 200
        and square.angle == pytest.approx(0.2)
    )


def test_a_square_that_would_reach_out_is_moved_inside_and_at_most_a_seventh_smaller() -> None:
    assert portrait_crop(face((0, 0, 100, 100)), "face", 2.0, (1000, 1000)).center == (100, 100)
    assert portrait_crop(face((40, 40, 140, 140)), "face", 2.0, (180, 1000)).width == 180
    tight = portrait_crop(face((0, 0, 100, 100)), "face", 2.0, (120, 1000))
    assert tight.width == pytest.approx(200 * 6 / 7) and tight.center[0] == 50


def test_a_cut_of_the_whole_picture_is_the_picture() -> None:
    image = noise(1, 128, 128)
    whole = Crop((63.5, 63.5), 128, 128, 0.0)
    assert np.array_equal(np.asarray(apply_crop(image, whole, 128)), np.asarray(image))


def test_a_cut_undoes_a_turn() -> None:
    image = noise(1, 400, 400)
    turned = image.rotate(-20, Image.Resampling.BICUBIC)  # clockwise, as a head tilts to its left
    straight = apply_crop(image, Crop((199.5, 199.5), 200, 200, 0.0), 100)
    level = apply_crop(turned, Crop((199.5, 199.5), 200, 200, math.radians(20)), 100)
    assert np.abs(np.asarray(straight, int) - np.asarray(level, int)).mean() < 2


def test_a_cut_beyond_the_edge_goes_on_with_the_edges_colour() -> None:
    image = Image.new("RGB", (100, 100), (10, 200, 30))
    assert apply_crop(image, Crop((0, 0), 80, 80, 0.3), 64).getextrema() == ((10, 10), (200, 200), (30, 30))


def test_fine_stripes_become_grey_and_not_a_pattern() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = np.asarray(apply_crop(Image.fromarray(stripes), Crop((499.5, 499.5), 900, 900, 0.0), 90), int)
    assert shown[10:-10, 10:-10].min() > 115 and shown[10:-10, 10:-10].max() < 140


def test_a_stranger_is_an_outlier_and_the_others_are_not() -> None:
    rng = np.random.default_rng(0)
    hers = [np.array([1, 0, 0]) + rng.normal(0, 0.05, 3) for _ in range(6)]
    vectors = [v / np.linalg.norm(v) for v in [*hers, np.array([0, 1, 0])]]
    found = [Aligned(str(i), embedding=v.astype(np.float32)) for i, v in enumerate(vectors)]

    judged = flag_outliers([*found, Aligned("none", "no face")], 0.5)

    assert [a.reason for a in judged] == [""] * 6 + [judged[6].reason, "no face"]
    assert (
        judged[6].reason
        == "identity outlier: distance 1.01, at most 0.5 (align.max_identity_distance) is required"
    )
    assert judged[6].identity_distance > 0.9 > 0.1 > max(a.identity_distance for a in judged[:6])
    assert math.isnan(judged[7].identity_distance)


def test_portraits_are_cut_and_everything_else_has_its_reason() -> None:
    both = Image.new("RGB", (512, 256))
    both.paste(picture(0), (0, 0))
    both.paste(picture(1, woman=1), (256, 0))
    # tilted by 20 degrees, on a page with room for it
    images = {"a": picture(0), "b": picture(1), "c": picture(2, roll=10), "d": both, "e": noise(3, 256, 256)}

    portraits, frame, sheet = align(images, named(images), CFG, Colours(), each=map)

    assert list(frame.columns) == list(FACE_COLUMNS)
    assert frame["reason"].str.partition(":")[0].tolist() == ["", "", "", "two faces", "no face"]
    assert list(portraits) == ["a", "b", "c"] and list(frame["accepted"]) == [True, True, True, False, False]
    assert list(frame["split"]) == ["held_out", "train", "train", "", ""]
    assert sheet.width > sheet.height > 200
    for row in frame[frame["accepted"]].to_dict("records"):
        image = portraits[str(row["sha256"])]
        assert image.size == (128, 128) and abs(row["ly0"] - row["ly1"]) < 0.05  # level
        (again,) = detect_faces([image])[0]
        told = np.array([[row[f"lx{i}"], row[f"ly{i}"]] for i in range(5)])
        assert np.abs(again.landmarks - told).max() < 6
        assert row["y1"] - row["y0"] == pytest.approx(64, rel=0.17)


def test_when_no_face_is_left_table_and_sheet_are_made_and_the_error_names_files_and_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = {"a": noise(1, 200, 200), "b": noise(2, 200, 200)}
    portraits, frame, sheet = align(images, named(images), CFG, Colours(), each=map)
    assert len(portraits) == 0 and len(frame) == 2 and sheet.width > 200
    assert "left out a.png: no face" in caplog.text
    with pytest.raises(TooFewPortraitsError) as caught:
        check_portraits(frame, named(images))
    said = str(caught.value)
    assert "is left for training: 0 can be used" in said and "no face (2): add images" in said
    assert "a.png" in said and "b.png" in said


def test_without_a_held_out_portrait_there_is_nothing_to_measure_against() -> None:
    _, frame, _ = align({"a": picture(0)}, {"a": "a.png"}, CFG, Colours(), each=map)
    with pytest.raises(TooFewPortraitsError, match="is left for evaluation: 1 can be used"):
        check_portraits(frame, {"a": "a.png"})


def test_whatever_is_left_out_a_fifth_of_the_portraits_is_held_out() -> None:
    names = [f"{i:02d}" for i in range(20)]
    frame = pd.DataFrame({"sha256": names, "accepted": [i >= 10 for i in range(20)], "reason": ""})
    divided_once = assign_splits(frame)
    assert divided_once.loc[divided_once["split"] == "held_out", "sha256"].tolist() == ["10", "11"]
    assert (divided_once["split"] == "").sum() == 10 and (divided_once["split"] == "train").sum() == 8
    said = pd.DataFrame({"sha256": ["10", "11"], "caption": "", "rejected": True})
    again = apply_review(divided_once, said)
    assert again.loc[again["split"] == "held_out", "sha256"].tolist() == ["12", "13"]


def test_a_face_of_which_only_mtcnn_is_sure_is_no_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    images = {"a": picture(0), "b": picture(1)}
    monkeypatch.setattr(sys.modules[align.__module__], "person_score", lambda image, face: 0.42)
    _, frame, _ = align(images, named(images), CFG, Colours(), each=map)
    assert set(frame["reason"]) == {
        "no person's face: score 0.42, at least 0.55 (align.min_person) is required"
    }
    both = Image.new("RGB", (512, 256))
    both.paste(picture(0), (0, 0))
    both.paste(picture(1, woman=1), (256, 0))
    # of a woman and a dog, the woman is taken
    monkeypatch.setattr(
        sys.modules[align.__module__], "person_score", lambda image, face: 0.9 if face.box[0] < 256 else 0.4
    )
    _, frame, _ = align({"a": both}, {"a": "a.png"}, CFG, Colours(), each=map)
    assert frame["accepted"].all()


@pytest.mark.parametrize(("index", "woman"), [(0, 0), (1, 1), (5, 0)])
def test_a_rendered_woman_is_a_person_and_what_is_no_face_is_none(index: int, woman: int) -> None:
    image = picture(index, woman=woman)
    (found,) = detect_faces([image])[0]
    assert person_score(image, found) >= 0.6
    # the same place, with nothing of a face in it
    assert person_score(noise(index, 256, 256), found) < 0.3


def test_a_face_that_is_none_to_learn_from_is_left_out_with_the_figure() -> None:
    clear = picture(0, size=512)
    (whole,) = detect_faces([clear])[0]
    x0, y0, x1, y1 = whole.box
    masked = clear.copy()
    height = y1 - y0
    ImageDraw.Draw(masked).rectangle((x0, y0 + 0.58 * height, x1, y1), fill=(235, 240, 245))
    images = {"a": clear, "b": picture(1, size=512), "c": masked, "d": clear.resize((96, 96))}
    portraits, frame, _ = align(images, named(images), CFG, Colours(), each=map)
    reasons = dict(zip(frame["sha256"], frame["reason"], strict=True))
    assert list(portraits) == ["a", "b"]
    assert reasons["c"].startswith("face partly hidden: contrast 0.0") and reasons["d"].startswith(
        "small face: "
    )


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_yaw": 20}, "turned away: yaw"),
        ({"max_pitch": 10}, "looks up or down: pitch"),
        ({"max_landmark_error": 0.001}, "no whole face: landmark error"),
    ],
)
def test_each_limit_of_the_pose_leaves_out_what_is_beyond_it(limits: dict[str, float], said: str) -> None:
    pose = Pose(yaw=-30, pitch=15, roll=0, landmark_error=0.05)
    assert rejection_reason(face((0, 0, 200, 200)), pose, 0.5, CFG) == ""
    assert rejection_reason(face((0, 0, 200, 200)), pose, 0.5, CFG.model_copy(update=limits)).startswith(said)


def test_a_bust_is_wider_and_has_the_face_in_its_upper_part() -> None:
    here = face((400, 200, 500, 300))
    bust = portrait_crop(here, "bust", 2.0, (1000, 1000))
    assert (bust.width, bust.height) == (360, 360)
    middle = bust.matrix((128, 128)) @ [450, 250, 1]
    assert middle == pytest.approx([63.5, 63.5 - 0.16 * 128])


def test_in_full_a_picture_keeps_its_proportions_and_its_face_is_where_it_was() -> None:
    wide = Image.new("RGB", (600, 400))
    wide.paste(picture(0, size=400), (100, 0))
    cfg = CFG.model_copy(update={"crop": "full", "min_face_side": 20})
    portraits, frame, _ = align(
        {"a": wide, "b": wide}, {"a": "a.png", "b": "b.png"}, cfg, Colours(), each=map
    )
    assert portraits["a"].size == (157, 105) and portraits["a"].width * portraits["a"].height < 1.01 * 128**2
    (found,) = detect_faces([wide])[0]
    expected = np.array(found.box) * 157 / 600
    assert frame.loc[0, ["x0", "y0", "x1", "y1"]].to_list() == pytest.approx(expected.tolist(), abs=1)


def test_whose_face_it_is_does_not_depend_on_what_the_portrait_shows() -> None:
    images = {"a": picture(0, size=400), "b": picture(1, size=400)}
    whole = CFG.model_copy(update={"crop": "full"})
    near, far = (
        align(images, named(images), cfg, Colours(), each=map)[1]["embedding"] for cfg in (CFG, whole)
    )
    assert all(np.array_equal(one, other) for one, other in zip(near, far, strict=True))


def test_another_crop_of_one_photograph_is_left_out_and_another_moment_is_not() -> None:
    from valentina_pipeline.image.ingest.screening import perceptual_hash

    shot = picture(0, size=512)
    images = {"a": shot, "b": shot.crop((10, 5, 502, 497)), "c": picture(3, size=512)}
    hashes = {name: perceptual_hash(image) for name, image in images.items()}
    assert bin(int(hashes["a"], 16) ^ int(hashes["b"], 16)).count("1") > 3  # ingest lets it pass
    portraits, frame, _ = align(images, named(images), CFG, Colours(), each=map, hashes=hashes)
    assert list(portraits) == ["a", "c"]
    assert frame["reason"].tolist() == ["", "near duplicate: the same moment as a.png", ""]
