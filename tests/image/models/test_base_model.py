import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file

import tiny_bases
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.domain.base_files import base_files
from valentina_pipeline.image.export import single_file
from valentina_pipeline.image.models import base_model
from valentina_pipeline.image.models import vae as vaes
from valentina_pipeline.image.models import weights as base_weights
from valentina_pipeline.image.models.requirements import find_missing_models

ROOT = Path(__file__).parents[3]


def test_an_sdxl_folder_is_loaded_frozen_and_in_float32_on_a_cpu() -> None:
    folder = tiny_bases.sdxl_folder()
    loaded = base_model.load_base(tiny_bases.config("sdxl", folder.name), folder.parent)
    assert list(loaded.text_encoders) == ["text_encoder", "text_encoder_2"]
    assert len(loaded.tokenizers) == 2
    assert loaded.vae.config.latent_channels == 8
    assert loaded.prediction_type == "v_prediction"
    assert not any(p.requires_grad for m in (loaded.unet, loaded.vae) for p in m.parameters())
    if not torch.cuda.is_available():
        assert loaded.unet.dtype == loaded.vae.dtype == torch.float32


def test_an_sd15_folder_is_loaded_without_a_safety_checker_of_its_own() -> None:
    loaded = tiny_bases.loaded("sd15")
    assert list(loaded.text_encoders) == ["text_encoder"]
    assert loaded.vae.config.latent_channels == 4
    assert loaded.pipe.safety_checker is None


@pytest.mark.parametrize("path", ["somebody/a-model-nobody-has", "no/such/folder"])
def test_a_base_that_is_not_here_is_an_error_that_says_how_to_get_it(path: str, tmp_path: Path) -> None:
    config = tiny_bases.config("sdxl", path)
    with pytest.raises(MissingModelError) as caught:
        base_model.load_base(config, tmp_path)
    for words in (path, config.license, config.download_instructions):
        assert words in str(caught.value)


def test_a_base_with_only_pickled_weights_is_not_loaded(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bases.sd15_folder(), tmp_path / "base")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingModelError, match=r"base lacks unet/\*\.safetensors\)"):
        base_model.load_base(tiny_bases.config("sd15", "base"), tmp_path)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (("model-00001-of-00003", "model-00003-of-00003"), "model-00002-of-00003"),
        (("model.fp16-00001-of-00002",), "model.fp16-00002-of-00002"),
        (("model-00001-of-00009", "model-00002-of-00009"), "model-00009-of-00009"),
        (("link",), "link"),
    ],
)
def test_a_base_without_one_of_its_files_names_that_file(
    files: tuple[str, ...], missing: str, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_bases.sdxl_folder(), folder)
    for file in (folder / "vae").glob("*.safetensors"):
        file.unlink()
    for name in files:
        file = folder / f"vae/{name}.safetensors"
        file.symlink_to("nowhere") if name == "link" else file.touch()
    with pytest.raises(MissingModelError, match=rf"lacks .*vae/{missing}\.safetensors"):
        base_weights.find_base_weights(tiny_bases.config("sdxl", folder), tmp_path)


PARTS = ["scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"]


@pytest.mark.parametrize("part", PARTS)
def test_a_base_without_one_of_its_parts_names_that_part(part: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bases.sdxl_folder(), tmp_path / "base")
    shutil.rmtree(folder / part)
    with pytest.raises(MissingModelError) as caught:
        base_model.load_base(tiny_bases.config("sdxl", folder), tmp_path)
    lacking = str(caught.value).partition(" lacks ")[2].partition(") is not on this machine")[0]
    assert {name.partition("/")[0] for name in lacking.split(", ")} == {part}


def test_all_missing_parts_are_named_at_once_before_any_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    index = json.loads((tiny_bases.sdxl_folder() / "model_index.json").read_text())
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (folder / "model_index.json").write_text(json.dumps(index))
    bases = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text())
    config = tiny_bases.config("sdxl", folder).model_copy(update={"controlnets": {"canny": "nowhere"}})
    params = {**bases["tiny"], "base": config.model_dump()}
    base, *others = map(str, find_missing_models(params, tmp_path))
    for name in (
        "image_encoder/*.json", "scheduler/scheduler_config.json", "text_encoder/*.safetensors",
        "text_encoder_2/config.json", "tokenizer/merges.txt", "tokenizer_2/vocab.json", "unet/config.json",
        "vae/*.safetensors",
    ):  # fmt: skip
        assert name in base
    assert any("controlnets.canny" in text and "lacks config.json" in text for text in others)


