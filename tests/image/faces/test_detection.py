from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from PIL import Image
from safetensors.torch import load_file, save_file

from portraits import noise, picture
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.common.threads import one_thread
from valentina_pipeline.image.faces.canonical_crop import CANONICAL, crop_matrix, face_crop
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.embedding import load_face_embedder
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny, to_network


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny embedder, as float16."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "faces.safetensors"
    save_file({k: v.half().contiguous() for k, v in FaceNetTiny().state_dict().items()}, path)
    return path


def test_a_face_is_found_with_its_landmarks_in_order() -> None:
    (face,) = detect_faces([picture(0)])[0]
    (left, right, nose, mouth_left, mouth_right) = face.landmarks

    assert face.probability > 0.95
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    assert face.box[0] < left[0] and right[0] < face.box[2]


def test_a_picture_without_a_face_has_none_however_small() -> None:
    assert detect_faces([noise(1, 200, 200), Image.new("RGB", (128, 128)), Image.new("RGB", (5, 300))]) == [
        [],
        [],
        [],
    ]


def test_two_faces_come_with_the_larger_one_first() -> None:
    both = Image.new("RGB", (256 + 160, 256), "grey")
    both.paste(picture(1, woman=1).resize((160, 160)), (0, 48))
    both.paste(picture(0), (160, 0))

    faces = detect_faces([both])[0]

    assert len(faces) == 2 and faces[0].area > faces[1].area
    assert faces[0].box[0] > 160 > faces[1].box[2]


def test_a_large_picture_is_searched_small_and_answered_in_its_own_pixels() -> None:
    small = detect_faces([picture(0)])[0][0]
    large = detect_faces([picture(0).resize((1536, 1536), Image.Resampling.BICUBIC)])[0][0]
    assert np.abs(large.landmarks / 6 - small.landmarks).max() < 6


def test_a_faces_figures_do_not_depend_on_the_pictures_beside_it() -> None:
    alone = detect_faces([picture(0)])[0][0]
    among = detect_faces([picture(1), picture(0)])[1][0]
    assert alone.box == among.box and np.array_equal(alone.landmarks, among.landmarks)


def test_the_crop_brings_eyes_and_mouth_to_their_places_from_any_similar_pose() -> None:
    ideal = (
        np.array([CANONICAL[0], CANONICAL[1], [0.5, 0.6], CANONICAL[2] - [0.1, 0], CANONICAL[2] + [0.1, 0]])
        * 64
    )
    angle = 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    there = 3.5 * ideal @ turn.T + [40, -7]
    matrix = crop_matrix(there, 64)

    assert np.allclose(there @ matrix[:, :2].T + matrix[:, 2], ideal)


@pytest.mark.parametrize("size", [256, 700])
def test_the_crop_of_a_turned_and_scaled_picture_is_nearly_the_same(size: int) -> None:
    image = picture(0)
    (face,) = detect_faces([image])[0]
    larger = image.resize((size, size), Image.Resampling.BICUBIC).transpose(Image.Transpose.ROTATE_90)
    scale = size / 256
    # a quarter turn against the clock brings (x, y) to (y, width - 1 - x); pixel centres are whole numbers
    x, y = face.landmarks.T
    points = (np.stack([y, 255 - x], axis=1) + 0.5) * scale - 0.5
    crops = face_crop(image, face, 64), face_crop(larger, Face(face.box, 1.0, points), 64)

    assert crops[0].size == (64, 64)
    assert np.abs(np.asarray(crops[0], int) - np.asarray(crops[1], int)).mean() < 6


def test_the_tiny_embedder_gives_the_networks_own_unit_vectors(tiny: Path) -> None:
    crops = [noise(i, 64, 64) for i in range(3)]
    load = load_face_embedder("tiny", tiny)
    vectors = load.embed(crops)
    network = FaceNetTiny()
    network.load_state_dict({k: v.float() for k, v in load_file(tiny).items()})
    with torch.no_grad():
        expected = network(to_network(torch.from_numpy(np.stack([np.asarray(c) for c in crops])))).numpy()

    assert vectors.dtype == np.float32 and vectors.shape == (3, 128)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, expected, atol=1e-5)
    assert np.array_equal(load.embed(crops[2:]), vectors[2:])


def test_crops_of_another_size_are_fitted_and_none_is_an_error(tiny: Path) -> None:
    assert load_face_embedder("tiny", tiny).embed([noise(1, 160, 160)]).shape == (1, 128)
    with pytest.raises(ValueError, match="no face crops"):
        load_face_embedder("tiny", tiny).embed([])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_facenet_loads_published_weights_and_leaves_their_classifier(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    state = InceptionResnetV1(pretrained=None, classify=False).state_dict()
    state["logits.weight"] = torch.zeros(10, 512)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)

    vectors = load_face_embedder("facenet", path).embed([noise(1, 160, 160)])

    assert vectors.shape == (1, 512) and np.isclose(np.linalg.norm(vectors), 1, atol=1e-5)


def test_a_pickled_program_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv": Path("anything")}, tmp_path / "w.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_face_embedder("facenet", tmp_path / "w.pt")


def test_missing_weights_are_an_error_that_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingModelError, match=r"VGGFace2.*https://github.com/timesler.*vggface2\.pt"):
        load_face_embedder("facenet", "vggface2")
    with pytest.raises(MissingModelError, match="git checkout"):
        load_face_embedder("tiny", tmp_path / "faces.safetensors")


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
