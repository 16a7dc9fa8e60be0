"""What other engines draw with: the same pictures, and the same bytes when it is made again."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import loras
import tiny_bases
from untraced import untraced
from valentina_pipeline.image.export import onnx
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.lora.formats import export_adapter
from valentina_pipeline.image.lora.loading import load_pipeline
from valentina_pipeline.image.models.base_model import BaseModel, load_base
from valentina_pipeline.serving.inference.onnx_pipeline import pipeline as exported

pytestmark = pytest.mark.slow

FOLDERS = {"sdxl": tiny_bases.sdxl_folder, "sd15": tiny_bases.sd15_folder}
REQUESTS = [
    ImageSpec("a woman", 1),
    ImageSpec("a woman at sea", 2),
    ImageSpec("a woman", 3, negative="blurry"),
]

AGAIN = """
import sys
from pathlib import Path
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.image.export.onnx import export_onnx, fuse_lora
config, learned, target = sys.argv[1:]
export_onnx(fuse_lora(BaseConfig.model_validate_json(config), Path(), Path(learned)), Path(target))
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LoRA of U-Net and text encoders for each family."""
    places = {}
    for family in FOLDERS:
        adapter = loras.trained(tiny_bases.loaded(family), "attention+conv", alpha=4.0)
        place = tmp_path_factory.mktemp(f"lora-{family}")
        places[family] = loras.written(export_adapter(adapter, loras.NOTES), place)
    return places


def fused(family: str, learned: dict[str, Path]) -> BaseModel:
    return onnx.fuse_lora(tiny_bases.config(family, FOLDERS[family]()), Path(), learned[family])


def pictures(pipe: object, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.stack([np.asarray(image, int) for image in generate_images(pipe, REQUESTS, 4, 3.0, size)])


def reference(family: str, learned: dict[str, Path], size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """What torch draws with the LoRA beside the base."""
    return pictures(load_pipeline(tiny_bases.loaded(family), learned[family]), size)


@pytest.fixture(scope="module")
def graphs(learned: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    with untraced():
        files = onnx.export_onnx(fused("sd15", learned), folder)
    assert {"unet.onnx", "unet.onnx.data", "vae.onnx", "text_encoder.onnx", "settings.json"} <= files.keys()
    return folder


@pytest.mark.parametrize("size", [(64, 64), (72, 104)])
def test_onnx_runtime_draws_what_torch_does(
    graphs: Path, learned: dict[str, Path], size: tuple[int, int]
) -> None:
    theirs = pictures(exported(graphs), size)
    ours = reference("sd15", learned, size)
    assert np.abs(theirs - ours).max() <= 2
    bare = pictures(tiny_bases.loaded("sd15").pipe, size)
    assert np.abs(bare - ours).max() > 20  # the LoRA is in it


def test_exported_by_another_process_elsewhere_it_is_byte_identical(
    graphs: Path, learned: dict[str, Path], tmp_path: Path
) -> None:
    config = tiny_bases.config("sd15", FOLDERS["sd15"]()).model_dump_json()
    command = [sys.executable, "-c", AGAIN, config, str(learned["sd15"]), str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path.parent)
    first, second = (
        {
            file.relative_to(place).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in place.rglob("*")
            if file.is_file()
        }
        for place in (graphs, tmp_path)
    )
    assert first == second


@pytest.mark.parametrize("family", FOLDERS)
def test_the_one_file_for_others_is_read_back_and_draws_the_same(
    family: str, learned: dict[str, Path], tmp_path: Path
) -> None:
    onnx.export_single_file(fused(family, learned), tmp_path)
    config = tiny_bases.config(family, "model.safetensors").model_copy(
        update={"config": str(FOLDERS[family]())}
    )
    difference = np.abs(pictures(load_base(config, tmp_path).pipe) - reference(family, learned))
    assert difference.mean() < 0.5  # its weights are rounded to float16
    assert difference.max() <= 10


def test_stable_diffusion_cpp_draws_the_same_from_the_one_file(tmp_path: Path) -> None:
    cpp = pytest.importorskip("stable_diffusion_cpp", reason="stable-diffusion-cpp-python is not installed")
    pipe = tiny_bases.sd15_of_true_widths()  # it knows no others
    (ours,) = generate_images(pipe, REQUESTS[:1], 2, 3.0, 64)
    onnx.export_single_file(BaseModel("sd15", tmp_path, pipe), tmp_path)
    model = cpp.StableDiffusion(model_path=str(tmp_path / "model.safetensors"), rng_type="cpu", verbose=False)
    (theirs,) = model.generate_image(
        prompt=REQUESTS[0].prompt,
        seed=REQUESTS[0].seed,
        width=64,
        height=64,
        sample_inference_steps=2,
        cfg_scale=3.0,
        sample_method="euler",
        scheduler="discrete",
    )
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs)).max() <= 3
