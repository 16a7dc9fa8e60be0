"""Image to image and inpainting, in the same way for every base model, sampler and control.

The sampler's first steps are skipped, and the unmasked area is restored after each of the others. diffusers'
own pipelines for this task would require 4 latent channels, or a denoiser with 9.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MASK_BLUR_RADIUS = 4
"""Radius in pixels of the blur that fades in the generated area inside its mask."""

MIN_MASK_WEIGHT = 128
"""Smallest maximum of a mask's weights (of 255); a mask below it leaves the image as it is."""


@dataclass(frozen=True)
class InitImage:
    """Initial image of image to image, optionally with a mask for inpainting.

    Attributes:
        picture: RGB, in the size of the generated image.
        strength: share of the sampler's steps that run, in [0, 1]; at least one runs.
        mask: mode L, same size: white is generated, black stays; None generates the whole image.
    """

    picture: Image.Image
    strength: float
    mask: Image.Image | None = None


def skipped_steps(steps: int, strength: float) -> int:
    """Return the number of a sampler's steps that are skipped."""
    return steps - max(1, round(steps * strength))


def is_idle(steps: int, strength: float) -> bool:
    """Return True if less than half a step would run, so that the image would stay as it is."""
    return steps * strength < 0.5


def is_blank(mask: Image.Image) -> bool:
    """Return True if a mask (mode L) leaves the image almost as it is: all its weights are small."""
    return int(np.asarray(weights(mask)).max()) < MIN_MASK_WEIGHT


def weights(mask: Image.Image) -> Image.Image:
    """Return the share of each pixel that is generated, mode L; it fades in inside the white of the mask."""
    return ImageChops.darker(mask, mask.filter(ImageFilter.GaussianBlur(MASK_BLUR_RADIUS)))


@dataclass(frozen=True)
class Img2ImgState:
    """State of a batch of image to image.

    Attributes:
        scheduler: sampler without the skipped steps, with its timesteps set.
        clean: latents of the initial image (1, c, h, w).
        noise: noise of each image (n, c, h, w).
        fresh: (1, 1, h, w), 1 where latents are generated, else 0.
    """

    scheduler: Any
    clean: "Tensor"
    noise: "Tensor"
    fresh: "Tensor"

    @property
    def latents(self) -> "Tensor":
        """Initial latents (n, c, h, w) for a pipeline, which multiplies them by the sampler's scale."""
        return self._noisy(0) / self.scheduler.init_noise_sigma

    def restore_kept_area(self, done: int, latents: "Tensor") -> "Tensor":
        """Restore the initial image outside the mask in the latents after `done` steps."""
        original = self._noisy(done).to(latents.device, latents.dtype)
        return original + self.fresh.to(latents.device, latents.dtype) * (latents - original)

    def _noisy(self, done: int) -> "Tensor":
        """Return the initial image's latents with the noise level after `done` steps."""
        clean = self.clean.expand_as(self.noise)
        timesteps = self.scheduler.timesteps[done : done + 1]
        noisy: Tensor = self.scheduler.add_noise(clean, self.noise, timesteps) if len(timesteps) else clean
        return noisy


def prepare_latents(
    pipe: Any, start: InitImage, steps: int, generators: "Sequence[torch.Generator]"
) -> Img2ImgState:
    """Prepare a batch of image to image for a pipeline.

    Args:
        pipe: pipeline of diffusers.
        start: initial image.
        steps: number of the sampler's steps, skipped ones included.
        generators: one CPU generator per image, so that its noise does not depend on the batch.
    """
    import torch

    from valentina_pipeline.image.models.vae import encode

    pixels = torch.from_numpy(np.array(start.picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    clean = encode(pipe.vae, pixels)
    noise = torch.cat([torch.randn(clean.shape, generator=g) for g in generators]).to(clean.device)
    scheduler = _skip_steps(pipe.scheduler, skipped_steps(steps, start.strength))
    scheduler.set_timesteps(steps, device=clean.device)
    fresh = torch.ones(1, 1, *clean.shape[2:])
    if start.mask:
        small = start.mask.resize((clean.shape[3], clean.shape[2]), Image.Resampling.BOX)
        fresh = torch.from_numpy(np.array(small) > 0)[None, None].float()  # `composite` restores the pixels
    return Img2ImgState(scheduler, clean, noise, fresh)


def composite(drawn: Image.Image, start: InitImage) -> Image.Image:
    """Return the generated image with the initial image's exact pixels where the mask is black."""
    if start.mask is None:
        return drawn
    return Image.composite(drawn, start.picture, weights(start.mask))


def _skip_steps(scheduler: Any, skipped: int) -> Any:
    """Return a copy of a sampler that skips its first steps whenever its timesteps are set."""
    shortened = copy.copy(scheduler)

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        type(shortened).set_timesteps(shortened, *args, **kwargs)
        first = skipped * shortened.order
        shortened.timesteps = shortened.timesteps[first:]
        if hasattr(shortened, "sigmas"):
            shortened.sigmas = shortened.sigmas[first:]

    shortened.set_timesteps = set_timesteps
    return shortened
