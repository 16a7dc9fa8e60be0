"""Pictures and captions as the networks see them, computed once: neither moves while the LoRA learns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from valentina_pipeline.image.base import BaseModel, encode
from valentina_pipeline.image.objective import face_weights


@dataclass(frozen=True)
class Sample:
    """One training picture, RGB, its caption, and its face: left, top, right, bottom in pixels."""

    name: str
    image: Image.Image
    caption: str
    face: tuple[float, float, float, float]


@dataclass(frozen=True)
class Encoded:
    """The training set as the networks see it; row n of the texts is the empty caption.

    Attributes:
        latents: float32 (n, c, h, w).
        places: float32 (n, 1, h, w), how much each place of them counts, 1 on average.
        tokens: int64 (n + 1, 77) for each text encoder.
        text: their embeddings (n + 1, 77, d) and, for SDXL, pooled (n + 1, p), where the text encoders
            are frozen; else None.
        sizes: float32 (6,), SDXL's size conditions: original, crop and target in pixels.
    """

    latents: Tensor
    places: Tensor
    tokens: list[Tensor]
    text: tuple[Tensor, Tensor | None] | None
    sizes: Tensor


def encode_samples(base: BaseModel, samples: Sequence[Sample], face_weight: float, text: bool) -> Encoded:
    """Encode pictures, and with `text` captions, once: neither network moves while the LoRA learns.

    A place in the face counts `face_weight` times as much as one outside.

    Raises:
        ValueError: no samples, or of several sizes.
    """
    sizes = {sample.image.size for sample in samples}
    if len(sizes) != 1:
        raise ValueError(f"training needs pictures of one size; these are {sorted(sizes) or 'none'}")
    width, height = sizes.pop()
    latents = []
    for sample in samples:  # one by one: a picture's latents must not depend on its neighbours
        pixels = torch.from_numpy(np.array(sample.image.convert("RGB"))).permute(2, 0, 1)[None]
        scaled = pixels.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        latents.append(encode(base.vae, scaled))
    boxes = np.array([sample.face for sample in samples]) / (width, height, width, height)
    places = face_weights(boxes, face_weight, *latents[0].shape[2:]).to(base.device)
    tokens = [_tokens(tokenizer, [s.caption for s in samples] + [""]) for tokenizer in base.tokenizers]
    tokens = [ids.to(base.device) for ids in tokens]
    with torch.no_grad():
        embedded = encode_text(base, tokens) if text else None
    # SDXL's (original height, width, top, left, target height, width)
    conditions = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=base.device)
    return Encoded(torch.cat(latents), places, tokens, embedded, conditions)


def encode_text(base: BaseModel, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return what the U-Net attends to, as the base's pipeline makes it.

    Args:
        base: its text encoders, trained or not.
        tokens: int64 (n, 77) for each of them.

    Returns:
        (n, 77, d), and for SDXL the pooled embedding (n, p) of the second encoder.
    """
    encoders = list(base.text_encoders.values())
    if base.family == "sd15":
        return encoders[0](tokens[0])[0], None
    outputs = [e(ids, output_hidden_states=True) for e, ids in zip(encoders, tokens, strict=True)]
    return torch.cat([out.hidden_states[-2] for out in outputs], dim=-1), outputs[1].text_embeds


def data_hash(samples: Sequence[Sample]) -> str:
    """Return the sha256 over names, pixels, captions and faces."""
    total = hashlib.sha256()
    for sample in samples:
        pixels = hashlib.sha256(sample.image.convert("RGB").tobytes()).hexdigest()
        row = (sample.name, sample.image.size, pixels, sample.caption, sample.face)
        total.update("".join(f"{each}\0" for each in row).encode())
    return total.hexdigest()


def _tokens(tokenizer: Any, texts: list[str]) -> Tensor:
    length = tokenizer.model_max_length
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
