from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from packages import stage
from portraits import picture
from valentina_pipeline.config import BadParameter
from valentina_pipeline.image.missing import MissingModel
from valentina_pipeline.image.tiny_models import FaceNetTiny
from valentina_pipeline.pipelines.align.nodes import align_portraits

ALIGN = {**stage("align"), "outlier_distance": 2.0}
TINY = {"kind": "tiny", "path": "tiny/weights/faces.safetensors"}
MANIFEST = pd.DataFrame(
    {"sha256": ["a", "b"], "source_name": ["a.png", "b.png"], "phash": ["0" * 16, "f" * 16]}
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The folder tiny/weights of a project, with a random embedder."""
    folder = tmp_path / "tiny" / "weights"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(FaceNetTiny().state_dict(), folder / "faces.safetensors")
    return folder


def test_aligned_portraits_faces_and_sheet_are_the_same_again(weights: Path, tmp_path: Path) -> None:
    images = {"a": picture(0), "b": picture(1)}
    aligned, faces, sheet = align_portraits(images, MANIFEST, weights, ALIGN, TINY)
    again = align_portraits(images, MANIFEST, weights, ALIGN, TINY)

    assert list(aligned) == ["a", "b"] and faces["kept"].all()
    assert np.isclose([np.linalg.norm(e) for e in faces["embedding"]], 1, atol=1e-5).all()
    assert np.array_equal(np.asarray(sheet), np.asarray(again[2]))
    for number, frame in enumerate((faces, again[1])):
        frame.to_parquet(tmp_path / f"{number}.parquet")
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()
    assert len(pd.read_parquet(tmp_path / "0.parquet")["embedding"][0]) == 128


def test_a_missing_embedder_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match=r"tiny/weights/faces\.safetensors"):
        align_portraits({}, MANIFEST, tmp_path / "tiny" / "weights", ALIGN, TINY)


def test_a_parameter_out_of_range_is_named(weights: Path) -> None:
    with pytest.raises(BadParameter, match=r"align\.margin"):
        align_portraits({}, MANIFEST, weights, {**ALIGN, "margin": 0.5}, TINY)
