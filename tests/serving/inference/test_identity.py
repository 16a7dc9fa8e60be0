"""Whether a face is hers, by the tiny world's own networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import portraits
from valentina_pipeline.config.base_model import FaceEmbedderConfig
from valentina_pipeline.image.faces.canonical_crop import face_crop
from valentina_pipeline.image.faces.detection import detect_faces
from valentina_pipeline.image.faces.embedding import load_face_embedder
from valentina_pipeline.image.renderer.traits import random_scene
from valentina_pipeline.serving.inference import identity
from valentina_pipeline.serving.inference.package import PackageInfo, read

WEIGHTS = Path(__file__).parents[3] / "tiny/weights"


@pytest.fixture(scope="module")
def about(package: Path) -> PackageInfo:
    """The package, of the woman of `portraits`."""
    about = read(package)
    network = load_face_embedder("tiny", WEIGHTS / "faces.safetensors")
    pictures = [portraits.picture(n) for n in range(2)]
    crops = [face_crop(one, detect_faces([one])[0][0], network.size) for one in pictures]
    chosen = FaceEmbedderConfig(kind="tiny", path="weights/faces.safetensors")
    return replace(
        about,
        base=about.base.model_copy(update={"face_embedder": chosen}),
        identity=replace(about.identity, mean=tuple(map(float, network.embed(crops).mean(axis=0)))),
    )


def test_her_face_is_more_like_her_than_another_s_and_no_face_is_nobody(about: PackageInfo) -> None:
    her = identity.load_identity_scorer(about, WEIGHTS.parent)
    assert her is not None
    (own, _), (other, _) = (her.score(portraits.picture(2, woman), "smiling") for woman in (0, 1))
    assert own is not None and other is not None
    assert own > 0.7 > 0.4 > other
    grey = Image.new("RGB", (128, 128), "grey")
    assert her.score(grey, "smiling")[0] is None
    assert her.all_of(grey) == []
    both = Image.fromarray(np.hstack([np.asarray(portraits.picture(2)), np.asarray(portraits.picture(3))]))
    assert len(her.all_of(both)) == 2


def test_without_the_network_nothing_is_measured_and_the_log_says_so(
    about: PackageInfo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert identity.load_identity_scorer(replace(about, folder=tmp_path), tmp_path) is None
    assert "not compared with Valentina Moreau's portraits" in caplog.text


def test_attributes_of_the_prompt_are_read_from_the_image(about: PackageInfo) -> None:
    scorer = identity.load_identity_scorer(about, WEIGHTS.parent)
    assert scorer is not None
    true = random_scene(np.random.default_rng([5, 2]))
    place, turn = "place", "side of the turn"
    _, readings = scorer.score(portraits.picture(2), f"facing the camera, {true.background} background")
    assert readings == (
        identity.AttributeReading(turn, "to the camera", "to the camera"),
        identity.AttributeReading(place, true.background, true.background),
    )
    _, readings = scorer.score(Image.new("RGB", (128, 128), "grey"), "turned to the left, in a garden")
    assert [(r.name, r.requested, r.seen == r.requested) for r in readings] == [
        (turn, "left", False), (place, "green garden", False),
    ]  # fmt: skip
