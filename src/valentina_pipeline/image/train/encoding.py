"""Pictures and captions as the networks see them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from valentina_pipeline.image.generate.conditioning import encode as encode_pieces
from valentina_pipeline.image.generate.conditioning import lay, pad, spell
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.vae import encode
from valentina_pipeline.image.train.bucketing import Size
from valentina_pipeline.image.train.diffusion import face_weights
from valentina_pipeline.image.train.samples import Sample, _pixel_hash
from valentina_pipeline.training.encoding_cache import NO_CACHE, Cache


@dataclass(frozen=True)
class EncodedDataset:
    """The training set as the networks see it, a row each sample.

    Attributes:
        latents: float32 (c, h, w) each.
        places: float32 (1, h, w) each, how much each place of them counts, 1 on average without a
            mask.
        captions: of the samples.
        conditions: float32 (n, 6), SDXL's: original height and width, crop's top and left, height and width.
        weight: float32 (n,), of each sample's loss.
        groups: rows of one size each, a row as many times as it repeats.
        cache: of what frozen networks make of a picture or a caption.
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
    """What the U-Net attends to, by caption, computed once each: the text encoders stand still.

    Of captions without end, as varied tags give, the last MOST are remembered.
    """

    MOST: ClassVar[int] = 1024
    base: BaseModel
    cache: Cache = NO_CACHE
    known: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Return (n, tokens of the longest's pieces, d), and for SDXL the pooled embeddings (n, p)."""
        found = [self._of(caption) for caption in captions]  # an embedding must not depend on its neighbours
        contexts, pooled = [each["context"] for each in found], [e["pooled"] for e in found if "pooled" in e]
        if len({each.shape for each in contexts}) > 1:
            contexts = [pad(contexts, self._of("")["context"])]
        return torch.cat(contexts), torch.cat(pooled) if pooled else None

    def _of(self, caption: str) -> dict[str, Tensor]:
        if caption not in self.known:
            if len(self.known) >= self.MOST:
                del self.known[next(iter(self.known))]
            made = self.cache.get(f"text {caption}", partial(_embedded, self.base, caption))
            self.known[caption] = {name: tensor.to(self.base.device) for name, tensor in made.items()}
        return self.known[caption]


def encode_samples(
    base: BaseModel,
    samples: Sequence[Sample],
    face_weight: float = 1.0,
    background_weight: float = 1.0,
    cache: Cache = NO_CACHE,
) -> EncodedDataset:
    """Encode pictures once: the VAE does not move while the rest learns.

    A place in the face counts `face_weight` times, one outside `background_weight` times, and each as much
    of that as its picture's mask is white.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("there is no picture to train on")
    latents, places = [], []
    for sample in samples:  # one by one: a picture's latents must not depend on its neighbours
        made = cache.get(f"latents of {_pixel_hash(sample.image)}", partial(_latents, base, sample.image))
        latents.append(made["latents"].to(base.device))
        height, width = latents[-1].shape[1:]
        counted = torch.ones(1, height, width)
        if sample.face is not None:
            box = np.array([sample.face]) / (sample.image.size * 2)
            counted = face_weights(box, face_weight, height, width, background_weight)[0]
        if sample.mask is not None:
            counted = counted * _whiteness(sample.mask, height, width)
        places.append(counted.to(base.device))
    conditions = torch.tensor([_conditions(s) for s in samples], dtype=torch.float32, device=base.device)
    weight = torch.tensor([s.weight for s in samples], dtype=torch.float32, device=base.device)
    groups: dict[Size, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        groups[sample.image.size] += [row] * sample.repeats
    ordered = [groups[size] for size in sorted(groups)]
    return EncodedDataset(latents, places, [s.caption for s in samples], conditions, weight, ordered, cache)


def tokenize(base: BaseModel, captions: Sequence[str]) -> list[Tensor]:
    """Return int64 (n, pieces, 77) for each text encoder: as many pieces as the longest caption takes."""
    texts = [[spell(each, [(caption, 1.0)]) for caption in captions] for each in base.tokenizers]
    pieces = max((len(spelled) for each in texts for spelled in each), default=1)
    laid = (lay(tokenizer, each, pieces) for tokenizer, each in zip(base.tokenizers, texts, strict=True))
    return [rows.ids.to(base.device) for rows in laid]


def encode_prompt(base: BaseModel, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return what the U-Net attends to, as the base's pipeline makes it.

    Args:
        base: its text encoders, trained or not.
        tokens: int64 (n, pieces, 77) for each of them.

    Returns:
        (n, pieces * 77, d), and for SDXL the pooled embedding (n, p) of the second encoder.
    """
    return encode_pieces(list(base.text_encoders.values()), tokens)


def _latents(base: BaseModel, image: Image.Image) -> dict[str, Tensor]:
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    scaled = pixels.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
    return {"latents": encode(base.vae, scaled)[0]}


def _whiteness(mask: Image.Image, height: int, width: int) -> Tensor:
    """Return how white a mask is at each place of a latent, float32 (1, h, w) in [0, 1]."""
    small = mask.convert("L").resize((width, height), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, np.float32) / 255)[None]


def _embedded(base: BaseModel, caption: str) -> dict[str, Tensor]:
    with torch.no_grad():
        context, pooled = encode_prompt(base, tokenize(base, [caption]))
    return {"context": context} if pooled is None else {"context": context, "pooled": pooled}


def _conditions(sample: Sample) -> list[int]:
    width, height = sample.image.size
    original = sample.original or (width, height)
    return [original[1], original[0], sample.corner[1], sample.corner[0], height, width]
