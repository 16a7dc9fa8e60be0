from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution, Swin2SRImageProcessor

from portraits import noise
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.image.ingest.upscale import upscaler


def swin(folder: Path) -> str:
    """A Swin2SR of true architecture and random weights that doubles each side."""
    torch.manual_seed(0)
    config = Swin2SRConfig(
        image_size=16, embed_dim=12, depths=[1], num_heads=[2], window_size=8, mlp_ratio=2.0, upscale=2,
        upsampler="pixelshuffledirect",
    )  # fmt: skip
    Swin2SRForImageSuperResolution(config).save_pretrained(folder)
    Swin2SRImageProcessor().save_pretrained(folder)
    return str(folder)


def test_a_picture_becomes_larger_in_its_own_proportions_and_the_same_again(tmp_path: Path) -> None:
    model = upscaler(swin(tmp_path))
    image = noise(1, 45, 30)
    assert (model.factor, model.enlarge(image).size) == (2, (90, 60))
    assert np.array_equal(np.asarray(model.enlarge(image)), np.asarray(model.enlarge(image)))


def test_a_model_that_is_not_here_is_not_downloaded() -> None:
    with pytest.raises(MissingModelError, match="hf download nobody/no-such-model"):
        upscaler("nobody/no-such-model")
