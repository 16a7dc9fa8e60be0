"""Training of the tiny face embedder with an additive margin among the pictures of a batch."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from valentina_pipeline.image.faces.crop import crop_matrix
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny, to_network
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan, train_network
from valentina_pipeline.image.tiny.vae import reconstruct

SCALE, MARGIN = 10.0, 0.2


def train(
    world: RenderedDataset, coder: AutoencoderKL, plan: Plan, batch: int, seed: int, state: Path
) -> FaceNetTiny:
    """Train on crops shifted, turned, blurred and re-lit, half of the pictures through the VAE.

    That is how detected and generated faces look: the embedder shall tell people apart, not codecs. A batch
    shows each of its people twice.
    """
    torch.manual_seed(seed)
    network = FaceNetTiny()
    people = [np.flatnonzero(world.person == person) for person in np.unique(world.person)]
    pixels = world.pixels.copy()
    pixels[::2] = reconstruct(coder, pixels[::2])

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        chosen = rng.choice(len(people), size=batch // 2, replace=False)
        rows = np.stack([rng.choice(people[i], size=2, replace=False) for i in chosen], axis=1).ravel()
        faces = np.stack([_crop(pixels[i], world.landmarks[i], rng) for i in rows])
        return margin_loss(network(to_network(torch.from_numpy(faces)).to(DEVICE)))

    train_network(network, loss, plan, seed, state, "faces")
    return network


def margin_loss(vectors: Tensor) -> Tensor:
    """Return the loss of unit `vectors` (2 n, d) in which rows i and i + n show one person.

    Cross-entropy of picking the person's other picture among all of the batch by cosine, less a margin
    (additive margin softmax, Wang et al. 2018, over a batch: Yang et al. 2019). Thousands of people with few
    pictures each would hardly move a centre of their own.
    """
    size = len(vectors)
    other = torch.arange(size, device=vectors.device).roll(size // 2)
    cosines = vectors @ vectors.T - MARGIN * functional.one_hot(other, size)
    themselves = torch.eye(size, dtype=torch.bool, device=vectors.device)
    return functional.cross_entropy(SCALE * cosines.masked_fill(themselves, -torch.inf), other)


def embed(network: FaceNetTiny, world: RenderedDataset) -> np.ndarray:
    """Return the unit vectors (n, 128) of a world's faces at their true landmarks."""
    faces = np.stack([_crop(p, m, None) for p, m in zip(world.pixels, world.landmarks, strict=True)])
    with torch.no_grad():
        return torch.cat([network(to_network(part)) for part in torch.from_numpy(faces).split(64)]).numpy()


def verification(vectors: np.ndarray, person: np.ndarray) -> tuple[float, float, float]:
    """Return (accuracy, mean cosine of the same person, mean cosine of two people) over all pairs.

    Accuracy is balanced (both kinds of pair count alike) at the threshold halfway between the two means.
    """
    first, second = np.triu_indices(len(vectors), 1)
    cosines = (vectors[first] * vectors[second]).sum(axis=1)
    same = person[first] == person[second]
    threshold = (cosines[same].mean() + cosines[~same].mean()) / 2
    accuracy = ((cosines[same] > threshold).mean() + (cosines[~same] <= threshold).mean()) / 2
    return float(accuracy), float(cosines[same].mean()), float(cosines[~same].mean())


def _crop(pixels: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """Return the canonical 64 px crop; with `rng`, one as a detector and a generator would spoil it."""
    points = landmarks * SIZE
    if rng is None:
        matrix = crop_matrix(points, FaceNetTiny.SIZE)
        return cv2.warpAffine(pixels, matrix, (FaceNetTiny.SIZE,) * 2, borderMode=cv2.BORDER_REPLICATE)
    matrix = crop_matrix(points + rng.normal(0, 1.2, size=points.shape), FaceNetTiny.SIZE)
    face = cv2.warpAffine(pixels, matrix, (FaceNetTiny.SIZE,) * 2, borderMode=cv2.BORDER_REPLICATE)
    blur = rng.uniform(0, 1.6)
    if blur > 0.3:
        face = cv2.GaussianBlur(face, (0, 0), blur)
    light = rng.uniform(0.85, 1.15, size=3) * rng.uniform(0.85, 1.15)
    face = np.clip(face * light + rng.normal(0, 4, size=face.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:  # no single trait shall decide (random erasing, Zhong et al. 2020)
        x, y, width, height = rng.integers((0, 0, 8, 8), (48, 48, 25, 25))
        face[y : y + height, x : x + width] = rng.integers(256, size=3)
    return face