def test_a_base_in_one_file_needs_its_tokenizers_before_any_work(tmp_path: Path) -> None:
    settings = shutil.copytree(tiny_bases.sdxl_folder(), tmp_path / "settings")
    for file in [*settings.glob("*/*.safetensors"), settings / "tokenizer_2/tokenizer.json"]:
        file.unlink()
    save_file({"conditioner.embedders.1.model": torch.zeros(1)}, tmp_path / "base.safetensors")
    config = tiny_bases.config("sdxl", "base.safetensors").model_copy(update={"config": str(settings)})
    lacking = r"settings lacks tokenizer_2/merges\.txt, tokenizer_2/vocab\.json\)"
    with pytest.raises(MissingModelError, match=lacking):
        base_weights.find_base_weights(config, tmp_path)
    (settings / "tokenizer_2/vocab.json").touch()
    (settings / "tokenizer_2/merges.txt").touch()
    assert base_weights.find_base_weights(config, tmp_path) == tmp_path / "base.safetensors"


def test_a_base_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="contains a StableDiffusionPipeline; family sdxl needs"):
        base_model.load_base(tiny_bases.config("sdxl", tiny_bases.sd15_folder()), Path())


def test_a_base_saved_from_a_pipeline_with_the_same_networks_loads(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bases.sd15_folder(), tmp_path / "base")
    index = json.loads((folder / "model_index.json").read_text())
    for name in ("StableDiffusionImg2ImgPipeline", "StableDiffusionControlNetInpaintPipeline"):
        (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
        assert base_weights.find_base_weights(tiny_bases.config("sd15", folder), tmp_path) == folder
    assert type(base_model.load_base(tiny_bases.config("sd15", folder), tmp_path).pipe).__name__ == (
        "StableDiffusionPipeline"
    )
    with pytest.raises(ValueError, match="family sdxl needs StableDiffusionXLPipeline"):
        base_weights.find_base_weights(tiny_bases.config("sdxl", folder), tmp_path)


def test_a_base_for_inpainting_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bases.sd15_folder(), tmp_path / "base")
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"in_channels": 9}))
    with pytest.raises(ValueError, match="has 9 input and 4 output channels"):
        base_weights.find_base_weights(tiny_bases.config("sd15", folder), tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "version https://git-lfs.github.com/spec/v1"])
@pytest.mark.parametrize("name", ["unet/config.json", "model_index.json"])
def test_a_broken_configuration_is_refused_by_name(name: str, content: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bases.sd15_folder(), tmp_path / "base")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} .*: download it again"):
        base_weights.find_base_weights(tiny_bases.config("sd15", folder), tmp_path)


