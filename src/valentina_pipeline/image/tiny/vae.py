"""The tiny VAE: SDXL's AutoencoderKL at small width, factor 8, with 8 latent channels.

It has eight channels instead of SDXL's four: at 128 px an eye is one latent wide, and four numbers cannot
encode its lid, iris and color (docs/adr/0007).
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from valentina_pipeline.image.faces.tiny_facenet import to_network
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Loss, Plan, train_network

CROP_PIXELS = 64
"""Width and height of a crop."""

CROPS_SHARE = 0.8
"""Share of the first plan's steps that use crops."""


def build() -> AutoencoderKL:
    """Return the untrained network (2.7 M parameters)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=SIZE,
    )


def train(
    dataset: RenderedDataset, plan: Plan, batch: int, seed: int, state: Path, whole: Plan
) -> AutoencoderKL:
    """Train on crops, which are cheap and mostly faces, then on whole images; set the scaling factor.

    Args:
        dataset: training images.
        plan: first plan: crops, and whole images in its last steps.
        batch: crops per step; half as many whole images.
        seed: seed of all random numbers.
        state: checkpoint file.
        whole: second plan, for whole images only, with a separate learning rate: crops rarely reach the
            border, and the first plan's rate is by then too low to correct the clothes there.
    """
    torch.manual_seed(seed)
    network = build()

    def loss_from(whole_from: float) -> Loss:
        def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
            crops = step < whole_from
            pixels = _sample(dataset, rng, batch if crops else batch // 2, CROP_PIXELS if crops else SIZE)
            target = to_network(torch.from_numpy(pixels)).to(DEVICE)
            latents = network.encode(target).latent_dist
            eps = torch.randn(latents.mean.shape, generator=noise).to(DEVICE)
            draw = latents.mean + latents.std * eps
            return _reconstruction_loss(network.decode(draw).sample, target) + 1e-6 * latents.kl().mean()

        return loss

    train_network(network, loss_from(CROPS_SHARE * plan.steps), plan, seed, state, "vae, crops")
    train_network(network, loss_from(0), whole, seed + 1, state.with_suffix(".whole.pt"), "vae, whole")
    with torch.no_grad():
        sample = to_network(torch.from_numpy(dataset.pixels[:: max(1, len(dataset.pixels) // 256)]))
        spread = torch.cat([network.encode(part).latent_dist.mean for part in sample.split(32)]).std()
    network.register_to_config(scaling_factor=round(1 / float(spread), 5))
    return network


def reconstruct(network: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """Return the reconstruction of uint8 `pixels` (n, h, w, 3) from their latent means, uint8."""
    parts = []
    with torch.no_grad():
        for part in torch.from_numpy(pixels).split(16):
            latents = network.encode(to_network(part).to(network.device)).latent_dist.mean
            back = network.decode(latents).sample.clamp(-1, 1)
            parts.append(((back + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
    return torch.cat(parts).numpy()


def psnr(network: AutoencoderKL, pixels: np.ndarray) -> float:
    """Return the mean PSNR in dB of the reconstructions of uint8 `pixels` (n, h, w, 3)."""
    error = reconstruct(network, pixels).astype(np.float32) - pixels
    return float((10 * np.log10(255**2 / np.square(error).mean(axis=(1, 2, 3)))).mean())


def _sample(dataset: RenderedDataset, rng: np.random.Generator, count: int, crop: int) -> np.ndarray:
    """Sample `count` images, cropped to `crop` px: half of them around the face, where the detail is."""
    rows = rng.integers(len(dataset.pixels), size=count)
    if crop == SIZE:
        return dataset.pixels[rows]
    anywhere = rng.integers(SIZE - crop + 1, size=(count, 2))
    corner = dataset.landmarks[rows].mean(axis=1)[:, ::-1] * SIZE - crop / 2
    corner = corner + rng.normal(0, 8, size=(count, 2))
    around = np.clip(corner, 0, SIZE - crop).astype(int)
    corners = np.where(rng.random((count, 1)) < 0.5, around, anywhere)
    return np.stack(
        [dataset.pixels[i, y : y + crop, x : x + crop] for i, (y, x) in zip(rows, corners, strict=True)]
    )


def _reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return L1 and squared error of the values plus L1 of their gradients, which penalizes blur."""
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 4 * functional.mse_loss(output, target) + edges
