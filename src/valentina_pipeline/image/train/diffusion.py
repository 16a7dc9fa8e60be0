"""What training minimises, and every random draw it makes, as pure functions of (seed, step, slot)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class StepNoise:
    """The random part of some samples of one step.

    Attributes:
        timesteps: int64 (n,).
        noise: float32 (n, c, h, w), standard normal, plus an offset of each channel where one is asked for.
        dropout: float32 (n,), uniform in [0, 1): below the share of dropped captions, this one is left out.
        order: float64 (n,), uniform in [0, 1): decides the order of a caption's tags.
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
    """StepNoise for some samples of a step, whatever was drawn before and in whatever company.

    Each slot of each step has a generator of its own, so that neither the number of processes, nor how a
    batch is cut into parts that fit the memory, changes a single draw.

    Args:
        seed: of the run.
        step: from 0.
        slots: places in the step's whole batch, over all its parts and processes.
        shape: of one latent (c, h, w).
        timesteps: from the first to before the second.
        offset: standard deviation of a constant that is added to each channel of the noise (Guttenberg 2023,
            "Diffusion with offset noise"): it lets a picture's mean brightness be learned.
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
    return StepNoise(*(torch.stack(drawn) for drawn in (times, noise, dropout, order)))


def _generator(key: str) -> torch.Generator:
    # a hash, since nearby seeds of a generator may give correlated draws
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def add_noise(clean: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """Return x_t = sqrt(kept) x_0 + sqrt(1 - kept) eps (Ho et al. 2020, eq. 4).

    Args:
        clean: x_0 (n, c, h, w).
        noise: eps, as large.
        kept: (n,), the cumulated alpha at each sample's timestep, in [0, 1].
    """
    a, s = _scales(kept)
    return a * clean + s * noise


def target(clean: Tensor, noise: Tensor, kept: Tensor, prediction_type: str) -> Tensor:
    """Return what the denoiser has to predict: eps, or v = sqrt(kept) eps - sqrt(1 - kept) x_0.

    Raises:
        ValueError: another prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":  # Salimans & Ho 2022, appendix D
        a, s = _scales(kept)
        return a * noise - s * clean
    raise ValueError(f"a base that predicts {prediction_type!r} is not trained here: epsilon or v_prediction")


def weights(kept: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Return min-SNR weights (n,) of the squared error.

    Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy", section 3.4: with
    SNR = kept / (1 - kept), it is min(SNR, gamma) / SNR where eps is predicted and
    min(SNR, gamma) / (SNR + 1) where v is. `gamma` 0 turns the weighting off.
    """
    if gamma == 0:
        return torch.ones_like(kept)
    snr = kept / (1 - kept).clamp(min=1e-8)
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1)  # gamma / 0 is inf: weight 1 at zero terminal SNR
    return snr.clamp(max=gamma) / (snr + 1)


def debiased_weights(kept: Tensor, prediction_type: str) -> Tensor:
    """Return the weights (n,) of Yu et al. 2024, "Debias the training of diffusion models", eq. 9.

    1 / sqrt(SNR) where eps is predicted, never more than at an SNR of 0.001. Where v is, that times
    SNR / (SNR + 1): the same error of x_0 counts the same.
    """
    snr = kept / (1 - kept).clamp(min=1e-8)
    debiased = snr.clamp(min=1e-3).rsqrt()
    return debiased if prediction_type == "epsilon" else debiased * snr / (snr + 1)


def face_weights(boxes: np.ndarray, weight: float, height: int, width: int, outside: float = 1.0) -> Tensor:
    """Return how much each place of a latent counts (n, 1, h, w): `weight` times as much within the face.

    A cell that the box covers in part counts in part; the mean over each picture is 1, so that a picture
    with a large face counts no more than one with a small face.

    Args:
        boxes: (n, 4), left, top, right and bottom in [0, 1] of width and height.
        weight: of a place in the face, above 0.
        height: of the latents.
        width: of the latents.
        outside: of a place outside it; 0 masks everything but the face.
    """
    left, top, right, bottom = np.asarray(boxes, dtype=np.float64).T[:, :, None]
    across = _covered(left * width, right * width, width)
    down = _covered(top * height, bottom * height, height)
    raw = outside + (weight - outside) * down[:, :, None] * across[:, None, :]
    return torch.from_numpy(raw / raw.mean(axis=(1, 2), keepdims=True)).float()[:, None]


def _covered(start: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """Return which share (n, cells) of each cell of a line lies between start and end, both (n, 1)."""
    edges = np.arange(cells)
    return np.clip(np.minimum(edges + 1, end) - np.maximum(edges, start), 0, 1)


def loss(predicted: Tensor, wanted: Tensor, weight: Tensor, places: Tensor) -> Tensor:
    """Return the weighted mean squared error, a scalar.

    Args:
        predicted: (n, c, h, w).
        wanted: as large.
        weight: (n,), of each image.
        places: (n, 1, h, w), of each place in it, such as `face_weights` gives.
    """
    error = (predicted.float() - wanted.float()).square() * places
    return (error.mean(dim=(1, 2, 3)) * weight).mean()


def _scales(kept: Tensor) -> tuple[Tensor, Tensor]:
    kept = kept.view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()