@pytest.mark.parametrize("half_alone", [False, True])
def test_a_download_fetches_one_copy_of_each_network(
    half_alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered, local = shutil.copytree(tiny_bases.sd15_folder(), tmp_path / "hub"), tmp_path / "cache"
    for file in [*offered.glob("*/*.safetensors")]:
        half = file.with_name(f"{file.stem}.fp16.safetensors")
        file.rename(half) if half_alone else shutil.copy(file, half)

    def download(_: str, *, local_files_only: bool, **patterns: list[str]) -> str:
        assert not local_files_only
        names = [file.relative_to(offered).as_posix() for file in offered.rglob("*") if file.is_file()]
        for name in filter_repo_objects(names, **patterns):
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(offered / name, local / name)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv(base_weights.DOWNLOAD, "1")
    assert base_weights.find_base_weights(tiny_bases.config("sd15", "somebody/a-model"), tmp_path) == local
    fetched = sorted(file.name for file in local.glob("*/*.safetensors"))
    assert len(fetched) == 3
    assert all((".fp16." in name) is half_alone for name in fetched)


def test_the_hash_is_of_the_weights_that_a_pipeline_loads_and_of_nothing_else(tmp_path: Path) -> None:
    def made(name: str, unet: bytes) -> Path:
        folder = tmp_path / name
        (folder / "unet").mkdir(parents=True)
        (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(unet)
        return folder

    first, same, other = made("a", b"1"), made("b", b"1"), made("c", b"2")
    (same / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant")
    (same / "sd_xl_base_1.0.safetensors").write_bytes(b"all in one file")
    (same / "README.md").write_text("words")
    assert base_weights.base_hash(first) == base_weights.base_hash(same) != base_weights.base_hash(other)
    with pytest.raises(FileNotFoundError):
        base_weights.base_hash(tmp_path)


@pytest.mark.parametrize("parts", [("unet",), ("unet", "vae", "text_encoder")])
def test_a_base_that_is_there_in_half_precision_alone_is_read(parts: tuple[str, ...], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bases.sd15_folder(), tmp_path / "base")
    for file in [file for part in parts for file in (folder / part).glob("*.safetensors")]:
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    loaded, known = (
        base_model.load_base(tiny_bases.config("sd15", "base"), tmp_path),
        tiny_bases.loaded("sd15"),
    )
    for name in ("unet", "vae", "text_encoder"):
        theirs = getattr(known.pipe, name).state_dict()
        for key, tensor in getattr(loaded.pipe, name).state_dict().items():
            assert torch.equal(tensor, theirs[key]), (name, key)
    named = {file.parent.name for file in base_files(folder) if ".fp16." in file.name}
    assert named == set(parts)
    before = base_weights.base_hash(folder)
    again = shutil.copytree(folder, tmp_path / "again")
    weights = again / "unet/diffusion_pytorch_model.fp16.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert base_weights.base_hash(again) != before


def test_which_files_a_base_is(tmp_path: Path) -> None:
    def files(*names: str) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return [file.relative_to(folder).as_posix() for file in base_files(folder)]

    plain = ["unet/a-00001-of-00002.safetensors", "unet/a-00002-of-00002.safetensors", "vae/a.safetensors"]
    assert (
        files(*plain, "unet/a.fp16.safetensors", "vae/a.fp16.safetensors", "vae_1_0/a.safetensors") == plain
    )
    half = ["unet/a.fp16-00001-of-00002.safetensors", "unet/a.fp16-00002-of-00002.safetensors"]
    assert files(*half, "vae/a.safetensors") == [*half, "vae/a.safetensors"]
    # diffusers reads a base as one variant, where a network has it
    assert files(*half, "vae/a.safetensors", "vae/a.fp16.safetensors") == [*half, "vae/a.fp16.safetensors"]
    assert files("unet/a.bf16.safetensors", "unet/a.ema.safetensors", "vae/a.ema.safetensors") == [
        "unet/a.ema.safetensors",
        "vae/a.ema.safetensors",
    ]


def test_latents_are_scaled_as_diffusers_scales_them_and_decode_reverses_it() -> None:
    vae = tiny_bases.loaded("sdxl").vae
    pixels = torch.rand(1, 3, tiny_bases.SIZE, tiny_bases.SIZE) * 2 - 1
    with torch.no_grad():
        own = vae.encode(pixels).latent_dist.mean
        torch.testing.assert_close(vaes.encode(vae, pixels), own * vae.config.scaling_factor)
        torch.testing.assert_close(vaes.decode(vae, own * vae.config.scaling_factor), vae.decode(own).sample)
        vae.register_to_config(latents_mean=[0.1] * 8, latents_std=[2.0] * 8)
        normed = vaes.encode(vae, pixels)
        torch.testing.assert_close(normed, (own - 0.1) * vae.config.scaling_factor / 2.0)
        torch.testing.assert_close(vaes.decode(vae, normed), vae.decode(own).sample, rtol=1e-4, atol=1e-4)


def test_the_scheduler_is_the_one_of_the_folder() -> None:
    folder = tiny_bases.sdxl_folder()
    name = json.loads((folder / "model_index.json").read_text())["scheduler"][1]
    loaded = tiny_bases.loaded("sdxl")
    assert type(loaded.pipe.scheduler).__name__ == name == "EulerDiscreteScheduler"


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_a_base_in_one_file_is_the_same_as_in_a_folder(family: str, tmp_path: Path) -> None:
    known = tiny_bases.loaded(family)
    single_file.write(known.pipe, tmp_path / "base.safetensors")
    folder = {"sdxl": tiny_bases.sdxl_folder, "sd15": tiny_bases.sd15_folder}[family]()
    config = tiny_bases.config(family, "base.safetensors").model_copy(update={"config": str(folder)})
    loaded = base_model.load_base(config, tmp_path)
    for name in ("unet", "vae", *known.text_encoders):
        ours, theirs = (getattr(each.pipe, name).state_dict() for each in (loaded, known))
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), (name, key)
    assert loaded.prediction_type == known.prediction_type
    content = (tmp_path / "base.safetensors").read_bytes()
    assert base_weights.base_hash(loaded.path) == hashlib.sha256(content).hexdigest()
    other = {"sdxl": "sd15", "sd15": "sdxl"}[family]
    with pytest.raises(ValueError, match=f"is not a model of family {other}"):
        base_model.load_base(config.model_copy(update={"family": other}), tmp_path)
    with pytest.raises(ValueError, match="single file; must be in diffusers' layout"):
        base_model.load_base(config, tmp_path, quantize="nf4")


def test_a_pickled_base_in_one_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.ckpt").write_bytes(b"\x80\x02.")
    with pytest.raises(ValueError, match=r"must be a .safetensors file; a pickle may run code"):
        base_model.load_base(tiny_bases.config("sdxl", "base.ckpt"), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_quantized_base_needs_a_gpu_and_says_so() -> None:
    config = tiny_bases.config("sdxl", tiny_bases.sdxl_folder())
    with pytest.raises(MissingModelError, match=r"set train_lora.quantize to none"):
        base_model.load_base(config, Path(), quantize="int8")
