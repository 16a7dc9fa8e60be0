import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file

import tiny_bases
from loras import KOHYA_NAME, NOTES, picture, trained, written
from runs import ROOT
from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.image.lora.adapter import UNET, AdapterSpec, Kind, LayerOverride, inject
from valentina_pipeline.image.lora.formats import Format, export_adapter, read_metadata, serialise
from valentina_pipeline.image.lora.loading import load_adapter, load_pipeline


@pytest.mark.parametrize(
    ("family", "targets", "kind"),
    [
        ("sdxl", "attention+conv", "lora"),
        ("sd15", "attention", "rslora"),
        ("sdxl", "all-linear", "lora"),
        # diffusers tells kohya's text encoders by their out_proj
        ("sd15", r".*attn2\.to_[qk]|.*(q|out)_proj", "lora"),
    ],
)
def test_both_formats_come_back_as_what_was_trained(
    family: str, targets: str, kind: Kind, tmp_path: Path
) -> None:
    model = tiny_bases.loaded(family)
    bare = picture(model)
    blocks = (LayerOverride("up_blocks", 2, 1.0), LayerOverride(r"layers\.0", 3, 1.0))
    folder = written(export_adapter(trained(model, targets, kind=kind, blocks=blocks), NOTES), tmp_path)
    live = picture(model)
    assert np.abs(live - bare).max() > 0.01
    again = tiny_bases.loaded(family)
    for lora in (folder, folder / KOHYA_NAME):
        load_pipeline(again, lora)
        np.testing.assert_allclose(picture(again), live, atol=1e-4)
    load_pipeline(again)
    np.testing.assert_allclose(picture(again), bare, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_kin_of_lora_come_back_from_each_format(kind: Kind, tmp_path: Path) -> None:
    model = tiny_bases.loaded("sdxl")
    bare = picture(model)
    formats: tuple[Format, ...] = ("diffusers", "kohya", "peft")
    adapter = trained(model, "attention+conv", kind=kind)
    folder = written(export_adapter(adapter, NOTES, formats=formats), tmp_path)
    live = picture(model)
    assert np.abs(live - bare).max() > 0.01
    again = tiny_bases.loaded("sdxl")
    for file in (folder / LORA_FILE, folder / KOHYA_NAME, folder / "peft"):
        load_pipeline(again)
        load_adapter(again, file)
        np.testing.assert_allclose(picture(again), live, atol=1e-4)
    load_pipeline(again)
    np.testing.assert_allclose(picture(again), bare, atol=1e-4)


def test_magnitudes_of_a_kohya_dora_are_columns_and_lycoris_is_named(tmp_path: Path) -> None:
    folder = written(
        export_adapter(trained(tiny_bases.loaded("sdxl"), "attention+conv", kind="dora"), NOTES), tmp_path
    )
    scales = {n: t for n, t in load_file(folder / KOHYA_NAME).items() if n.endswith("dora_scale")}
    assert {t.ndim for t in scales.values()} == {2, 4}
    assert all(len(t) == t.numel() > 1 for t in scales.values())  # (out, 1) or (out, 1, 1, 1)
    about = read_metadata(folder / KOHYA_NAME)
    assert about["ss_network_module"] == "lycoris.kohya"
    assert json.loads(about["ss_network_args"]) == {"algo": "lora", "dora_wd": "True"}


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "lokr"])
def test_peft_reads_its_own_format(kind: Kind, tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny_bases.loaded("sdxl")
    adapter = trained(model, "attention", kind=kind)
    written(export_adapter(adapter, NOTES, formats=["peft"]), tmp_path)
    live = picture(model)
    again = tiny_bases.loaded("sdxl")
    for name in adapter.modules:
        PeftModel.from_pretrained(getattr(again.pipe, name), tmp_path / "peft" / name)
    np.testing.assert_allclose(picture(again), live, atol=1e-4)


def layer_and_kohya_parts(kind: Kind, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """One layer with an adapter in it, and its tensors in kohya's file, by their last names."""
    model = tiny_bases.loaded("sd15")
    written(export_adapter(trained(model, "attention", kind=kind, text=False), NOTES), folder)
    flat = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q."
    tensors = load_file(folder / KOHYA_NAME)
    parts = {name.removeprefix(flat): t for name, t in tensors.items() if name.startswith(flat)}
    return model.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q, parts


def test_the_kohya_form_of_a_dora_follows_lycoris_formula(tmp_path: Path) -> None:
    layer, parts = layer_and_kohya_parts("dora", tmp_path)
    up, down = parts["lora_up.weight"], parts["lora_down.weight"]
    weight = layer.base_layer.weight + parts["alpha"] / len(down) * up @ down
    weight = weight * (parts["dora_scale"] / weight.norm(dim=1, keepdim=True))
    x = torch.randn(3, weight.shape[1])
    torch.testing.assert_close(layer(x), x @ weight.T, atol=1e-4, rtol=1e-4)


def test_the_kohya_form_of_a_lokr_is_the_kronecker_product_of_its_factors(tmp_path: Path) -> None:
    layer, parts = layer_and_kohya_parts("lokr", tmp_path)
    first, second = (
        parts[w] if w in parts else parts[f"{w}_a"] @ parts[f"{w}_b"] for w in ("lokr_w1", "lokr_w2")
    )
    dim = next((t.shape[0] for n, t in parts.items() if n.endswith("_b")), None)
    scale = 1.0 if dim is None else parts["alpha"].item() / dim
    torch.testing.assert_close(layer.get_delta_weight("default"), torch.kron(first, second) * scale)


def test_blocks_have_ranks_and_rates_of_their_own_at_the_scale_of_the_others() -> None:
    model = tiny_bases.loaded("sdxl")
    blocks = (LayerOverride("unet.mid_block", 2, 0.5), LayerOverride("text_encoder_2", None, 0.0))
    adapter = trained(model, "attention", blocks=blocks)
    ranks = {name: len(w) for name, w in adapter.weights().items() if name.endswith("lora_A.weight")}
    assert {rank for name, rank in ranks.items() if "mid_block" in name} == {2}
    assert {rank for name, rank in ranks.items() if "mid_block" not in name} == {4}
    assert set(adapter.scales().values()) == {0.5}
    assert adapter.rate("unet.mid_block.x") == 0.5
    assert adapter.rate("unet.up_blocks.x") == 1
    assert adapter.rate("text_encoder_2.x") == 0
    with pytest.raises(ValueError, match="'no_such_block' matches no trained layer"):
        trained(tiny_bases.loaded("sdxl"), "attention", blocks=(LayerOverride("no_such_block", 2, 1.0),))


def test_alpha_travels_in_both_formats(tmp_path: Path) -> None:
    folder = written(
        export_adapter(trained(tiny_bases.loaded("sdxl"), "attention", alpha=2.0), NOTES), tmp_path
    )
    configs = json.loads(read_metadata(folder / LORA_FILE)["lora_adapter_metadata"])
    assert {configs[f"{m}.lora_alpha"] for m in ("unet", "text_encoder", "text_encoder_2")} == {2}
    alphas = {t.item() for name, t in load_file(folder / KOHYA_NAME).items() if name.endswith(".alpha")}
    assert alphas == {2.0}  # not the rank


def test_kohya_names_are_flat_and_name_each_network(tmp_path: Path) -> None:
    folder = written(export_adapter(trained(tiny_bases.loaded("sdxl"), "attention+conv"), NOTES), tmp_path)
    names = set(load_file(folder / KOHYA_NAME))
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in names
    assert "lora_te2_text_model_encoder_layers_1_mlp_fc1.alpha" in names
    # of SDXL's U-Net they are Stability's, as in kohya's own files
    assert "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_out_0.lora_up.weight" in names
    assert "lora_unet_input_blocks_2_0_op.lora_down.weight" in names
    assert "lora_unet_output_blocks_1_2_conv.lora_down.weight" in names
    assert not any("_blocks_0_resnets_" in name or "mid_block" in name for name in names)
    # SDXL reads its first text encoder before the last layer
    assert not any(name.startswith("lora_te1_text_model_encoder_layers_1_") for name in names)


def test_the_same_seed_gives_the_same_untrained_adapter_which_changes_nothing() -> None:
    torch.manual_seed(1)
    models = [tiny_bases.loaded("sd15"), tiny_bases.loaded("sd15"), tiny_bases.loaded("sd15")]
    bare = picture(models[0])
    before = torch.get_rng_state()
    first, same, other = (
        inject(m, AdapterSpec("lora", 2, 2, "attention"), False, seed)
        for m, seed in zip(models, (3, 3, 4), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), before)
    weights = [export_adapter(adapter, NOTES) for adapter in (first, same, other)]
    assert weights[0] == weights[1] != weights[2]
    np.testing.assert_array_equal(picture(models[0]), bare)


def test_only_the_adapter_is_trainable_and_in_float32() -> None:
    model = tiny_bases.loaded("sdxl")
    adapter = inject(model, AdapterSpec("lora", 2, 2, "attention"), False, 0)
    assert list(adapter.modules) == ["unet"]
    trainable = [p for p in model.unet.parameters() if p.requires_grad]
    assert len(trainable) == len(adapter.weights()) > 0
    assert {p.dtype for p in trainable} == {torch.float32}
    assert not any(p.requires_grad for e in model.text_encoders.values() for p in e.parameters())


def test_files_tell_where_they_come_from_and_repeat_byte_for_byte(tmp_path: Path) -> None:
    adapter = trained(tiny_bases.loaded("sd15"), "attention")
    files = export_adapter(adapter, NOTES)
    assert files == export_adapter(adapter, NOTES)
    written(files, tmp_path)
    for name in files:
        about = read_metadata(tmp_path / name)
        assert (about["trigger"], about["base_sha256"]) == ("valentina", "b" * 64)
        assert (about["rank"], about["alpha"], about["ss_network_alpha"]) == ("4", "2", "2")
        assert about["modelspec.architecture"] == "stable-diffusion-v1/lora"
        assert about["modelspec.resolution"] == "64x64"


def test_metadata_tells_tags_and_rights_unless_they_are_private(tmp_path: Path) -> None:
    told = replace(NOTES, captions=("v woman, smiling", "v woman, hat"), rights=("studio: training",))
    adapter = trained(tiny_bases.loaded("sd15"), "attention", text=False)
    about = [
        read_metadata(written(export_adapter(adapter, notes), tmp_path) / KOHYA_NAME)
        for notes in (told, replace(told, private=True))
    ]
    tags = {"valentina": {"hat": 1, "smiling": 1, "v woman": 2}}
    assert json.loads(about[0]["ss_tag_frequency"]) == tags
    assert json.loads(about[0]["rights"]) == ["studio: training"]
    assert about[0].keys() - about[1].keys() == {
        "data_sha256", "rights", "ss_num_train_images", "ss_tag_frequency",
    }  # fmt: skip


def test_half_precision_halves_the_files() -> None:
    adapter = trained(tiny_bases.loaded("sd15"), "attention")
    whole, halved = (len(export_adapter(adapter, NOTES, half)[LORA_FILE]) for half in (False, True))
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
    with pytest.raises(ValueError, match="is not a valid safetensors file"):
        read_metadata(tmp_path / "x")


@pytest.mark.parametrize("name", ["sdxl", "sd15"])
def test_at_the_defaults_a_file_is_below_100_mb(name: str) -> None:
    xl = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(**(xl if name == "sdxl" else {"cross_attention_dim": 768}))
    settings = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text())[name]["train_lora"]
    config = LoraConfig(r=settings["rank"], target_modules=list(UNET[settings["target_modules"]]))
    with torch.device("meta"):
        unet.add_adapter(config)
    count = sum(p.numel() for key, p in unet.named_parameters() if "lora_" in key)
    assert 1e6 < 2 * count < 100e6  # bytes: float16, as they are written where they were trained in half
    assert settings["precision"] != "fp32"
