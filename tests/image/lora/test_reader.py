"""LoRA files as other tools write them: each layer is found under its name there, or the file is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny_bases
from valentina_pipeline.image.lora.adapter import from_loaded
from valentina_pipeline.image.lora.loading import load_adapter, load_pipeline, unload_adapter
from valentina_pipeline.image.lora.reader import read_lora
from valentina_pipeline.image.lora.unet_names import SDXL, Layout, diffusers_name, layout_of, original_name
from valentina_pipeline.image.models.base_model import BaseModel

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.0.resnets.0.conv2"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"
FLAT = f"lora_unet_{QUERY.replace('.', '_')}"
FLAT_CONV = f"lora_unet_{CONV.replace('.', '_')}"


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_bases.loaded("sdxl")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.3


DOWN, UP = random(4, 32), random(32, 4)
"""Of `QUERY`, whose weight is 32 x 32."""


def change(
    base: BaseModel, file: Path, tensors: dict[str, torch.Tensor], **metadata: str
) -> dict[str, torch.Tensor]:
    """What a file adds to the weights of the layers that it changes, by network and path."""
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file)
    load_pipeline(base, file)
    found = {}
    for network in ("unet", *base.text_encoders):
        for path, layer in getattr(base.pipe, network).named_modules():
            if "default" in getattr(layer, "scaling", {}):
                layer.merge()
                merged = layer.get_base_layer().weight.detach().clone()
                layer.unmerge()
                found[f"{network}.{path}"] = merged - layer.get_base_layer().weight.detach()
    load_pipeline(base)
    return found


def ends(layer: str, down: str, up: str) -> dict[str, torch.Tensor]:
    return {f"{layer}{down}": DOWN, f"{layer}{up}": UP}


SAI = "middle_block.1.transformer_blocks.0.attn1.to_q"
STYLES = {
    "kohya": ends(FLAT, ".lora_down.weight", ".lora_up.weight"),
    "sai": ends(f"lora_unet_{SAI.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"),
    "comfyui": ends(f"diffusion_model.{SAI}", ".lora_A.weight", ".lora_B.weight"),
    "diffusers": ends(f"unet.{QUERY}", ".lora_A.weight", ".lora_B.weight"),
    "unnamed": ends(QUERY, ".lora_A.weight", ".lora_B.weight"),
    "peft": ends(f"base_model.model.{QUERY}", ".lora_A.default.weight", ".lora_B.default.weight"),
    "old": ends(f"unet.{QUERY}", ".lora.down.weight", ".lora.up.weight"),
    "older": ends(f"unet.{QUERY.replace('to_q', 'processor.to_q')}", "_lora.down.weight", "_lora.up.weight"),
    "simpletuner": ends(f"lycoris_{QUERY.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"),
}


@pytest.mark.parametrize("style", STYLES)
def test_each_tool_s_name_of_a_layer_is_that_layer(style: str, base: BaseModel, tmp_path: Path) -> None:
    found = change(base, tmp_path / "a.safetensors", STYLES[style])
    assert list(found) == [f"unet.{QUERY}"]
    torch.testing.assert_close(found[f"unet.{QUERY}"], UP @ DOWN, atol=1e-5, rtol=1e-4)


def test_old_names_of_outputs_and_text_encoders_are_known(tmp_path: Path) -> None:
    old = OUT.removesuffix(".0").replace("to_out", "processor.to_out_lora")
    text = TEXT.replace("q_proj", "to_q_lora")
    tensors = {f"unet.{old}.down.weight": DOWN, f"unet.{old}.up.weight": UP}
    tensors |= {f"text_encoder.{text}.down.weight": DOWN, f"text_encoder.{text}.up.weight": UP}
    linear = f"text_encoder_2.{TEXT}.lora_linear_layer"
    tensors |= {f"{linear}.down.weight": DOWN, f"{linear}.up.weight": UP}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
    layers = read_lora(tmp_path / "a.safetensors").layers
    flat = TEXT.replace(".", "_")
    assert set(layers) == {("unet", OUT.replace(".", "_")), ("text_encoder", flat), ("text_encoder_2", flat)}


def test_each_layer_has_its_own_rank_and_alpha(base: BaseModel, tmp_path: Path) -> None:
    tensors = {f"{FLAT}.alpha": torch.tensor(1.0), **STYLES["kohya"]}
    other = FLAT.replace("attn1_to_q", "attn1_to_k")  # without an alpha, which is the rank then
    tensors |= {
        f"{other}.lora_down.weight": DOWN[:2],
        f"{other}.lora_up.weight": UP[:, :2],
    }
    found = change(base, tmp_path / "a.safetensors", tensors)
    torch.testing.assert_close(found[f"unet.{QUERY}"], UP @ DOWN / 4, atol=1e-5, rtol=1e-4)
    key = f"unet.{QUERY.replace('to_q', 'to_k')}"
    torch.testing.assert_close(found[key], UP[:, :2] @ DOWN[:2], atol=1e-5, rtol=1e-4)


def test_a_tucker_convolution_is_one_convolution(base: BaseModel, tmp_path: Path) -> None:
    down, mid, up = random(2, 16, 1, 1), random(2, 2, 3, 3), random(16, 2, 1, 1)
    tensors = {
        f"{FLAT_CONV}.lora_down.weight": down,
        f"{FLAT_CONV}.lora_mid.weight": mid,
        f"{FLAT_CONV}.lora_up.weight": up,
        f"{FLAT_CONV}.alpha": torch.tensor(1.0),
    }
    found = change(base, tmp_path / "a.safetensors", tensors)
    whole = torch.einsum("or,rskl,si->oikl", up[..., 0, 0], mid, down[..., 0, 0]) / 2
    torch.testing.assert_close(found[f"unet.{CONV}"], whole, atol=1e-5, rtol=1e-4)


def test_a_loha_is_the_product_of_two(base: BaseModel, tmp_path: Path) -> None:
    parts = {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP.flip(0), "hada_w2_b": DOWN.flip(1)}
    tensors = {f"{FLAT}.{name}": tensor for name, tensor in parts.items()}
    found = change(base, tmp_path / "a.safetensors", {**tensors, f"{FLAT}.alpha": torch.tensor(2.0)})
    whole = (UP @ DOWN) * (UP.flip(0) @ DOWN.flip(1)) / 2
    torch.testing.assert_close(found[f"unet.{QUERY}"], whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_lycoris_lokr_of_any_factor_is_the_kronecker_product(
    factor: int, base: BaseModel, tmp_path: Path
) -> None:
    rest = 32 // factor
    first, a, b = random(factor, factor), random(rest, 2), random(2, rest)
    whole = {f"{FLAT}.lokr_w1": first, f"{FLAT}.lokr_w2": a @ b, f"{FLAT}.alpha": torch.tensor(9.0)}
    found = change(base, tmp_path / "a.safetensors", whole)  # whose alpha LyCORIS does not look at
    torch.testing.assert_close(found[f"unet.{QUERY}"], torch.kron(first, a @ b), atol=1e-5, rtol=1e-4)
    split = {f"{FLAT}.lokr_w1": first, f"{FLAT}.lokr_w2_a": a, f"{FLAT}.lokr_w2_b": b}
    found = change(base, tmp_path / "b.safetensors", {**split, f"{FLAT}.alpha": torch.tensor(1.0)})
    torch.testing.assert_close(found[f"unet.{QUERY}"], torch.kron(first, a @ b) / 2, atol=1e-5, rtol=1e-4)


LORA = STYLES["kohya"]
KEY = FLAT.replace("attn1_to_q", "attn1_to_k")
LOKR = {f"{KEY}.lokr_w1": random(4, 4), f"{KEY}.lokr_w2": random(8, 8)}
LOHA = {
    f"{KEY}.hada_w1_a": UP,
    f"{KEY}.hada_w1_b": DOWN,
    f"{KEY}.hada_w2_a": UP.flip(0),
    f"{KEY}.hada_w2_b": DOWN.flip(1),
}


@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_a_lora_beside_a_loha_or_a_lokr_is_read_as_what_it_is(
    kind: str, base: BaseModel, tmp_path: Path
) -> None:
    down, up = random(2, 16, 3, 3), random(16, 2, 1, 1)
    conv = {f"{FLAT_CONV}.lora_down.weight": down, f"{FLAT_CONV}.lora_up.weight": up}
    other, whole = {
        "lokr": (LOKR, torch.kron(*LOKR.values())),
        "loha": (LOHA, (UP @ DOWN) * (UP.flip(0) @ DOWN.flip(1))),
    }[kind]
    tensors = {**LORA, f"{FLAT}.alpha": torch.tensor(1.0), **conv, **other}
    found = change(base, tmp_path / "a.safetensors", tensors)
    wanted = {
        f"unet.{QUERY}": UP @ DOWN / 4,
        f"unet.{QUERY.replace('to_q', 'to_k')}": whole,
        f"unet.{CONV}": (up.flatten(1) @ down.flatten(1)).view(16, 16, 3, 3),
    }
    assert set(found) == set(wanted)
    for name, update in wanted.items():
        torch.testing.assert_close(found[name], update, atol=1e-5, rtol=1e-4)


VALUE = FLAT.replace("attn1_to_q", "attn1_to_v")
DORA = {
    f"{VALUE}.lora_down.weight": DOWN,
    f"{VALUE}.lora_up.weight": UP,
    f"{VALUE}.dora_scale": UP[:, :1].abs(),
}
LOHA_OUT = {name.replace("to_k", "to_out_0"): tensor for name, tensor in LOHA.items()}


def whole_updates(base: BaseModel, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """What each form of the mixture adds to its layer at a weight of the adapter."""
    weight = base.unet.get_submodule(QUERY.replace("to_q", "to_v")).weight.detach()
    dora = weight + scale * UP @ DOWN
    return {
        f"unet.{QUERY}": scale * UP @ DOWN / 4,
        f"unet.{QUERY.replace('to_q', 'to_v')}": UP[:, :1].abs() * dora / dora.norm(dim=1, keepdim=True)
        - weight,
        f"unet.{QUERY.replace('to_q', 'to_k')}": scale * torch.kron(*LOKR.values()),
        f"unet.{OUT}": scale * (UP @ DOWN) * (UP.flip(0) @ DOWN.flip(1)),
    }


ALPHA = {f"{FLAT}.alpha": torch.tensor(1.0)}
MIXTURES = {
    "LoRA, DoRA": LORA | ALPHA | DORA,
    "LoHa, LoKr": LOHA_OUT | LOKR,
    "all": LORA | ALPHA | DORA | LOKR | LOHA_OUT,
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_each_layer_of_a_mixture_changes_by_its_own_form(
    mixture: str, base: BaseModel, tmp_path: Path
) -> None:
    tensors = MIXTURES[mixture]
    load_pipeline(base)
    wanted = whole_updates(base)
    found = change(base, tmp_path / "a.safetensors", tensors)
    assert len(found) == len({name.partition(".")[0] for name in tensors})
    for name, update in found.items():
        torch.testing.assert_close(update, wanted[name], atol=1e-5, rtol=1e-4)


def test_a_mixture_is_one_adapter_among_others(base: BaseModel, tmp_path: Path) -> None:
    load_pipeline(base)
    wanted, before = whole_updates(base, 0.5), pictured(base)
    weights = {name: base.unet.get_submodule(name.removeprefix("unet.")).weight.clone() for name in wanted}
    for name, tensors in (("mixed", MIXTURES["all"]), ("plain", LORA)):
        save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, tmp_path / name)
        load_adapter(base, tmp_path / name, name)
    base.pipe.set_adapters(["mixed"], [0.5])
    base.pipe.fuse_lora(components=["unet"], safe_fusing=True)
    for name, weight in weights.items():
        layer = base.unet.get_submodule(name.removeprefix("unet."))
        torch.testing.assert_close(layer.get_base_layer().weight - weight, wanted[name], atol=1e-5, rtol=1e-4)
    base.pipe.unfuse_lora(components=["unet"])
    unload_adapter(base, "mixed")
    assert set(base.unet.peft_config) == {"plain"}
    unload_adapter(base, "plain")
    torch.testing.assert_close(pictured(base), before, atol=1e-4, rtol=1e-3)


def pictured(base: BaseModel) -> torch.Tensor:
    """What the U-Net makes of the same noise."""
    noise = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    text = torch.ones(1, 77, tiny_bases.WIDTH + tiny_bases.WIDTH_2)
    more = {"text_embeds": torch.ones(1, tiny_bases.WIDTH_2), "time_ids": torch.zeros(1, 6)}
    with torch.no_grad():
        return base.unet(noise, 500, text, added_cond_kwargs=more).sample


@pytest.mark.parametrize("mixture", [*MIXTURES, "other form for text"])
def test_a_mixture_is_not_trained_further(mixture: str, base: BaseModel, tmp_path: Path) -> None:
    text = f"lora_te1_{TEXT.replace('.', '_')}"
    other = LOKR | {f"{text}.lora_down.weight": random(4, 32), f"{text}.lora_up.weight": UP}
    tensors = MIXTURES.get(mixture, other)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, tmp_path / "a")
    load_pipeline(base, tmp_path / "a")
    with pytest.raises(ValueError, match="cannot be trained further, only used and packaged"):
        from_loaded(base)
    load_pipeline(base)


FLUX = "transformer.single_transformer_blocks.0.attn.to_q"
WRONG: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "embedding": ({**LORA, "bundle_emb.ohwx.string_to_param": DOWN}, "bundle_emb.*a textual inversion"),
    "flux": (ends(FLUX, ".lora_A.weight", ".lora_B.weight"), f"layer {FLUX} belongs to Flux"),
    "flux by kohya": (
        ends("lora_unet_double_blocks_0_img_attn_qkv", ".lora_down.weight", ".lora_up.weight"),
        "belongs to Flux",
    ),
    "other layers": (
        {**LORA, **ends(FLAT.replace("mid_block", "up_blocks_9"), ".lora_down.weight", ".lora_up.weight")},
        "the sdxl base model has no layer for 1 of the 2 in the file: lora_unet_up_blocks_9_att",
    ),
    "other sizes": (
        {f"{FLAT}.lora_down.weight": random(4, 64), f"{FLAT}.lora_up.weight": random(64, 4)},
        "attn1_to_q is 64 x 64, but the base model's layer is 32 x 32: the LoRA belongs to another",
    ),
    "half": ({f"{FLAT}.lora_down.weight": DOWN}, "attn1_to_q is damaged: it has only lora_A"),
    "ranks": (
        {f"{FLAT}.lora_down.weight": DOWN, f"{FLAT}.lora_up.weight": UP[:, :3]},
        "ranks of its matrices differ",
    ),
    "ranks around a middle": (
        {**LORA, f"{FLAT}.lora_mid.weight": random(4, 3, 1, 1)},
        "ranks of its matrices differ",
    ),
    "ranks of a LoHa": ({**LOHA, f"{KEY}.hada_w2_b": DOWN[:3]}, "ranks of its matrices differ"),
    "ranks of a LoKr": (
        {f"{KEY}.lokr_w1": random(4, 4), f"{KEY}.lokr_w2_a": random(8, 2), f"{KEY}.lokr_w2_b": random(3, 8)},
        "ranks of its matrices differ",
    ),
    "a flat middle": (
        {
            **{name: tensor.T for name, tensor in LOHA.items() if name.endswith("_a")},
            **{name: tensor for name, tensor in LOHA.items() if name.endswith("_b")},
            **{f"{KEY}.hada_t{n}": random(4, 4) for n in (1, 2)},
        },
        "ranks of its matrices differ",
    ),
    "no rank": (
        {f"{FLAT}.lora_down.weight": DOWN[:0], f"{FLAT}.lora_up.weight": UP[:, :0]},
        r"lora_. has shape \(.*0.*\); must be a matrix",
    ),
    "no matrix": (
        {f"{FLAT}.lora_down.weight": DOWN[0], f"{FLAT}.lora_up.weight": UP},
        r"lora_A has shape \(32,\); must be a matrix",
    ),
    "nan": ({**LORA, f"{FLAT}.lora_up.weight": UP / 0}, "lora_B must contain finite numbers"),
    "twice": ({**LORA, **STYLES["sai"]}, "are the same layer"),
    "oft": ({f"{FLAT}.oft_blocks": DOWN}, "oft_blocks is an OFT; only LoRA, DoRA, LoHa and LoKr"),
    "whole": ({f"{FLAT}.diff": DOWN}, "is a full weight difference"),
    "magnitudes": (
        {**LORA, f"{FLAT}.dora_scale": random(1, 32)},
        r"\(1, 32\); must be one for each of its 32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_read_whole_is_refused_by_file_and_layer(
    case: str, base: BaseModel, tmp_path: Path
) -> None:
    tensors, said = WRONG[case]
    file = tmp_path / "theirs.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file)
    with pytest.raises(ValueError, match=rf"{re.escape(str(file))}: .*{said}"):
        load_adapter(base, file, "theirs")
    unload_adapter(base, "theirs")
    assert "theirs" not in getattr(base.unet, "peft_config", {})


def test_patterns_of_the_metadata_are_names_and_no_slow_expressions(tmp_path: Path) -> None:
    config = {"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {"(a+)+$": 1}}
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    save_file(STYLES["diffusers"], tmp_path / "a.safetensors", metadata)
    with pytest.raises(ValueError, match="alpha_pattern must map layer names to numbers"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_stability_s_names_lead_back_to_each_layer(family: str) -> None:
    unet = tiny_bases.loaded(family).unet
    layout = layout_of(unet.config)
    for path, module in unet.named_modules():
        if hasattr(module, "weight"):
            flat = path.replace(".", "_")
            dotted = original_name(path, layout)
            assert original_name(flat, layout, "_") == dotted.replace(".", "_")
            assert diffusers_name(dotted.replace(".", "_"), layout.size) == flat
            assert diffusers_name(flat, layout.size) == flat


def test_the_published_sdxl_has_the_names_that_its_own_file_has() -> None:
    names = {
        "down_blocks.1.attentions.0.proj_in": "input_blocks.4.1.proj_in",
        "down_blocks.2.resnets.1.time_emb_proj": "input_blocks.8.0.emb_layers.1",
        "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
        "mid_block.resnets.1.conv1": "middle_block.2.in_layers.2",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
        "up_blocks.1.attentions.2.proj_out": "output_blocks.5.1.proj_out",
        "up_blocks.2.resnets.0.conv_shortcut": "output_blocks.6.0.skip_connection",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    assert {ours: original_name(ours, SDXL) for ours in names} == names
    assert original_name("up_blocks.2.upsamplers.0.conv", Layout(3, (False, True, True, True))).startswith(
        "output_blocks.8.2"
    )
