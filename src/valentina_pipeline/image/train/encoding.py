"""Encode images to latents and captions to text embeddings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from valentina_pipeline.image.generate.conditioning import encode as encode_chunks
from valentina_pipeline.image.generate.conditioning import lay, pad, spell
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.vae import encode
from valentina_pipeline.image.train.bucketing import Size
from valentina_pipeline.image.train.diffusion import face_weights
from valentina_pipeline.image.train.samples import Sample, _pixel_hash
from valentina_pipeline.training.encoding_cache import NO_CACHE, Cache


@dataclass(frozen=True)
class EncodedDataset:
    """Encoded training set, one row per sample.

    Attributes:
        latents: float32 (c, h, w) each.
        places: loss weights of the latent cells, float32 (1, h, w) each; their mean is 1 without a mask.
        captions: one per sample.
        conditions: SDXL's time ids, float32 (n, 6): original height and width, top and left of the crop,
            height and width.
        weight: loss weight of each sample, float32 (n,).
        groups: rows by image size; a row occurs as often as its sample repeats.
        cache: cache of the frozen networks' outputs.
    """

    latents: list[Tensor]
    places: list[Tensor]
    captions: list[str]
    conditions: Tensor
    weight: Tensor
    groups: list[list[int]]
    cache: Cache = NO_CACHE


@dataclass
class PromptEmbedCache:
    """Text embeddings by caption, computed once each by the frozen text encoders.

    At most MAX_CAPTIONS stay in memory, because shuffled and dropped tags make new captions all the time.
    The oldest are discarded first.
    """

    MAX_CAPTIONS: ClassVar[int] = 1024
    base: BaseModel
    cache: Cache = NO_CACHE
    known: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Return embeddings (n, tokens of the longest caption, d), and for SDXL the pooled ones (n, p)."""
        # one by one: an embedding must not depend on its neighbors in the batch
        embeds = [self._embed(caption) for caption in captions]
        contexts, pooled = [e["context"] for e in embeds], [e["pooled"] for e in embeds if "pooled" in e]
        if len({context.shape for context in contexts}) > 1:
            contexts = [pad(contexts, self._embed("")["context"])]
        return torch.cat(contexts), torch.cat(pooled) if pooled else None

    def _embed(self, caption: str) -> dict[str, Tensor]:
        if caption not in self.known:
            if len(self.known) >= self.MAX_CAPTIONS:
                del self.known[next(iter(self.known))]
            embeds = self.cache.get(f"text {caption}", partial(_embed_caption, self.base, caption))
            self.known[caption] = {name: tensor.to(self.base.device) for name, tensor in embeds.items()}
        return self.known[caption]


def encode_samples(
    base: BaseModel,
    samples: Sequence[Sample],
    face_loss_weight: float = 1.0,
    background_loss_weight: float = 1.0,
    cache: Cache = NO_CACHE,
) -> EncodedDataset:
    """Encode the training images once; the VAE is frozen.

    The loss weight of a latent cell is `face_loss_weight` in the face and `background_loss_weight` outside,
    both multiplied by the whiteness of the image's mask.

    Raises:
        ValueError: `samples` is empty.
    """
    if not samples:
        raise ValueError("there are no training images")
    latents, places = [], []
    for sample in samples:  # one by one: an image's latents must not depend on its neighbors in the batch
        encoded = cache.get(f"latents of {_pixel_hash(sample.image)}", partial(_latents, base, sample.image))
        latents.append(encoded["latents"].to(base.device))
        height, width = latents[-1].shape[1:]
        loss_mask = torch.ones(1, height, width)
        if sample.face is not None:
            box = np.array([sample.face]) / (sample.image.size * 2)
            loss_mask = face_weights(box, face_loss_weight, height, width, background_loss_weight)[0]
        if sample.mask is not None:
            loss_mask = loss_mask * _whiteness(sample.mask, height, width)
        places.append(loss_mask.to(base.device))
    conditions = torch.tensor([_conditions(s) for s in samples], dtype=torch.float32, device=base.device)
    weight = torch.tensor([s.weight for s in samples], dtype=torch.float32, device=base.device)
    groups: dict[Size, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        groups[sample.image.size] += [row] * sample.repeats
    ordered = [groups[size] for size in sorted(groups)]
    return EncodedDataset(latents, places, [s.caption for s in samples], conditions, weight, ordered, cache)


def tokenize(base: BaseModel, captions: Sequence[str]) -> list[Tensor]:
    """Return token ids int64 (n, chunks, 77) for each text encoder; the longest caption sets the chunks."""
    texts = [[spell(t, [(caption, 1.0)]) for caption in captions] for t in base.tokenizers]
    chunks = max((len(tokens) for encoder_texts in texts for tokens in encoder_texts), default=1)
    padded = (lay(t, encoder_texts, chunks) for t, encoder_texts in zip(base.tokenizers, texts, strict=True))
    return [rows.ids.to(base.device) for rows in padded]


def encode_prompt(base: BaseModel, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return text embeddings as the base model's pipeline computes them.

    Args:
        base: its text encoders may be trained or frozen.
        tokens: int64 (n, chunks, 77) for each text encoder.

    Returns:
        (n, chunks * 77, d), and for SDXL the pooled embedding (n, p) of the second encoder.
    """
    return encode_chunks(list(base.text_encoders.values()), tokens)


def _latents(base: BaseModel, image: Image.Image) -> dict[str, Tensor]:
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    scaled = pixels.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
    return {"latents": encode(base.vae, scaled)[0]}


def _whiteness(mask: Image.Image, height: int, width: int) -> Tensor:
    """Return the mask's whiteness in each latent cell, float32 (1, h, w) in [0, 1]."""
    small = mask.convert("L").resize((width, height), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, np.float32) / 255)[None]


def _embed_caption(base: BaseModel, caption: str) -> dict[str, Tensor]:
    with torch.no_grad():
        context, pooled = encode_prompt(base, tokenize(base, [caption]))
    return {"context": context} if pooled is None else {"context": context, "pooled": pooled}


def _conditions(sample: Sample) -> list[int]:
    width, height = sample.image.size
    original = sample.original or (width, height)
    return [original[1], original[0], sample.corner[1], sample.corner[0], height, width]
