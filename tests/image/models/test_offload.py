"""Where networks are while they draw."""

from dataclasses import replace

import numpy as np
import pytest

import tiny_bases
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.models.offload import (
    Offload,
    Placement,
    apply,
    choose_placement,
    execution_device,
    fully_loaded,
    place,
)

GIB = 2**30
SDXL = {"unet": 5 * GIB, "vae": GIB // 3, "text_encoder": GIB // 4, "text_encoder_2": 1.3 * GIB}


@pytest.mark.parametrize(
    ("free", "offload", "tiled"),
    [
        (80, "none", False),
        (13, "none", False),
        (9, "none", True),
        (7, "model", True),
        (3, "sequential", True),
    ],
)
def test_the_less_memory_is_free_the_more_waits_outside(free: int, offload: str, tiled: bool) -> None:
    placement = choose_placement(SDXL, 128, 1024, free * GIB)
    assert (placement.offload, placement.tiled) == (offload, tiled)
    assert placement.why == f"6.9 GiB of weights, {free}.0 GiB free"


def test_without_an_accelerator_nothing_is_moved_and_large_pictures_are_decoded_in_tiles() -> None:
    assert choose_placement(SDXL, 128, 1024, None).offload == "none"
    assert [choose_placement(SDXL, 128, side, None).tiled for side in (1024, 2048)] == [False, True]


@pytest.mark.parametrize("policy", ["model", "sequential"])
def test_networks_that_come_when_they_compute_draw_the_same_picture(policy: Offload) -> None:
    base = tiny_bases.loaded("sdxl")

    def drawn() -> np.ndarray:
        (image,) = generate_images(base.pipe, [ImageSpec("a woman", 1)], 2, 2.0, tiny_bases.SIZE)
        return np.asarray(image)

    before = drawn()
    apply(base.pipe, Placement(policy, False, ""), "cpu")  # which is treated as a GPU is
    assert all(weights.is_meta == (policy == "sequential") for weights in base.unet.parameters())
    assert str(execution_device(base.vae)).startswith("cpu")
    assert np.array_equal(drawn(), before)
    with fully_loaded(base.pipe, Placement(policy, False, "")):
        assert not any(weights.is_meta for weights in base.unet.parameters())
        base.unet.conv_out.weight.data.zero_()
    assert not np.array_equal(drawn(), before)


def test_a_pipeline_s_own_sizes_decide() -> None:
    base = tiny_bases.loaded("sdxl")
    weights = sum(p.nbytes for name in ("unet", "vae") for p in getattr(base.pipe, name).parameters())
    small = place(base.pipe, "cpu", tiny_bases.SIZE, weights // 8)
    assert small.offload == "sequential"
    assert base.pipe.vae.use_tiling
    assert replace(small, why="") == Placement("sequential", True, "")
