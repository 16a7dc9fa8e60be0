import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import tiny_bases
from loras import KOHYA_NAME, NOTES, picture, trained, written
from valentina_pipeline.cli.lora import lora
from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.image.lora.adapter import Kind, LayerOverride
from valentina_pipeline.image.lora.algebra import Pair
from valentina_pipeline.image.lora.formats import export_adapter
from valentina_pipeline.image.lora.loading import load_pipeline
from valentina_pipeline.image.lora.merge import fuse, kohya_file, read_pairs, weighted_files
from valentina_pipeline.image.lora.reader import read_lora
from valentina_pipeline.image.lora.unet_names import SDXL

BLOCKS = (LayerOverride("up_blocks", 2, 1.0),)


def folder_of(tmp_path: Path, name: str, kind: Kind = "lora", family: str = "sdxl") -> Path:
    adapter = trained(tiny_bases.loaded(family), "attention", kind=kind, blocks=BLOCKS)
    (tmp_path / name).mkdir()
    return written(export_adapter(adapter, NOTES), tmp_path / name)


@pytest.mark.parametrize(("family", "kind"), [("sdxl", "rslora"), ("sd15", "lora")])
def test_both_formats_are_read_as_the_same_updates(family: str, kind: Kind, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a", kind, family)
    ours, theirs = (read_pairs(read_lora(folder / name)) for name in (LORA_FILE, KOHYA_NAME))
    assert ours.keys() == theirs.keys()
    for layer, pair in ours.items():
        torch.testing.assert_close(pair.update(), theirs[layer].update())


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.floats(0.01, 8))


@given(st.lists(SHAPES, min_size=1, max_size=4))
def test_a_file_of_any_ranks_and_scales_comes_back_as_the_same_updates(
    shapes: list[tuple[int, int, int, float]],
) -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = {
        f"unet.layer_{index}": Pair(
            torch.randn(rank, width, generator=generator),
            torch.randn(height, rank, generator=generator),
            scale,
        )
        for index, (rank, width, height, scale) in enumerate(shapes)
    }
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(kohya_file(pairs, "sd15", SDXL, {}))
        again, tensors = read_pairs(read_lora(Path(file.name))), load_file(file.name)
    assert len({t.item() for name, t in tensors.items() if name.endswith(".alpha")}) == 1
    assert pairs.keys() == again.keys()
    for name, pair in pairs.items():
        torch.testing.assert_close(again[name].update(), pair.update())


