"""Training of the tiny face embedder with an additive margin over the images of a batch."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from valentina_pipeline.image.faces.canonical_crop import crop_matrix
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny, to_network
from valentina_pipeline.image.tiny.dataset import SIZE, RenderedDataset
from valentina_pipeline.image.tiny.trainer import DEVICE, Plan, train_network
from valentina_pipeline.image.tiny.vae import reconstruct

SCALE, MARGIN = 10.0, 0.2


def train(
    dataset: RenderedDataset, coder: AutoencoderKL, plan: Plan, batch: int, seed: int, state: Path
) -> FaceNetTiny:
    """Train on shifted, rotated, blurred and relit crops; half of the images pass through the VAE.

    Detected and generated faces look so: the embedder must distinguish people, not codecs. A batch contains
    two images of each of its people.
    """
    torch.manual_seed(seed)
    network = FaceNetTiny()
    people = [np.flatnonzero(dataset.person == person) for person in np.unique(dataset.person)]
    pixels = dataset.pixels.copy()
    pixels[::2] = reconstruct(coder, pixels[::2])

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        chosen = rng.choice(len(people), size=batch // 2, replace=False)
        rows = np.stack([rng.choice(people[i], size=2, replace=False) for i in chosen], axis=1).ravel()
        faces = np.stack([_crop(pixels[i], dataset.landmarks[i], rng) for i in rows])
        return margin_loss(network(to_network(torch.from_numpy(faces)).to(DEVICE)))

    train_network(network, loss, plan, seed, state, "faces")
    return network


def margin_loss(vectors: Tensor) -> Tensor:
    """Return the loss of unit `vectors` (2 n, d) in which rows i and i + n show one person.

    It is the cross-entropy of selecting the person's other image in the batch by cosine, less a margin
    (additive margin softmax, Wang et al. 2018, over a batch: Yang et al. 2019). Class centers would hardly
    be trained by thousands of people with few images each.
    """
    size = len(vectors)
    other = torch.arange(size, device=vectors.device).roll(size // 2)
    cosines = vectors @ vectors.T - MARGIN * functional.one_hot(other, size)
    diagonal = torch.eye(size, dtype=torch.bool, device=vectors.device)
    return functional.cross_entropy(SCALE * cosines.masked_fill(diagonal, -torch.inf), other)


def embed(network: FaceNetTiny, dataset: RenderedDataset) -> np.ndarray:
    """Return the unit vectors (n, 128) of a dataset's faces, cropped at their true landmarks."""
    faces = np.stack([_crop(p, m, None) for p, m in zip(dataset.pixels, dataset.landmarks, strict=True)])
    with torch.no_grad():
        return torch.cat([network(to_network(part)) for part in torch.from_numpy(faces).split(64)]).numpy()


def verification(vectors: np.ndarray, person: np.ndarray) -> tuple[float, float, float]:
    """Return (accuracy, mean cosine of the same person, mean cosine of two people) over all pairs.

    The accuracy is balanced between both kinds of pairs; its threshold is the midpoint of the two means.
    """
    first, second = np.triu_indices(len(vectors), 1)
    cosines = (vectors[first] * vectors[second]).sum(axis=1)
    same = person[first] == person[second]
    threshold = (cosines[same].mean() + cosines[~same].mean()) / 2
    accuracy = ((cosines[same] > threshold).mean() + (cosines[~same] <= threshold).mean()) / 2
    return float(accuracy), float(cosines[same].mean()), float(cosines[~same].mean())


def _crop(pixels: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """Return the canonical 64 px crop; `rng` adds the errors of a detector and a generator."""
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
    if rng.random() < 0.5:  # no single trait may decide (random erasing, Zhong et al. 2020)
        x, y, width, height = rng.integers((0, 0, 8, 8), (48, 48, 25, 25))
        face[y : y + height, x : x + width] = rng.integers(256, size=3)
    return face
