"""Training of the tiny face embedder with an additive margin softmax (CosFace, Wang et al. 2018)."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from valentina_pipeline.image.faces import crop_matrix
from valentina_pipeline.image.tiny.fit import Plan, fit
from valentina_pipeline.image.tiny.vae import reconstruct
from valentina_pipeline.image.tiny.world import SIZE, World
from valentina_pipeline.image.tiny_models import FaceNetTiny, to_network

SCALE, MARGIN = 24.0, 0.25


class _Margin(nn.Module):
    def __init__(self, people: int) -> None:
        super().__init__()
        self.embedder = FaceNetTiny()
        self.centres = nn.Parameter(torch.randn(people, 128))

    def loss(self, faces: Tensor, person: Tensor) -> Tensor:
        cosines = self.embedder(faces) @ functional.normalize(self.centres, dim=1).T
        margin = MARGIN * functional.one_hot(person, len(self.centres))
        return functional.cross_entropy(SCALE * (cosines - margin), person)


def train(world: World, coder: AutoencoderKL, plan: Plan, batch: int, seed: int, state: Path) -> FaceNetTiny:
    """Train on crops shifted, turned, blurred and re-lit, half of them through the VAE.

    That is how detected and generated faces look: the embedder shall tell people apart, not codecs.
    """
    torch.manual_seed(seed)
    network = _Margin(int(world.person.max()) + 1)
    kinds = (world.pixels, reconstruct(coder, world.pixels))

    def loss(step: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        rows = rng.integers(len(world.pixels), size=batch)
        faces = np.stack([_crop(kinds[rng.integers(2)][i], world.landmarks[i], rng) for i in rows])
        return network.loss(to_network(torch.from_numpy(faces)), torch.from_numpy(world.person[rows]))

    fit(network, loss, plan, seed, state, "faces")
    return network.embedder


def embed(network: FaceNetTiny, world: World) -> np.ndarray:
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
    return np.clip(face * light + rng.normal(0, 4, size=face.shape), 0, 255).astype(np.uint8)