def test_a_sum_draws_what_both_draw_together(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a")
    file, output = folder / KOHYA_NAME, tmp_path / "sum.safetensors"
    done = CliRunner().invoke(lora, ["merge", str(output), f"{file}:0.25", f"{folder / LORA_FILE}:0.75"])
    assert done.exit_code == 0, done.output
    assert "100.0% of the update's energy" in done.output
    model = tiny_bases.loaded("sdxl")
    load_pipeline(model, file)
    expected = picture(model)
    load_pipeline(model, output)
    np.testing.assert_allclose(picture(model), expected, atol=1e-4)


def test_a_smaller_version_says_what_it_keeps(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "a") / KOHYA_NAME
    output = tmp_path / "small.safetensors"
    done = CliRunner().invoke(lora, ["resize", str(output), str(file), "--rank", "1"])
    assert done.exit_code == 0, done.output
    small = read_pairs(read_lora(output))
    assert {pair.rank for pair in small.values()} == {1}
    assert 10 < float(done.output.split()[3].rstrip("%")) < 99


def test_merged_into_the_base_it_draws_the_same_without_a_lora(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "a") / KOHYA_NAME
    (tmp_path / "half.safetensors").write_bytes(kohya_file(*weighted_files([(file, 0.5)]), {}))
    model = tiny_bases.loaded("sdxl")
    load_pipeline(model, file)
    expected = picture(model)
    merged = tiny_bases.loaded("sdxl")
    fuse(merged, [(file, 0.5), (tmp_path / "half.safetensors", 1.0)])
    assert not getattr(merged.unet, "peft_config", None)
    np.testing.assert_allclose(picture(merged), expected, atol=1e-4)


def test_kohya_files_of_several_alphas_are_read_at_each_layers_own(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "a") / KOHYA_NAME
    model = tiny_bases.loaded("sdxl")
    load_pipeline(model, file)
    expected = picture(model)
    tensors = load_file(file)
    for index, name in enumerate(sorted(n for n in tensors if n.endswith(".alpha"))):
        times = 1 + index % 3  # the same update at another alpha
        tensors[name] = tensors[name] * times
        up = name.replace(".alpha", ".lora_up.weight")
        tensors[up] = tensors[up] / times
    save_file(tensors, tmp_path / "theirs.safetensors")
    load_pipeline(model, tmp_path / "theirs.safetensors")
    np.testing.assert_allclose(picture(model), expected, atol=1e-4)


def test_what_has_no_sum_is_refused_by_name(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "a", "dora") / LORA_FILE
    done = CliRunner().invoke(lora, ["merge", str(tmp_path / "sum.safetensors"), str(file)])
    assert done.exit_code == 1
    assert "is not a plain LoRA" in done.output
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="tensor a is of an unknown kind; only LoRA"):
        read_lora(tmp_path / "other.safetensors")
    gone = CliRunner().invoke(lora, ["merge", "x", "absent.safetensors:0.5"])
    assert "absent.safetensors is not a file" in gone.output


def attention(prefix: str) -> dict[str, torch.Tensor]:
    """One layer of SDXL's published layout, named as a tool names it."""
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, 8, generator=generator), torch.randn(8, 2, generator=generator)
    return {f"{prefix}.lora_down.weight": down, f"{prefix}.lora_up.weight": up}


def test_one_layer_under_two_tools_names_is_summed_as_one(tmp_path: Path) -> None:
    tail = "transformer_blocks_0_attn1_to_q"
    names = {"ours": f"down_blocks_1_attentions_0_{tail}", "sai": f"input_blocks_4_1_{tail}"}
    for name, layer in names.items():
        save_file(attention(f"lora_unet_{layer}"), tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in names]
    output = tmp_path / "sum.safetensors"
    done = CliRunner().invoke(lora, ["merge", str(output), f"{files[0]}:0.5", f"{files[1]}:2", "--rank", "2"])
    assert done.exit_code == 0, done.output
    assert "1 layers, 100.0% of the update's energy" in done.output
    assert {name.partition(".")[0] for name in load_file(output)} == {f"lora_unet_{names['sai']}"}
    (pair,) = read_pairs(read_lora(output)).values()
    (one,) = read_pairs(read_lora(Path(files[0]))).values()
    torch.testing.assert_close(pair.update(), 2.5 * one.update(), rtol=1e-4, atol=1e-4)


def test_loras_of_two_families_have_no_sum(tmp_path: Path) -> None:
    for width in (768, 2048):
        name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
        tensors = {f"{name}.lora_A.weight": torch.ones(1, width), f"{name}.lora_B.weight": torch.ones(4, 1)}
        save_file(tensors, tmp_path / f"{width}.safetensors")
    with pytest.raises(ValueError, match=r"768.safetensors and .*2048.safetensors belong to different base"):
        weighted_files([(tmp_path / f"{width}.safetensors", 1.0) for width in (768, 2048)])


def test_a_file_that_fits_no_layer_is_merged_into_nothing(tmp_path: Path) -> None:
    file = tmp_path / "strange.safetensors"
    save_file(attention("lora_unet_down_blocks_7_attentions_0_proj_in"), file)
    with pytest.raises(ValueError, match=r"strange.safetensors: the sdxl base model has no layer for 1 of"):
        fuse(tiny_bases.loaded("sdxl"), [(file, 1.0)])
