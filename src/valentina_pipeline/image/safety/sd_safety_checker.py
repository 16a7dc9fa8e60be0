"""Safety checker of Stable Diffusion, used in addition to the content filter if its weights are available."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.image.models.families import CONFIG_REPOS, no_progress_bars

WEIGHTS = "safety_checker/model.safetensors"


class InvalidCheckerError(ValueError):
    """A safety checker exists but cannot be used; the message gives the reason."""


class SafetyChecker:
    """Compares the CLIP embedding of an image with unsafe concepts.

    Args:
        folder: contains `safety_checker` and `feature_extractor`, like a base model of SD 1.5.

    Raises:
        InvalidCheckerError: they cannot be read, or a weight is missing or not finite.
    """

    def __init__(self, folder: Path) -> None:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPImageProcessor

        options = {"local_files_only": True}
        try:
            with no_progress_bars():
                network, loading_info = StableDiffusionSafetyChecker.from_pretrained(
                    folder / "safety_checker", use_safetensors=True, output_loading_info=True, **options
                )
                self._prepare = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", **options)
        except Exception as err:  # readers fail in many ways: never use a checker that failed to load
            raise InvalidCheckerError(f"{folder}: its safety checker cannot be read: {err}") from err
        if missing := [*loading_info["missing_keys"], *loading_info["mismatched_keys"]]:
            raise InvalidCheckerError(f"{folder}: its safety checker lacks weights: {missing[0]}")
        if not all(weight.isfinite().all() for weight in network.state_dict().values()):
            raise InvalidCheckerError(f"{folder}: its safety checker has weights that are not finite")
        self._network: Any = network.eval()

    @classmethod
    def load_if_available(cls, base: Path) -> "SafetyChecker | None":
        """Return the checker in a base model's folder, else SD 1.5's in the hub cache, else None.

        Nothing is downloaded, and only safetensors are read.
        """
        from huggingface_hub import try_to_load_from_cache

        if (base / WEIGHTS).is_file():
            return cls(base)
        cached = try_to_load_from_cache(CONFIG_REPOS["sd15"], WEIGHTS)
        return cls(Path(cached).parents[1]) if isinstance(cached, str) else None

    def unsafe(self, image: Image.Image) -> str | None:
        """Return the reason why the image is unsafe, or None.

        Fails closed: an image that cannot be checked is unsafe.
        """
        try:
            pixels = self._prepare(image.convert("RGB"), return_tensors="pt").pixel_values
            blackened = [np.zeros((1, 1, 3))]  # the checker blackens this array instead of the image
            _, (flagged,) = self._network(clip_input=pixels, images=blackened)
        except Exception as err:  # on any failure the image is unchecked
            return f"safety checker failed: {type(err).__name__}: {err}"
        return "unsafe by Stable Diffusion's safety checker" if flagged else None
