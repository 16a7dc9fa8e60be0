"""A loss that means something: of held-out pictures, always at the same timesteps and noise."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from valentina_pipeline.image.faces.similarity import face_scores
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.scorers import Scorers
from valentina_pipeline.image.train import diffusion
from valentina_pipeline.image.train.encoding import EncodedDataset, encode_prompt, tokenize
from valentina_pipeline.image.train.loss import NoiseSchedule, predict

TIMESTEPS = 8
"""Evenly spaced over the schedule."""


def validation_losses(
    base: BaseModel, held_out: EncodedDataset, training: EncodedDataset, seed: int
) -> dict[str, float]:
    """Return held_out_loss, training_loss of as many training pictures, and overfitting, their difference.

    What training itself reports differs from step to step by its timesteps and noise more than by what was
    learned; this differs by what was learned alone.
    """
    count = len(held_out.latents)
    unseen, seen = (fixed_noise_loss(base, data, seed, count) for data in (held_out, training))
    return {"held_out_loss": unseen, "training_loss": seen, "overfitting": unseen - seen}


def image_metrics(
    images: Sequence[Image.Image], captions: Sequence[str], known: np.ndarray, judges: Scorers
) -> dict[str, float]:
    """Return the mean identity and clip_t of drawn images; one without a face counts 0 as identity.

    Args:
        images: drawn from the captions.
        captions: without the trigger, which no CLIP knows.
        known: identity vectors (n, d) of training pictures: the held-out ones are the evaluation's.
        judges: see judge.py.
    """
    scores = [face_scores(image, known, judges.find, judges.faces) for image in images]
    identity = [np.nan_to_num(each["identity"]) for each in scores]
    seen, words = judges.clip.images(list(images)), judges.clip.texts(list(captions))
    return {"identity": float(np.mean(identity)), "clip_t": float((seen * words).sum(axis=1).mean())}


@torch.no_grad()
def fixed_noise_loss(base: BaseModel, data: EncodedDataset, seed: int, count: int) -> float:
    """Return the mean squared error over `count` of the pictures, at TIMESTEPS timesteps each."""
    noise = NoiseSchedule.of(base)
    steps = torch.linspace(0, len(noise.kept) - 1, TIMESTEPS + 2)[1:-1].long()
    losses = [_loss(base, data, noise, row, steps, seed) for row in _spread(len(data.latents), count)]
    return sum(losses) / len(losses)


def _loss(
    base: BaseModel, data: EncodedDataset, noise: NoiseSchedule, row: int, steps: torch.Tensor, seed: int
) -> float:
    count, device = len(steps), base.device
    clean = data.latents[row].expand(count, -1, -1, -1)
    # the row's own noise, which no step of the training draws
    eps = diffusion.sample_step_noise(seed, -1 - row, range(count), tuple(clean.shape[1:]), (0, 1)).noise.to(
        device
    )
    context, pooled = encode_prompt(base, tokenize(base, [data.captions[row]]))
    text = context.expand(count, -1, -1), None if pooled is None else pooled.expand(count, -1)
    sizes = data.conditions[row].expand(count, -1)
    predicted, wanted = predict(base, noise, clean, eps, steps.to(device), text, sizes)
    return (predicted.float() - wanted).square().mean().item()


def _spread(length: int, count: int) -> Iterator[int]:
    """Yield at most `count` rows, evenly spaced."""
    kept = min(length, count)
    return (index * length // kept for index in range(kept))
