from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from packages import stage
from portraits import picture
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.config.validation import InvalidParameterError
from valentina_pipeline.image.align.align import Portraits
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny
from valentina_pipeline.pipelines.align.nodes import align_portraits

ALIGN = {**stage("align"), "max_identity_distance": 2.0}
TINY = {"kind": "tiny", "path": "tiny/weights/faces.safetensors"}
MANIFEST = pd.DataFrame(
    {"sha256": ["a", "b"], "source_name": ["a.png", "b.png"], "phash": ["0" * 16, "f" * 16]}
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project with a random embedder."""
    folder = tmp_path / "tiny" / "weights"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(FaceNetTiny().state_dict(), folder / "faces.safetensors")
    return tmp_path


def align(place: Path, images: dict[str, Image.Image], masks: dict[str, Image.Image], **settings: Any) -> Any:
    return align_portraits(
        images, masks, MANIFEST, place, place / "tiny/weights", {**ALIGN, **settings}, TINY
    )


def test_aligned_portraits_faces_and_sheet_are_the_same_again(place: Path, tmp_path: Path) -> None:
    images = {"a": picture(0), "b": picture(1)}
    aligned, faces, sheet, masks = align(place, images, {})
    again = align(place, images, {})

    assert list(aligned) == ["a", "b"] and faces["accepted"].all() and not list(masks)
    assert np.isclose([np.linalg.norm(e) for e in faces["embedding"]], 1, atol=1e-5).all()
    assert np.array_equal(np.asarray(sheet), np.asarray(again[2]))
    for number, frame in enumerate((faces, again[1])):
        frame.to_parquet(tmp_path / f"{number}.parquet")
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()
    assert len(pd.read_parquet(tmp_path / "0.parquet")["embedding"][0]) == 128


@pytest.mark.parametrize("crop", ["face", "bust", "full"])
def test_a_mask_is_cut_as_its_picture_is(crop: str, place: Path) -> None:
    shown = picture(0, size=256)
    mask = Image.new("L", shown.size)
    mask.paste(255, (0, 0, 128, 256))
    images = {"a": shown, "b": picture(1, size=256)}
    aligned, _, _, masks = align(place, images, {"a": mask, "gone": mask}, crop=crop)
    # the picture's own pixels, cut with a left half that nothing else has the color of
    painted = shown.copy()
    painted.paste((0, 255, 0), (0, 0, 128, 256))
    known = Portraits({"a": painted}, {"a": aligned._crops["a"]}, aligned._size, lambda image: image)
    ((name, made),) = masks
    assert name == "a" and made.mode == "L" and made.size == aligned["a"].size
    green = np.asarray(known["a"]).astype(int) @ [-1, 1, -1] > 128
    assert (green == (np.asarray(made) > 128)).mean() > 0.98
    assert 0.2 < green.mean() < 0.8 and {0, 255} <= set(np.asarray(made).ravel().tolist())


def test_a_missing_embedder_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"tiny/weights/faces\.safetensors"):
        align(tmp_path, {}, {})


def test_a_parameter_out_of_range_is_named(place: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"align\.crop_scale"):
        align(place, {}, {}, crop_scale=0.5)
