"""Diffusion objective and random draws of training, as pure functions of (seed, step, slot)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class StepNoise:
    """Random draws for some samples of one step.

    Attributes:
        timesteps: int64 (n,).
        noise: float32 (n, c, h, w), standard normal, plus an offset of each channel if one is set.
        dropout: float32 (n,), uniform in [0, 1); a caption is dropped where it is below the dropout rate.
        order: float64 (n,), uniform in [0, 1); determines the order of a caption's tags.
    """

    timesteps: Tensor
    noise: Tensor
    dropout: Tensor
    order: Tensor


def sample_step_noise(
    seed: int,
    step: int,
    slots: Sequence[int],
    shape: tuple[int, ...],
    timesteps: tuple[int, int],
    offset: float = 0.0,
) -> StepNoise:
    """Return the random draws for some samples of a step.

    Each slot of each step has its own generator. The draws therefore do not depend on the number of
    processes, nor on the micro-batches that a batch is split into to fit the memory.

    Args:
        seed: seed of the run.
        step: from 0.
        slots: positions in the step's whole batch, over all micro-batches and processes.
        shape: shape of one latent (c, h, w).
        timesteps: range of timesteps, the end excluded.
        offset: standard deviation of a constant that is added to each channel of the noise (Guttenberg 2023,
            "Diffusion with offset noise"). It lets the model learn an image's mean brightness.
    """
    times, dropout, noise, order = [], [], [], []
    for slot in slots:
        generator = _generator(f"{seed}/{step}/{slot}")
        times.append(torch.randint(*timesteps, (), generator=generator))
        dropout.append(torch.rand((), generator=generator))
        noise.append(torch.randn(shape, generator=generator))
        if offset:
            noise[-1] += offset * torch.randn(shape[0], 1, 1, generator=generator)
        order.append(torch.rand((), generator=generator, dtype=torch.float64))
    return StepNoise(*(torch.stack(draws) for draws in (times, noise, dropout, order)))


def _generator(key: str) -> torch.Generator:
    # a hash, because nearby seeds may give correlated draws
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def add_noise(clean: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return x_t = sqrt(alpha) x_0 + sqrt(1 - alpha) eps (Ho et al. 2020, eq. 4).

    Args:
        clean: x_0 (n, c, h, w).
        noise: eps (n, c, h, w).
        alphas_cumprod: cumulative alpha (n,) at each sample's timestep, in [0, 1].
    """
    a, s = _scales(alphas_cumprod)
    return a * clean + s * noise


def target(clean: Tensor, noise: Tensor, alphas_cumprod: Tensor, prediction_type: str) -> Tensor:
    """Return the denoiser's target: eps, or v = sqrt(alpha) eps - sqrt(1 - alpha) x_0.

    Raises:
        ValueError: the prediction type is neither "epsilon" nor "v_prediction".
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":  # Salimans & Ho 2022, appendix D
        a, s = _scales(alphas_cumprod)
        return a * noise - s * clean
    raise ValueError(f"invalid prediction_type {prediction_type!r}: must be epsilon or v_prediction")


def weights(alphas_cumprod: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Return min-SNR weights (n,) of the squared error.

    Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy", section 3.4. With
    SNR = alpha / (1 - alpha), the weight is min(SNR, gamma) / SNR for epsilon prediction and
    min(SNR, gamma) / (SNR + 1) for v prediction. `gamma` 0 turns the weighting off.
    """
    if gamma == 0:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1 - alphas_cumprod).clamp(min=1e-8)
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1)  # gamma / 0 is inf: weight 1 at zero terminal SNR
    return snr.clamp(max=gamma) / (snr + 1)


def debiased_weights(alphas_cumprod: Tensor, prediction_type: str) -> Tensor:
    """Return the weights (n,) of Yu et al. 2024, "Debias the training of diffusion models", eq. 9.

    The weight is 1 / sqrt(SNR) for epsilon prediction, capped at its value for an SNR of 0.001. For v
    prediction it is multiplied by SNR / (SNR + 1), so that the same error of x_0 counts the same.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod).clamp(min=1e-8)
    debiased = snr.clamp(min=1e-3).rsqrt()
    return debiased if prediction_type == "epsilon" else debiased * snr / (snr + 1)


def face_weights(boxes: np.ndarray, weight: float, height: int, width: int, outside: float = 1.0) -> Tensor:
    """Return loss weights of the latent cells (n, 1, h, w): `weight` inside the face, `outside` elsewhere.

    A cell that the box covers partly gets a weight in between. The mean of each image is 1, so that an
    image with a large face counts no more than one with a small face.

    Args:
        boxes: (n, 4), left, top, right and bottom in [0, 1] of width and height.
        weight: weight of a cell inside the face, above 0.
        height: height of the latents.
        width: width of the latents.
        outside: weight of a cell outside the face; 0 masks everything but the face.
    """
    left, top, right, bottom = np.asarray(boxes, dtype=np.float64).T[:, :, None]
    across = _covered(left * width, right * width, width)
    down = _covered(top * height, bottom * height, height)
    raw = outside + (weight - outside) * down[:, :, None] * across[:, None, :]
    return torch.from_numpy(raw / raw.mean(axis=(1, 2), keepdims=True)).float()[:, None]


def _covered(start: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """Return the share (n, cells) of each cell of a line between start and end, both (n, 1)."""
    edges = np.arange(cells)
    return np.clip(np.minimum(edges + 1, end) - np.maximum(edges, start), 0, 1)


def loss(predicted: Tensor, expected: Tensor, weight: Tensor, loss_mask: Tensor) -> Tensor:
    """Return the weighted mean squared error, a scalar.

    Args:
        predicted: (n, c, h, w).
        expected: (n, c, h, w), see `target`.
        weight: (n,), weight of each image.
        loss_mask: (n, 1, h, w), weight of each latent cell, such as `face_weights` returns.
    """
    error = (predicted.float() - expected.float()).square() * loss_mask
    return (error.mean(dim=(1, 2, 3)) * weight).mean()


def _scales(alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    alphas_cumprod = alphas_cumprod.view(-1, 1, 1, 1)
    return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
