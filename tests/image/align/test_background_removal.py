from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from portraits import noise
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.image.align.background_removal import GRAY, remover


def segformer(folder: Path, labels: tuple[str, ...], bias: float) -> Path:
    """A Segformer of true architecture and random weights, the surer of its first class the larger `bias`."""
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
        id2label=dict(enumerate(labels)), label2id={name: index for index, name in enumerate(labels)},
    )  # fmt: skip
    network = SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        network.decode_head.classifier.bias[0] += bias
    network.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_what_is_background_turns_grey_and_what_is_not_stays(tmp_path: Path) -> None:
    image = noise(1, 90, 60)
    everything = remover(str(segformer(tmp_path / "all", ("background", "person"), 100)))(image)
    assert everything.size == image.size and everything.getextrema() == ((GRAY, GRAY),) * 3
    nothing = remover(str(segformer(tmp_path / "none", ("Background", "person"), -100)))(image)
    assert np.array_equal(np.asarray(nothing), np.asarray(image))
    some = remover(str(segformer(tmp_path / "some", ("background", "person"), 0)))
    assert np.array_equal(np.asarray(some(image)), np.asarray(some(image)))


def test_a_model_that_is_missing_or_knows_no_background_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="nobody/no-such-model"):
        remover("nobody/no-such-model")
    with pytest.raises(MissingModelError, match="a class called 'background'"):
        remover(str(segformer(tmp_path, ("wall", "person"), 0)))
