"""Background removal with any semantic segmentation model that transformers can load."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError, missing_hub_model
from valentina_pipeline.common.threads import one_thread

GRAY = 128
"""Level of 255 that replaces the background; captions mention it."""

PLAIN = "plain grey background"
LABEL = "background"


def missing_segmenter(model: str) -> MissingModelError:
    """Return the error for a segmentation model that is not on this machine or lacks "background"."""
    kind = f"the segmentation model with a class called {LABEL!r},"
    return missing_hub_model(kind, model, "see its card", "align.background_model")


def remover(model: str) -> Callable[[Image.Image], Image.Image]:
    """Return a function that makes the background of an image gray.

    Args:
        model: a hub id already downloaded, or a folder; one of its classes must be "background".

    Raises:
        MissingModelError: the model is not on this machine, or lacks the class.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    try:
        processor = AutoImageProcessor.from_pretrained(model, local_files_only=True)
        network = AutoModelForSemanticSegmentation.from_pretrained(
            model, local_files_only=True, use_safetensors=True
        )
        background = {str(name).lower(): index for index, name in network.config.id2label.items()}[LABEL]
    except (OSError, ValueError, KeyError) as err:
        raise missing_segmenter(model) from err
    network.eval()

    def remove(image: Image.Image) -> Image.Image:
        pixels = processor(images=image, return_tensors="pt")
        with one_thread(), torch.inference_mode():
            scores = network(**pixels).logits
            large = torch.nn.functional.interpolate(scores, image.size[::-1], mode="bilinear")
            share = large.softmax(1)[0, background, :, :, None].numpy()
        kept = np.asarray(image.convert("RGB"), np.float32) * (1 - share) + GRAY * share
        return Image.fromarray(kept.round().astype(np.uint8))

    return remove
