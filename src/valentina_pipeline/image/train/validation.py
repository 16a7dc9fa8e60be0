"""Validation loss on held-out images at fixed timesteps and noise."""

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

NUM_TIMESTEPS = 8
"""Timesteps of the validation loss, evenly spaced over the schedule."""


def validation_losses(
    base: BaseModel, held_out: EncodedDataset, training: EncodedDataset, seed: int
) -> dict[str, float]:
    """Return val_loss, train_loss_fixed_noise on as many training images, and their generalization_gap.

    The gap is the first minus the second. The training loss of a step varies with its timesteps and noise
    more than with progress. These losses vary with the weights alone.
    """
    count = len(held_out.latents)
    val_loss, train_loss_fixed_noise = (
        fixed_noise_loss(base, data, seed, count) for data in (held_out, training)
    )
    return {
        "val_loss": val_loss,
        "train_loss_fixed_noise": train_loss_fixed_noise,
        "generalization_gap": val_loss - train_loss_fixed_noise,
    }


def image_metrics(
    images: Sequence[Image.Image], captions: Sequence[str], known: np.ndarray, judges: Scorers
) -> dict[str, float]:
    """Return the mean identity and clip_t of generated images; an image without a face has identity 0.

    Args:
        images: images generated from the captions.
        captions: captions without the trigger word, which no CLIP model knows.
        known: face embeddings (n, d) of training images; held-out ones are reserved for the final evaluation.
        judges: models that score images, see scorers.py.
    """
    scores = [face_scores(image, known, judges.find, judges.faces) for image in images]
    identity = [np.nan_to_num(score["identity"]) for score in scores]
    image_embeds, text_embeds = judges.clip.images(list(images)), judges.clip.texts(list(captions))
    clip_t = float((image_embeds * text_embeds).sum(axis=1).mean())
    return {"identity": float(np.mean(identity)), "clip_t": clip_t}


@torch.no_grad()
def fixed_noise_loss(base: BaseModel, data: EncodedDataset, seed: int, count: int) -> float:
    """Return the mean squared error over `count` images, at NUM_TIMESTEPS timesteps each."""
    noise = NoiseSchedule.of(base)
    steps = torch.linspace(0, len(noise.alphas_cumprod) - 1, NUM_TIMESTEPS + 2)[1:-1].long()
    losses = [_loss(base, data, noise, row, steps, seed) for row in _spread(len(data.latents), count)]
    return sum(losses) / len(losses)


def _loss(
    base: BaseModel, data: EncodedDataset, noise: NoiseSchedule, row: int, steps: torch.Tensor, seed: int
) -> float:
    count, device = len(steps), base.device
    clean = data.latents[row].expand(count, -1, -1, -1)
    # a negative step: noise that no training step draws
    eps = diffusion.sample_step_noise(seed, -1 - row, range(count), tuple(clean.shape[1:]), (0, 1)).noise.to(
        device
    )
    context, pooled = encode_prompt(base, tokenize(base, [data.captions[row]]))
    text = context.expand(count, -1, -1), None if pooled is None else pooled.expand(count, -1)
    sizes = data.conditions[row].expand(count, -1)
    predicted, expected = predict(base, noise, clean, eps, steps.to(device), text, sizes)
    return (predicted.float() - expected).square().mean().item()


def _spread(length: int, count: int) -> Iterator[int]:
    """Yield at most `count` rows, evenly spaced."""
    num_rows = min(length, count)
    return (index * length // num_rows for index in range(num_rows))
