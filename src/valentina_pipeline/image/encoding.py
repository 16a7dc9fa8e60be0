"""Pictures and captions as the networks see them."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from valentina_pipeline.image.base import BaseModel, encode
from valentina_pipeline.image.batches import Size, bucket_sizes, cover, nearest_bucket
from valentina_pipeline.image.cache import NO_CACHE, Cache
from valentina_pipeline.image.conditioning import encode as encode_pieces
from valentina_pipeline.image.conditioning import lay, pad, spell
from valentina_pipeline.image.objective import face_weights

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One training picture.

    Attributes:
        name: of its file.
        image: RGB, both sides multiples of 8 pixels once it is fitted.
        caption: comma-separated tags or a sentence.
        face: left, top, right, bottom in pixels of `image`; None: all places count alike.
        repeats: how many times as often as others it is shown.
        weight: of its loss; that of class images is DreamBooth's prior loss weight.
        original: SDXL's condition: width and height before it was scaled; None: as it is.
        corner: likewise: left and top of what was cut from the scaled picture.
        mask: L, as large as `image`: white counts in full, black not at all; None: all of it does.
    """

    name: str
    image: Image.Image
    caption: str
    face: Box | None
    repeats: int = 1
    weight: float = 1.0
    original: Size | None = None
    corner: tuple[int, int] = (0, 0)
    mask: Image.Image | None = None


@dataclass(frozen=True)
class Encoded:
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
class Texts:
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


def fit(samples: Sequence[Sample], pixels: int) -> list[Sample]:
    """Scale and cut pictures of several sizes to buckets of at most `pixels`; those of one size stay.

    Each is scaled so that it just covers the bucket of the nearest shape, and cut at the centre.
    """
    if len({sample.image.size for sample in samples}) <= 1:
        return list(samples)
    buckets = bucket_sizes(pixels)
    return [_fit_one(sample, nearest_bucket(sample.image.size, buckets)) for sample in samples]


def mirrored(sample: Sample) -> Sample:
    """Return the sample flipped left to right."""
    face = sample.face
    if face is not None:
        left, top, right, bottom = face
        face = (sample.image.width - right, top, sample.image.width - left, bottom)
    mask = sample.mask and ImageOps.mirror(sample.mask)
    name = f"{sample.name} mirrored"
    return replace(sample, name=name, image=ImageOps.mirror(sample.image), face=face, mask=mask)


def encode_samples(
    base: BaseModel,
    samples: Sequence[Sample],
    face_weight: float = 1.0,
    background_weight: float = 1.0,
    cache: Cache = NO_CACHE,
) -> Encoded:
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
    return Encoded(latents, places, [s.caption for s in samples], conditions, weight, ordered, cache)


def tokenise(base: BaseModel, captions: Sequence[str]) -> list[Tensor]:
    """Return int64 (n, pieces, 77) for each text encoder: as many pieces as the longest caption takes."""
    texts = [[spell(each, [(caption, 1.0)]) for caption in captions] for each in base.tokenizers]
    pieces = max((len(spelled) for each in texts for spelled in each), default=1)
    laid = (lay(tokenizer, each, pieces) for tokenizer, each in zip(base.tokenizers, texts, strict=True))
    return [rows.ids.to(base.device) for rows in laid]


def encode_text(base: BaseModel, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return what the U-Net attends to, as the base's pipeline makes it.

    Args:
        base: its text encoders, trained or not.
        tokens: int64 (n, pieces, 77) for each of them.

    Returns:
        (n, pieces * 77, d), and for SDXL the pooled embedding (n, p) of the second encoder.
    """
    return encode_pieces(list(base.text_encoders.values()), tokens)


def vary(caption: str, chance: float, keep: int, dropout: float) -> str:
    """Return a caption with its tags in another order, and some left out.

    Args:
        caption: tags between commas.
        chance: in [0, 1): the same number gives the same order.
        keep: so many tags in front stay where they are; -1 leaves the order alone.
        dropout: probability of each tag behind them to be left out; with `keep` -1, of each but the first.
    """
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    rng = np.random.default_rng(int(chance * 2**53))
    first = 1 if keep < 0 else keep
    rest = [
        tag
        for tag, drawn in zip(tags[first:], rng.random(len(tags[first:])), strict=True)
        if drawn >= dropout
    ]
    if keep >= 0:
        rest = [rest[i] for i in rng.permutation(len(rest))]
    return ", ".join([*tags[:first], *rest])


def data_hash(samples: Sequence[Sample]) -> str:
    """Return the sha256 over all that is learned from."""
    total = hashlib.sha256()
    for sample in samples:
        row: tuple[object, ...] = (
            sample.name, _pixel_hash(sample.image), sample.caption, sample.face,
            sample.repeats, sample.weight, sample.original, sample.corner,
        )  # fmt: skip
        if sample.mask is not None:
            row += (_pixel_hash(sample.mask),)
        total.update("".join(f"{each}\0" for each in row).encode())
    return total.hexdigest()


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
        context, pooled = encode_text(base, tokenise(base, [caption]))
    return {"context": context} if pooled is None else {"context": context, "pooled": pooled}


def _pixel_hash(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()


def _fit_one(sample: Sample, bucket: Size) -> Sample:
    (width, height), (left, top) = cover(sample.image.size, bucket)
    scale = width / sample.image.width, height / sample.image.height
    box = (left, top, left + bucket[0], top + bucket[1])
    image = sample.image.resize((width, height), Image.Resampling.LANCZOS).crop(box)
    face = sample.face
    if face is not None:
        x0, y0, x1, y1 = face
        face = (x0 * scale[0] - left, y0 * scale[1] - top, x1 * scale[0] - left, y1 * scale[1] - top)
    # not Lanczos, which rings: black stays black
    mask = sample.mask and sample.mask.resize((width, height), Image.Resampling.BILINEAR).crop(box)
    original = sample.original or sample.image.size
    return replace(sample, image=image, face=face, original=original, corner=(left, top), mask=mask)


def _conditions(sample: Sample) -> list[int]:
    width, height = sample.image.size
    original = sample.original or (width, height)
    return [original[1], original[0], sample.corner[1], sample.corner[0], height, width]
