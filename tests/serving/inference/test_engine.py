"""An opened package: what it checks, what it draws, what it refuses."""

import base64
import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageChops

import packages
from untraced import untraced
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.domain.samplers import SAMPLERS
from valentina_pipeline.image.io import png
from valentina_pipeline.image.provenance.watermark import detect
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.release.checksums import sha256sums
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.package import InvalidPackageError, read
from valentina_pipeline.serving.inference.pyfunc import Model, _load_pyfunc
from valentina_pipeline.serving.inference.request import GenerationRequest, from_png_text


@pytest.fixture(scope="module")
def studio(package: Path) -> InferenceEngine:
    return InferenceEngine.open(package)


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "package")


def difference(one: Image.Image | None, other: Image.Image | None) -> int:
    """Return by how much the two differ where they differ most, of 255."""
    assert one is not None
    assert other is not None
    extremes = ImageChops.difference(one, other).getextrema()
    return max(int(high) for _, high in extremes)  # type: ignore[misc]


def drawn(studio: InferenceEngine, **fields: object) -> Image.Image:
    (one,) = studio.generate(
        GenerationRequest(**{"prompt": "smiling", "preset": "draft", "seed": 3, **fields})
    )  # type: ignore[arg-type]
    assert one.image is not None
    return one.image


def test_a_request_gives_the_same_image_alone_and_among_others(studio: InferenceEngine) -> None:
    alone = drawn(studio)
    first, second = studio.generate(GenerationRequest(prompt="smiling", preset="draft", seed=3, num_images=2))
    assert difference(alone, first.image) <= 3  # batches round differently
    assert difference(alone, second.image) > 30
    assert difference(second.image, drawn(studio, seed=4)) <= 3


def test_what_is_asked_for_beats_the_preset(studio: InferenceEngine) -> None:
    image = drawn(studio, width=96, height=64, steps=1, guidance_scale=2.0)
    assert image.size == (96, 64)
    marks = image.info["text"]
    assert (marks["steps"], marks["guidance_scale"], marks["width"], marks["preset"]) == (
        "1",
        "2.0",
        "96",
        "draft",
    )


@pytest.mark.parametrize("scheduler", sorted(SAMPLERS.keys() - {"default"}))
def test_every_sampler_draws_another_picture_than_the_base_s_own(
    studio: InferenceEngine, scheduler: str
) -> None:
    own = drawn(studio, steps=4, scheduler="default")
    image = drawn(studio, steps=4, scheduler=scheduler)
    assert np.isfinite(np.asarray(image)).all()
    same = scheduler == "euler"  # which the test's base ships with
    assert (difference(image, own) == 0) == same
    assert difference(own, drawn(studio, steps=4, scheduler="default")) == 0  # it is put back


def test_an_image_s_file_is_enough_to_draw_it_again(studio: InferenceEngine) -> None:
    settings = {
        "steps": 2,
        "guidance_scale": 2.5,
        "width": 72,
        "scheduler": "euler_a",
        "negative_prompt": "blürry",
    }
    first = drawn(studio, **settings, loras=[{"name": "valentina_moreau", "weight": 0.5}])
    (again,) = studio.generate(from_png_text(png.decode(png.encode(first)).info["text"]))
    assert difference(first, again.image) == 0


def test_the_character_s_own_weight_can_be_changed(package: Path, studio: InferenceEngine) -> None:
    uses = [[{"name": "valentina_moreau", "weight": weight}] for weight in (1, 0.5, 0)]
    own, half, none = (drawn(studio, loras=each) for each in uses)
    assert difference(own, drawn(studio)) == 0
    assert difference(own, half) > 5
    without = InferenceEngine.open(package)
    without._pipe.unload_lora_weights()
    bare = drawn(without, loras=uses[-1])
    assert difference(none, bare) == 0
    assert difference(own, bare) > 30


def test_drawing_can_be_watched_and_stopped_after_any_step(studio: InferenceEngine) -> None:
    class Enough(Exception):
        pass

    steps: list[int] = []

    def watch(done: int, latents: object) -> None:
        steps.append(done)
        if done == 2:
            raise Enough

    with pytest.raises(Enough):
        studio.generate(GenerationRequest(prompt="smiling", steps=4), watch)
    assert steps == [1, 2]
    assert drawn(studio).size == (64, 64)  # and the studio goes on


def test_images_say_what_they_are_and_from_what(studio: InferenceEngine) -> None:
    marks = drawn(studio, preset="").info["text"]
    assert marks["synthetic"] == "true"
    assert marks["lora_sha256"] == studio.about.lora_hash
    assert marks["base_sha256"] == studio.about.base_hash
    assert (marks["seed"], marks["preset"]) == ("3", "standard")


