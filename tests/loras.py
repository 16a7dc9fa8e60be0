"""Adapters with random numbers in place of what training would find, and what they draw."""

from pathlib import Path

import numpy as np
import torch

import tiny_bases
from valentina_pipeline.image.lora.adapter import Adapter, AdapterSpec, Kind, LayerOverride, inject
from valentina_pipeline.image.lora.formats import AdapterMetadata
from valentina_pipeline.image.models.base_model import BaseModel

NOTES = AdapterMetadata("valentina", "b" * 64, "d" * 64, tiny_bases.SIZE, "v_prediction")
KOHYA_NAME = "valentina.kohya.safetensors"


def trained(
    model: BaseModel,
    targets: str,
    alpha: float = 2.0,
    text: bool = True,
    kind: Kind = "lora",
    blocks: tuple[LayerOverride, ...] = (),
) -> Adapter:
    """An adapter of rank 4 with random numbers in place of what training would find."""
    adapter = inject(model, AdapterSpec(kind, 4, alpha, targets, blocks), text, seed=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapter.weights().items():
            if "magnitude" in name:
                weight.mul_(1 + 0.3 * torch.rand(weight.shape, generator=generator))
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return adapter


def picture(model: BaseModel) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": 2, "height": tiny_bases.SIZE, "width": tiny_bases.SIZE}
    return model.pipe("a woman", generator=generator, output_type="np", **options).images[0]


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
