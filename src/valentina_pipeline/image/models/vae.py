"""Encode images to latents and decode them."""

from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.models.offload import execution_device

if TYPE_CHECKING:
    from torch import Tensor


def encode(vae: Any, pixels: "Tensor") -> "Tensor":
    """Return scaled latents from the mean of the VAE's distribution, which makes them deterministic.

    Args:
        vae: AutoencoderKL, float32.
        pixels: float32 (n, 3, h, w) in [-1, 1].

    Returns:
        float32 (n, c, h / f, w / f), scaled by the VAE's configuration.
    """
    import torch

    shift, spread = _spread(vae)
    with torch.no_grad():
        mean = vae.encode(pixels.to(execution_device(vae))).latent_dist.mean
    return (mean - shift) / spread


def decode(vae: Any, latents: "Tensor") -> "Tensor":
    """Return float32 pixels (n, 3, h, w), about [-1, 1], from scaled latents; the inverse of `encode`."""
    import torch

    shift, spread = _spread(vae)
    with torch.no_grad():
        return vae.decode(latents.to(execution_device(vae), vae.dtype) * spread + shift).sample


def _spread(vae: Any) -> "tuple[Tensor, Tensor]":
    """Return the shift and the divisor of the VAE's unscaled latents, each (1, c or 1, 1, 1)."""
    import torch

    def channels(values: list[float]) -> "Tensor":
        return torch.tensor(values, dtype=vae.dtype, device=execution_device(vae)).view(1, -1, 1, 1)

    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    return channels(mean or [0.0]), channels(std or [1.0]) / config.scaling_factor
