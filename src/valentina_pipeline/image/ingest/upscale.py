"""Super-resolution of small but good images with Swin2SR (Conde et al. 2022)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError, missing_hub_model
from valentina_pipeline.common.threads import one_thread


@dataclass(frozen=True)
class Upscaler:
    """A loaded super-resolution model.

    Attributes:
        factor: scale of width and height.
        enlarge: image -> upscaled RGB image; reproducible, because it runs on one thread.
    """

    factor: int
    enlarge: Callable[[Image.Image], Image.Image]


def missing_upscaler(model: str) -> MissingModelError:
    """Return the error for an upscaler that is not on this machine."""
    return missing_hub_model("the upscaler", model, "see its card", "ingest.upscale_model")


@lru_cache(maxsize=1)
def upscaler(model: str) -> Upscaler:
    """Load a model, once per process.

    Args:
        model: a hub id already downloaded, such as "caidas/swin2SR-classical-sr-x2-64", or a folder.

    Raises:
        MissingModelError: the model is not on this machine.
    """
    import torch
    from transformers import Swin2SRForImageSuperResolution, Swin2SRImageProcessor

    try:
        processor = Swin2SRImageProcessor.from_pretrained(model, local_files_only=True)
        network = Swin2SRForImageSuperResolution.from_pretrained(
            model, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as err:
        raise missing_upscaler(model) from err
    network.eval()
    factor = int(network.config.upscale)

    def enlarge(image: Image.Image) -> Image.Image:
        pixels = processor(images=image.convert("RGB"), return_tensors="pt")
        with one_thread(), torch.inference_mode():
            upscaled = network(**pixels).reconstruction[0].permute(1, 2, 0).clamp(0, 1).numpy()
        # the processor pads right and bottom to whole windows
        upscaled = upscaled[: image.height * factor, : image.width * factor]
        return Image.fromarray((upscaled * 255).round().astype(np.uint8))

    return Upscaler(factor, enlarge)
