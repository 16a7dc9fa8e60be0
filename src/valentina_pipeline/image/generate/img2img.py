"""Drawing that begins from a picture: all of it anew to some extent, or a part of it behind a mask.

One way for every base, sampler and control: the sampler's first steps are left out, and what is kept is put
back after each of the others. A pipeline made for it would want 4 latent channels, or a denoiser with 9.
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

SOFT = 4
"""Pixels: how far inside its mask what is drawn anew fades in."""

LEAST_WEIGHT = 128
"""Of 255: how much of a pixel is drawn anew, where a mask is whitest; less leaves the picture as it is."""


@dataclass(frozen=True)
class InitImage:
    """What a drawing begins from.

    Attributes:
        picture: RGB, as large as the drawing.
        strength: in [0, 1]: share of the sampler's steps that are done, of which there is at least one.
        mask: L, as large: white is drawn anew, black stays; None draws all of it anew.
    """

    picture: Image.Image
    strength: float
    mask: Image.Image | None = None


def skipped_steps(steps: int, strength: float) -> int:
    """Return how many of a sampler's steps are not done."""
    return steps - max(1, round(steps * strength))


def is_idle(steps: int, strength: float) -> bool:
    """Return whether so little of a sampler is asked for that a picture would only be passed through."""
    return steps * strength < 0.5


def is_blank(mask: Image.Image) -> bool:
    """Return whether a mask L would only pass the picture through: nothing is drawn anew, or faintly."""
    return int(np.asarray(weights(mask)).max()) < LEAST_WEIGHT


def weights(mask: Image.Image) -> Image.Image:
    """Return how much of each pixel is drawn anew, L, of a mask L: it fades in inside of the mask's white."""
    return ImageChops.darker(mask, mask.filter(ImageFilter.GaussianBlur(SOFT)))


@dataclass(frozen=True)
class Img2ImgState:
    """A batch that begins from a picture.

    Attributes:
        scheduler: the sampler without the steps that are left out, its timesteps set.
        clean: the picture's latents (1, c, h, w).
        noise: each image's (n, c, h, w).
        fresh: (1, 1, h, w), 1 where latents are drawn anew, else 0.
    """

    scheduler: Any
    clean: "Tensor"
    noise: "Tensor"
    fresh: "Tensor"

    @property
    def latents(self) -> "Tensor":
        """What a pipeline is given as its noise (n, c, h, w); it multiplies it by the sampler's own scale."""
        return self._noisy(0) / self.scheduler.init_noise_sigma

    def restore_kept_area(self, done: int, latents: "Tensor") -> "Tensor":
        """Return latents after so many steps with the picture where it stays."""
        known = self._noisy(done).to(latents.device, latents.dtype)
        return known + self.fresh.to(latents.device, latents.dtype) * (latents - known)

    def _noisy(self, done: int) -> "Tensor":
        """Return the picture's latents with as much noise as is left after so many steps."""
        clean = self.clean.expand_as(self.noise)
        timesteps = self.scheduler.timesteps[done : done + 1]
        noisy: Tensor = self.scheduler.add_noise(clean, self.noise, timesteps) if len(timesteps) else clean
        return noisy


def prepare_latents(
    pipe: Any, start: InitImage, steps: int, generators: "Sequence[torch.Generator]"
) -> Img2ImgState:
    """Return a batch of a pipeline's that begins from a picture.

    Args:
        pipe: diffusers'.
        start: the picture.
        steps: of the sampler, those that are left out included.
        generators: one an image, on the CPU: noise is its own, whatever is drawn beside it.
    """
    import torch

    from valentina_pipeline.image.models.vae import encode

    pixels = torch.from_numpy(np.array(start.picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    clean = encode(pipe.vae, pixels)
    noise = torch.cat([torch.randn(clean.shape, generator=each) for each in generators]).to(clean.device)
    scheduler = _later(pipe.scheduler, skipped_steps(steps, start.strength))
    scheduler.set_timesteps(steps, device=clean.device)
    fresh = torch.ones(1, 1, *clean.shape[2:])
    if start.mask:
        shown = start.mask.resize((clean.shape[3], clean.shape[2]), Image.Resampling.BOX)
        fresh = torch.from_numpy(np.array(shown) > 0)[None, None].float()  # pixels are put back at the end
    return Img2ImgState(scheduler, clean, noise, fresh)


def composite(drawn: Image.Image, start: InitImage) -> Image.Image:
    """Return what was drawn with the start's own pixels, to the last bit, where its mask is black."""
    if start.mask is None:
        return drawn
    return Image.composite(drawn, start.picture, weights(start.mask))


def _later(scheduler: Any, skipped: int) -> Any:
    """Return a copy of a sampler whose first steps are left out, however often its timesteps are set."""
    later = copy.copy(scheduler)

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        type(later).set_timesteps(later, *args, **kwargs)
        first = skipped * later.order
        later.timesteps = later.timesteps[first:]
        if hasattr(later, "sigmas"):
            later.sigmas = later.sigmas[first:]

    later.set_timesteps = set_timesteps
    return later