def test_every_image_and_preview_has_the_watermark(studio: InferenceEngine) -> None:
    previews: list[Image.Image | None] = []

    def watch(done: int, latents: torch.Tensor) -> None:
        previews.append(studio.preview(latents[0]))

    (one,) = studio.generate(GenerationRequest(prompt="smiling", steps=1, width=128, height=128), watch)
    assert all(image and detect(image).found for image in (one.image, *previews))


def test_a_safety_checker_refuses_what_the_filter_passes(
    studio: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Checker:
        def unsafe(self, image: Image.Image) -> str:
            return "unsafe"

    monkeypatch.setattr(studio, "_checker", Checker())
    (one,) = studio.generate(GenerationRequest(prompt="smiling", steps=1))
    assert (one.image, one.blocked_reason) == (None, "unsafe")


def test_compiled_blocks_draw_the_same(package: Path, studio: InferenceEngine) -> None:
    torch._dynamo.reset()  # what other tests compiled
    torch._dynamo.utils.counters.clear()
    compiled = InferenceEngine.open(package, compile=True)
    for weight in (1.0, 0.5):
        use = {"name": "valentina_moreau", "weight": weight}
        request = GenerationRequest(prompt="smiling", steps=2, seed=4, loras=[use])  # type: ignore[list-item]
        with untraced():
            (one,) = compiled.generate(request)
        (other,) = studio.generate(request)
        assert one.image is not None and other.image is not None
        difference = np.asarray(one.image).astype(int) - np.asarray(other.image).astype(int)
        assert np.abs(difference).max() <= 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_mlflow_s_table_gets_a_row_for_a_row(studio: InferenceEngine) -> None:
    table = pd.DataFrame({"prompt": ["smiling", "beach"], "seed": [3, None], "preset": [None, "draft"]})
    answer = Model(studio).predict(table)
    assert list(answer["preset"]) == ["standard", "draft"]
    assert answer["seed"][0] == 3
    assert list(answer["blocked_reason"]) == ["", ""]
    image = png.decode(base64.b64decode(answer["image"][0]))
    assert image.size == (64, 64)
    assert "valentina_moreau" in image.info["text"]["prompt"]


def test_what_the_filter_refuses_is_not_given_out_nor_previewed(
    studio: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict:
        def unsafe(self, image: Image.Image) -> str:
            return "exposed (score 0.90)"

    previews: list[Image.Image | None] = []

    def watch(done: int, latents: torch.Tensor) -> None:
        previews.append(studio.preview(latents[0]))

    studio.generate(GenerationRequest(prompt="smiling", steps=1), watch)
    assert previews[0] is not None
    assert previews[0].size == (64, 64)
    monkeypatch.setattr(studio, "_filter", Strict())
    studio.generate(GenerationRequest(prompt="smiling", steps=1), watch)
    assert previews[1] is None
    answer = Model(studio).predict(pd.DataFrame({"prompt": ["smiling"], "preset": ["draft"]}))
    assert answer["image"][0] == ""
    assert answer["blocked_reason"][0] == "exposed (score 0.90)"


def test_a_prompt_against_the_policy_is_refused(studio: InferenceEngine) -> None:
    with pytest.raises(UnsafePromptError):
        studio.generate(GenerationRequest(prompt="n.u.d.e"))


def test_a_changed_or_missing_file_is_found_before_anything_is_loaded(copy: Path) -> None:
    file = copy / "lora/pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidPackageError, match=r"pytorch_lora_weights\.safetensors was changed"):
        read(copy)
    file.unlink()
    with pytest.raises(InvalidPackageError, match="is missing"):
        read(copy)


def test_a_folder_that_is_no_package_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackageError, match="uv run dvc repro"):
        _load_pyfunc(str(tmp_path))


def test_another_base_than_the_one_trained_on_is_refused(copy: Path) -> None:
    described = json.loads((copy / "base.json").read_text())
    (copy / "base.json").write_text(json.dumps({**described, "sha256": "0" * 64}))
    files = {
        f.relative_to(copy).as_posix(): f for f in copy.rglob("*") if f.is_file() and f.name != "SHA256SUMS"
    }
    (copy / "SHA256SUMS").write_bytes(sha256sums(files))
    with pytest.raises(InvalidPackageError, match="other weights"):
        InferenceEngine.open(copy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"expires": date(2020, 1, 1)},
            "cannot generate any more: record valentina-moreau-2024 expired on 2020-01-01",
        ),
        ({"uses": ("training",)}, "cannot generate: record valentina-moreau-2024 does not allow generation"),
    ],
)
def test_a_package_whose_rights_ended_or_are_for_something_else_draws_nothing(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    (record,) = packages.rights()
    rights = (record.model_copy(update=changes),)
    OutputFolder(filepath=str(tmp_path / "package")).save(packages.built(tmp_path, rights=rights))
    with pytest.raises(InvalidPackageError, match=f"package {said}"):  # and not as another version's
        read(tmp_path / "package")
