"""The same orders by other engines: what they draw, what they refuse, and that each says which it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import packages
from untraced import untraced
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.image.io import png
from valentina_pipeline.image.provenance.metadata import RENDERED_TYPE, SOURCE_TYPE
from valentina_pipeline.image.renderer.prompt_parser import parse_identity, parse_scene
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.package import InvalidPackageError
from valentina_pipeline.serving.inference.package import read as about
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest, from_png_text, resolve_request
from valentina_pipeline.serving.marks.c2pa import Signer, read
from valentina_pipeline.serving.marks.detect import detect_marks

LARGEST, MEAN = 2, 0.01
"""Levels of 255 by which onnx may differ from torch: anywhere, and on average."""

WITHOUT_TORCH = """
import sys
from pathlib import Path
from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.request import GenerationRequest
engine = InferenceEngine.open(Path(sys.argv[1]), engine="renderer")
(drawn,) = engine.generate(GenerationRequest(prompt="smiling", seed=1))
assert drawn.image is not None
print(sorted({"torch", "diffusers"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package for every engine."""
    place = tmp_path_factory.mktemp("published")
    engines = {"publish": {"default_preset": "standard", "engines": ["onnx", "sd_cpp"]}}
    with untraced():
        published = packages.built(place, **engines)
    OutputFolder(filepath=str(place / "package")).save(published)
    return place / "package"


@pytest.fixture(scope="module")
def renderer(package: Path) -> InferenceEngine:
    return InferenceEngine.open(package, engine="renderer")


@pytest.mark.slow
def test_onnx_draws_what_torch_does_to_a_stated_tolerance(complete: Path) -> None:
    both = [InferenceEngine.open(complete, engine=engine) for engine in ("torch", "onnx")]
    for fields in (
        {"seed": 1, "num_images": 3},
        {"seed": 7, "scheduler": "euler_a", "width": 72, "height": 104},
        {"seed": 8, "scheduler": "dpm++_2m_karras", "guidance_scale": 4.0, "negative_prompt": "blurry"},
        {"seed": 9, "scheduler": "ddim", "guidance_scale": 1.0},
        {"seed": 10, "prompt": f"{'a red dress, ' * 40}(smiling:1.3)"},
    ):
        asked = {"prompt": "smiling, beach background", **fields}
        drawn = [studio.generate(GenerationRequest(**asked)) for studio in both]  # type: ignore[arg-type]
        for ours, theirs in zip(*drawn, strict=True):
            assert ours.image is not None
            assert theirs.image is not None
            difference = np.abs(np.asarray(ours.image, int) - np.asarray(theirs.image))
            assert difference.max() <= LARGEST, fields
            assert difference.mean() <= MEAN, fields
            assert ours.image.info["text"] == {
                name: text for name, text in theirs.image.info["text"].items() if name != "engine"
            }
            assert theirs.image.info["text"]["engine"] == "onnx"


@pytest.mark.slow
def test_a_complete_package_says_how_to_draw_with_each_engine_and_under_which_terms(complete: Path) -> None:
    assert (complete / "sd_cpp/model.safetensors").is_file()
    assert "sd-cli -m model.safetensors" in (complete / "sd_cpp/README.md").read_text("utf-8")
    assert "In onnx/ and sd_cpp/, LoRA and base model are merged" in (complete / "LICENSE").read_text("utf-8")


def test_a_package_without_an_export_says_how_to_get_one(package: Path) -> None:
    with pytest.raises(MissingModelError, match=r"publish with engines: \[onnx\]"):
        InferenceEngine.open(package, engine="onnx")


def test_what_is_merged_cannot_be_weighed_anew(package: Path) -> None:
    half = GenerationRequest(prompt="smiling", loras=[{"name": "valentina_moreau", "weight": 0.5}])  # type: ignore[arg-type]
    with pytest.raises(
        InvalidRequestError, match="loras: the engine onnx supports only valentina_moreau at weight 1"
    ):
        resolve_request(half, about(package), engine="onnx")
    whole = GenerationRequest(prompt="smiling", loras=[{"name": "valentina_moreau"}])  # type: ignore[arg-type]
    assert resolve_request(whole, about(package), engine="onnx").settings.loras == (
        ("valentina_moreau", 1.0),
    )


def test_an_order_accepted_for_torch_is_refused_by_an_engine_that_cannot(renderer: InferenceEngine) -> None:
    half = GenerationRequest(prompt="smiling", loras=[{"name": "valentina_moreau", "weight": 0.5}])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="loras"):
        renderer.draw([resolve_request(half, renderer.about)])


def test_the_renderer_draws_her_as_the_prompt_says_with_a_label_across(renderer: InferenceEngine) -> None:
    prompt = "laughing, facing the camera, wearing a red dress, beach background, soft light"
    (drawn,) = renderer.generate(GenerationRequest(prompt=prompt, seed=4, width=96, height=128))
    assert drawn.image is not None
    assert drawn.image.size == (96, 128)
    woman = parse_identity(packages.concept()["renderer_parameters"])
    scene = parse_scene(drawn.order.prompt, 4)
    assert (scene.expression, scene.dress_color, scene.background) == ("laughing", "red", "beach")
    plain = render(woman, scene, 4, 128)[:, 16:112].astype(int)
    difference = np.abs(np.asarray(drawn.image) - plain)
    assert difference[:100].mean() < 2  # the watermark
    assert difference[-10:].mean() > 20


def test_what_the_renderer_drew_says_so_everywhere(renderer: InferenceEngine, tmp_path: Path) -> None:
    (drawn,) = renderer.generate(GenerationRequest(prompt="smiling", seed=4, negative_prompt="blurry"))
    assert drawn.image is not None
    content = Signer(tmp_path / "key").encode(drawn.image)
    texts = png.decode(content).info["text"]
    assert (texts["engine"], texts["synthetic"]) == ("renderer", "true")
    manifest = read(content)
    assert manifest is not None
    assert (manifest.source_type, manifest.generated) == (RENDERED_TYPE, False)
    assert SOURCE_TYPE not in texts["XML:com.adobe.xmp"]
    assert "XMP: rendered by a rule, no model" in detect_marks(content).marks
    assert resolve_request(from_png_text(texts), renderer.about) == drawn.order  # torch draws the same order


def test_a_character_of_another_source_has_no_renderer(package: Path, tmp_path: Path) -> None:
    changed = {**packages.concept(), "renderer_parameters": {}}
    OutputFolder(filepath=str(tmp_path / "package")).save(packages.built(tmp_path, concept=changed))
    with pytest.raises(InvalidPackageError, match="has no parameters for the renderer"):
        InferenceEngine.open(tmp_path / "package", engine="renderer")


@pytest.mark.slow
def test_the_renderer_needs_no_torch(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(package)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
