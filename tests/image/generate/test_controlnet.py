"""Edges and what keeps to them, beside diffusers' own pipelines on random bases."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    T2IAdapter,
)
from PIL import Image, ImageDraw

import portraits
import steering
import tiny_bases
from runs import ROOT
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.image.generate.canny import edge_f1, edges
from valentina_pipeline.image.generate.controlnet import Control, apply_controls, load
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.models.base_model import load_base

SIZE = tiny_bases.SIZE
ASKED = ImageSpec("a woman", 7)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


@lru_cache
def shapes(seed: int = 0) -> Image.Image:
    """Lines, white on black."""
    image = Image.new("RGB", (SIZE, SIZE))
    ends = np.random.default_rng(seed).integers(SIZE, size=(6, 4))
    for line in ends:
        ImageDraw.Draw(image).line(list(map(int, line)), fill="white", width=2)
    return image


@lru_cache(maxsize=2)
def pipe(family: str) -> Any:
    return tiny_bases.loaded(family).pipe


def drawn(family: str, *controls: Control) -> Image.Image:
    with apply_controls(pipe(family).unet, controls):
        return generate_images(pipe(family), [ASKED], 2, 4.0, SIZE)[0]


def parts(family: str) -> dict[str, Any]:
    """What diffusers' pipelines are made of."""
    more = {"force_zeros_for_empty_prompt": False} if family == "sdxl" else {}
    return {**pipe(family).components, **more}


def own(family: str, **given: Any) -> dict[str, Any]:
    """What diffusers' pipelines are called with."""
    return {
        "prompt": ASKED.prompt,
        "generator": torch.Generator().manual_seed(ASKED.seed),
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "width": SIZE,
        "height": SIZE,
        **given,
    }


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_controlnets_steer_as_in_diffusers_own_pipelines_one_or_two_at_once(family: str) -> None:
    kind = StableDiffusionXLControlNetPipeline if family == "sdxl" else StableDiffusionControlNetPipeline
    nets = [ControlNetModel.from_pretrained(steering.controlnet(family, seed)) for seed in (1, 2)]
    both = [Control(nets[0], shapes(0), 0.7), Control(nets[1], shapes(1), 1.2)]
    theirs = kind(controlnet=nets, **parts(family))
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        **own(family, image=[shapes(0), shapes(1)], controlnet_conditioning_scale=[0.7, 1.2])
    ).images[0]
    ours = drawn(family, *both)
    assert apart(ours, expected) <= 1
    assert apart(ours, drawn(family, both[0])) > 5
    assert apart(drawn(family, both[0]), drawn(family)) > 5


def test_a_t2i_adapter_steers_as_in_diffusers_own_pipeline_and_at_scale_0_not_at_all() -> None:
    network = T2IAdapter.from_pretrained(steering.t2i("sdxl"))
    theirs = StableDiffusionXLAdapterPipeline(adapter=network, **parts("sdxl"))
    theirs.set_progress_bar_config(disable=True)
    given = {"image": shapes(), "adapter_conditioning_scale": 0.8}
    assert (
        apart(drawn("sdxl", Control(network, shapes(), 0.8)), theirs(**own("sdxl", **given)).images[0]) <= 1
    )
    assert apart(drawn("sdxl", Control(network, shapes(), 0.8)), drawn("sdxl")) > 5
    assert apart(drawn("sdxl", Control(network, shapes(), 0.0)), drawn("sdxl")) == 0


def test_a_controlnet_and_a_t2i_adapter_work_together_and_leave_nothing_behind() -> None:
    net = Control(load(steering.controlnet("sdxl", 1), "controlnet", pipe("sdxl").unet), shapes(), 0.7)
    adapter = Control(load(steering.t2i("sdxl"), "t2i", pipe("sdxl").unet), shapes(), 0.7)
    before, both = drawn("sdxl"), drawn("sdxl", net, adapter)
    assert apart(both, drawn("sdxl", net)) > 5
    assert apart(both, drawn("sdxl", adapter)) > 5
    assert apart(drawn("sdxl"), before) == 0


@pytest.mark.slow
def test_the_tiny_world_s_own_network_keeps_to_the_edges_that_it_is_shown() -> None:
    bases = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text("utf-8"))
    chosen = BaseConfig.model_validate(bases["tiny"]["model"])
    base = load_base(chosen, ROOT)
    network = load(ROOT / chosen.controlnets["canny"], "controlnet", base.unet)
    kept: dict[float, list[float]] = {0.0: [], 1.0: []}
    for number in range(4):
        lines = edges(portraits.picture(number, size=128))
        for scale, of_each in kept.items():
            with apply_controls(base.unet, [Control(network, lines, scale)]):
                (drawing,) = generate_images(base.pipe, [ImageSpec("photo of a woman", number)], 8, 2.0, 128)
            of_each.append(edge_f1(drawing, lines))
    assert np.mean(kept[1.0]) > np.mean(kept[0.0]) + 0.15


def test_a_network_for_another_base_says_so() -> None:
    with pytest.raises(ValueError, match="for another base model: its in_channels is 4"):
        load(steering.controlnet("sd15", 1), "controlnet", pipe("sdxl").unet)


def test_a_network_that_is_a_pickle_is_not_opened(tmp_path: Path) -> None:
    folder = steering.controlnet("sdxl", 1)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(OSError, match="safetensors"):
        load(tmp_path, "controlnet", pipe("sdxl").unet)


def test_edges_agree_with_themselves_a_pixel_aside_and_not_with_others() -> None:
    board = np.kron([[0, 1] * 2, [1, 0] * 2] * 2, np.ones((16, 16))) * 255
    picture = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    lines = edges(picture)
    assert edge_f1(picture, lines) == 1
    assert edge_f1(Image.fromarray(np.roll(pixels(picture), 1, axis=1).astype(np.uint8)), lines) > 0.9
    assert edge_f1(Image.fromarray(np.roll(pixels(picture), 8, axis=1).astype(np.uint8)), lines) < 0.7
    assert edge_f1(Image.new("RGB", picture.size), lines) == 0
