"""Safety checker of Stable Diffusion, beside the content filter, where its weights are at hand."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image.models.families import CONFIG_REPOS, no_progress_bars

WEIGHTS = "safety_checker/model.safetensors"


class InvalidCheckerError(ValueError):
    """A safety checker is there and cannot be used; the message says why."""


class SafetyChecker:
    """Compares what CLIP sees in a picture with concepts that it knows as unsafe.

    Args:
        folder: holds `safety_checker` and `feature_extractor`, as a base of SD 1.5 does.

    Raises:
        InvalidCheckerError: they cannot be read, or a weight is missing or no number.
    """

    def __init__(self, folder: Path) -> None:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPImageProcessor

        read = {"local_files_only": True}
        try:
            with no_progress_bars():
                network, told = StableDiffusionSafetyChecker.from_pretrained(
                    folder / "safety_checker", use_safetensors=True, output_loading_info=True, **read
                )
                self._prepare = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", **read)
        except Exception as err:  # readers fail in many ways: none of them is a checker that passes
            raise InvalidCheckerError(f"{folder}: its safety checker cannot be read: {err}") from err
        if lacking := [*told["missing_keys"], *told["mismatched_keys"]]:
            raise InvalidCheckerError(f"{folder}: its safety checker lacks weights: {lacking[0]}")
        if not all(weight.isfinite().all() for weight in network.state_dict().values()):
            raise InvalidCheckerError(f"{folder}: its safety checker holds weights that are no numbers")
        self._network: Any = network.eval()

    @classmethod
    def load_if_available(cls, base: Path) -> "SafetyChecker | None":
        """Return the one in a base's folder, else SD 1.5's in the hub's cache; None where neither is there.

        Nothing is downloaded, and only safetensors are read.
        """
        from huggingface_hub import try_to_load_from_cache

        if (base / WEIGHTS).is_file():
            return cls(base)
        cached = try_to_load_from_cache(CONFIG_REPOS["sd15"], WEIGHTS)
        return cls(Path(cached).parents[1]) if isinstance(cached, str) else None

    def unsafe(self, image: Image.Image) -> str | None:
        """Return what makes the picture unsafe, in words, or None.

        Fails closed: a picture that cannot be looked at is unsafe.
        """
        try:
            pixels = self._prepare(image.convert("RGB"), return_tensors="pt").pixel_values
            blackened = [np.zeros((1, 1, 3))]  # in place of the picture, which stays as it is
            _, (flagged,) = self._network(clip_input=pixels, images=blackened)
        except Exception as err:  # whatever breaks in here, the picture has not been looked at
            return f"safety checker failed: {type(err).__name__}: {err}"
        return "unsafe by Stable Diffusion's safety checker" if flagged else None
