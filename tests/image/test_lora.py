import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny_bases
from valentina_pipeline.image.base import BaseModel, pipeline
from valentina_pipeline.image.lora import (
    DIFFUSERS_NAME,
    Adapter,
    Notes,
    Targets,
    adapter_files,
    code_hash,
    inject,
    read_metadata,
    serialise,
)

NOTES = Notes("valentina", "b" * 64, "d" * 64, "c" * 64, tiny_bases.SIZE, "v_prediction")
KOHYA_NAME = "valentina.kohya.safetensors"


def trained(model: BaseModel, targets: Targets, alpha: float = 2.0, text: bool = True) -> Adapter:
    """An adapter of rank 4 with random numbers in place of what training would find."""
    adapter = inject(model, 4, alpha, targets, text, seed=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapter.weights().values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return adapter


def picture(model: BaseModel) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": 2, "height": tiny_bases.SIZE, "width": tiny_bases.SIZE}
    return model.pipe("a woman", generator=generator, output_type="np", **options).images[0]


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("family", "targets"), [("sdxl", "attention+conv"), ("sd15", "attention")])
def test_both_formats_come_back_as_what_was_trained(family: str, targets: Targets, tmp_path: Path) -> None:
    model = tiny_bases.loaded(family)
    bare = picture(model)
    folder = written(adapter_files(trained(model, targets), NOTES), tmp_path)
    live = picture(model)
    assert np.abs(live - bare).max() > 0.01
    again = tiny_bases.loaded(family)
    for lora in (folder, folder / KOHYA_NAME):
        pipeline(again, lora)
        np.testing.assert_allclose(picture(again), live, atol=1e-4)
    pipeline(again)
    np.testing.assert_allclose(picture(again), bare, atol=1e-4)


def test_alpha_travels_in_both_formats(tmp_path: Path) -> None:
    folder = written(
        adapter_files(trained(tiny_bases.loaded("sdxl"), "attention", alpha=2.0), NOTES), tmp_path
    )
    configs = json.loads(read_metadata(folder / DIFFUSERS_NAME)["lora_adapter_metadata"])
    assert {configs[f"{m}.lora_alpha"] for m in ("unet", "text_encoder", "text_encoder_2")} == {2}
    alphas = {t.item() for name, t in load_file(folder / KOHYA_NAME).items() if name.endswith(".alpha")}
    assert alphas == {2.0}  # not the rank


def test_kohya_names_are_flat_and_name_each_network(tmp_path: Path) -> None:
    folder = written(adapter_files(trained(tiny_bases.loaded("sdxl"), "attention+conv"), NOTES), tmp_path)
    names = set(load_file(folder / KOHYA_NAME))
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in names
    assert "lora_te2_text_model_encoder_layers_1_mlp_fc1.alpha" in names
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_up.weight" in names
    assert "lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight" in names
    # SDXL reads its first text encoder before the last layer
    assert not any(name.startswith("lora_te1_text_model_encoder_layers_1_") for name in names)


def test_the_same_seed_gives_the_same_untrained_adapter_which_changes_nothing() -> None:
    torch.manual_seed(1)
    models = [tiny_bases.loaded("sd15"), tiny_bases.loaded("sd15"), tiny_bases.loaded("sd15")]
    bare = picture(models[0])
    before = torch.get_rng_state()
    first, same, other = (
        inject(m, 2, 2, "attention", False, seed) for m, seed in zip(models, (3, 3, 4), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), before)
    weights = [adapter_files(adapter, NOTES) for adapter in (first, same, other)]
    assert weights[0] == weights[1] != weights[2]
    np.testing.assert_array_equal(picture(models[0]), bare)


def test_only_the_adapter_is_trainable_and_in_float32() -> None:
    model = tiny_bases.loaded("sdxl")
    adapter = inject(model, 2, 2, "attention", False, 0)
    assert list(adapter.modules) == ["unet"]
    trainable = [p for p in model.unet.parameters() if p.requires_grad]
    assert len(trainable) == len(adapter.weights()) > 0
    assert {p.dtype for p in trainable} == {torch.float32}
    assert not any(p.requires_grad for e in model.text_encoders.values() for p in e.parameters())


def test_files_tell_where_they_come_from_and_repeat_byte_for_byte(tmp_path: Path) -> None:
    adapter = trained(tiny_bases.loaded("sd15"), "attention")
    files = adapter_files(adapter, NOTES)
    assert files == adapter_files(adapter, NOTES)
    written(files, tmp_path)
    for name in files:
        about = read_metadata(tmp_path / name)
        assert (about["trigger"], about["base_sha256"]) == ("valentina", "b" * 64)
        assert (about["rank"], about["alpha"], about["ss_network_alpha"]) == ("4", "2", "2")
        assert about["modelspec.architecture"] == "stable-diffusion-v1/lora"
        assert about["modelspec.resolution"] == "64x64"


def test_half_precision_halves_the_files() -> None:
    adapter = trained(tiny_bases.loaded("sd15"), "attention")
    whole, halved = (len(adapter_files(adapter, NOTES, half)[DIFFUSERS_NAME]) for half in (False, True))
    assert halved < 0.7 * whole


def test_metadata_is_written_sorted_and_the_tensors_stay_readable(tmp_path: Path) -> None:
    metadata = dict.fromkeys("zmab", "é")
    content = serialise({"t": torch.arange(6.0).view(2, 3)}, metadata)
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    assert list(json.loads(header)["__metadata__"]) == ["a", "b", "m", "z"]
    (tmp_path / "t.safetensors").write_bytes(content)
    assert load_file(tmp_path / "t.safetensors")["t"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_metadata(tmp_path / "t.safetensors") == metadata


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK not this")
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_metadata(tmp_path / "x")


def test_the_code_has_a_hash_of_its_content() -> None:
    assert len(code_hash()) == 64
