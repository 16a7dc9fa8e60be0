"""Random networks that steer the random bases, in diffusers' folder layout."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import ControlNetModel, T2IAdapter

import tiny_bases


@lru_cache(maxsize=4)
def controlnet(family: str, seed: int) -> Path:
    """A ControlNet that changes the image: nothing of it is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = tiny_bases.loaded(family).unet
        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8,) * 4)
        for weight in network.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.2)
    return _saved(network)


@lru_cache(maxsize=1)
def t2i(family: str) -> Path:
    """A T2I-Adapter of SDXL's kind."""
    channels = list(tiny_bases.loaded(family).unet.config.block_out_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return _saved(T2IAdapter(channels=channels, downscale_factor=16, adapter_type="full_adapter_xl"))


def _saved(network: object) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="steering-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    network.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder
