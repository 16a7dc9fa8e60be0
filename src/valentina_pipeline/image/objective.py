"""What training minimises, and every random draw it makes, as pure functions of (seed, step, slot)."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CAPTION_DROPOUT = 0.1
"""Share of samples trained without their caption, so that guidance keeps its unconditional side."""


@dataclass(frozen=True)
class Draw:
    """The random part of one step.

    Attributes:
        rows: int64 (n,), which training images.
        timesteps: int64 (n,), in [0, number of timesteps).
        noise: float32 (n, c, h, w), standard normal.
        dropped: bool (n,), whose caption is left out.
    """

    rows: Tensor
    timesteps: Tensor
    noise: Tensor
    dropped: Tensor


def draw(seed: int, step: int, batch: int, images: int, shape: tuple[int, ...], timesteps: int) -> Draw:
    """Draw step `step` of a run, whatever ran before it.

    Each slot of each batch has a generator of its own, and images come in epochs, each a new order.

    Args:
        seed: of the run.
        step: from 0.
        batch: n.
        images: how many there are to train on.
        shape: of one latent (c, h, w).
        timesteps: of the noise schedule.
    """
    rows, times, noise, dropped = [], [], [], []
    for slot in range(batch):
        generator = _generator(f"{seed}/{step}/{slot}")
        times.append(torch.randint(timesteps, (), generator=generator))
        dropped.append(torch.rand((), generator=generator) < CAPTION_DROPOUT)
        noise.append(torch.randn(shape, generator=generator))
        epoch, place = divmod(step * batch + slot, images)
        rows.append(int(_order(seed, epoch, images)[place]))
    return Draw(torch.tensor(rows), torch.stack(times), torch.stack(noise), torch.stack(dropped))


def _generator(key: str) -> torch.Generator:
    # a hash, since nearby seeds of a generator may give correlated draws
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(images)


def corrupt(clean: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
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


def face_weights(boxes: np.ndarray, weight: float, height: int, width: int) -> Tensor:
    """Return how much each place of a latent counts (n, 1, h, w): `weight` times as much within the face.

    A cell that the box covers in part counts in part; the mean over each picture is 1, so that a picture
    with a large face counts no more than one with a small face.

    Args:
        boxes: (n, 4), left, top, right and bottom in [0, 1] of width and height.
        weight: 1 or more; 1 lets every place count the same.
        height: of the latents.
        width: of the latents.
    """
    left, top, right, bottom = np.asarray(boxes, dtype=np.float64).T[:, :, None]
    across = _covered(left * width, right * width, width)
    down = _covered(top * height, bottom * height, height)
    raw = 1 + (weight - 1) * down[:, :, None] * across[:, None, :]
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
