"""Training samples: an image, its caption, its size and its variations."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from valentina_pipeline.image.train.bucketing import Size, bucket_sizes, nearest_bucket, resize_and_crop

Box = tuple[float, float, float, float]


def _pixel_hash(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One training image with its caption, face and mask.

    Attributes:
        name: file name.
        image: RGB; after `fit` both sides are multiples of 8 pixels.
        caption: comma-separated tags or a sentence.
        face: left, top, right, bottom in pixels of `image`; None weights the whole image equally.
        repeats: number of times the image occurs in an epoch.
        weight: weight of its loss; for class images, DreamBooth's prior loss weight.
        original: width and height before resizing, for SDXL's time ids; None is the size of `image`.
        corner: left and top of the crop in the resized image, for SDXL's time ids.
        mask: mode L, same size as `image`: white counts in full, black not at all; None counts all of it.
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


def fit(samples: Sequence[Sample], pixels: int) -> list[Sample]:
    """Resize and crop images to buckets of at most `pixels`; images that all have one size stay as they are.

    Each image is resized to just cover the bucket with the nearest aspect ratio, then center-cropped.
    """
    if len({sample.image.size for sample in samples}) <= 1:
        return list(samples)
    buckets = bucket_sizes(pixels)
    return [_fit_one(sample, nearest_bucket(sample.image.size, buckets)) for sample in samples]


def flip_sample(sample: Sample) -> Sample:
    """Return the sample flipped left to right."""
    face = sample.face
    if face is not None:
        left, top, right, bottom = face
        face = (sample.image.width - right, top, sample.image.width - left, bottom)
    mask = sample.mask and ImageOps.mirror(sample.mask)
    name = f"{sample.name} mirrored"
    return replace(sample, name=name, image=ImageOps.mirror(sample.image), face=face, mask=mask)


def augment_caption(caption: str, chance: float, keep: int, dropout: float) -> str:
    """Return a caption with its tags shuffled and some of them dropped.

    Args:
        caption: tags separated by commas.
        chance: random number in [0, 1); the same number gives the same result.
        keep: number of leading tags that stay in place; -1 does not shuffle.
        dropout: probability to drop each tag behind those; with `keep` -1, each but the first.
    """
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    rng = np.random.default_rng(int(chance * 2**53))
    first = 1 if keep < 0 else keep
    rest = [
        tag for tag, draw in zip(tags[first:], rng.random(len(tags[first:])), strict=True) if draw >= dropout
    ]
    if keep >= 0:
        rest = [rest[i] for i in rng.permutation(len(rest))]
    return ", ".join([*tags[:first], *rest])


def data_hash(samples: Sequence[Sample]) -> str:
    """Return the sha256 of the training data: images, captions, faces, weights, sizes and masks."""
    total = hashlib.sha256()
    for sample in samples:
        row: tuple[object, ...] = (
            sample.name, _pixel_hash(sample.image), sample.caption, sample.face,
            sample.repeats, sample.weight, sample.original, sample.corner,
        )  # fmt: skip
        if sample.mask is not None:
            row += (_pixel_hash(sample.mask),)
        total.update("".join(f"{value}\0" for value in row).encode())
    return total.hexdigest()


def _fit_one(sample: Sample, bucket: Size) -> Sample:
    (width, height), (left, top) = resize_and_crop(sample.image.size, bucket)
    scale = width / sample.image.width, height / sample.image.height
    box = (left, top, left + bucket[0], top + bucket[1])
    image = sample.image.resize((width, height), Image.Resampling.LANCZOS).crop(box)
    face = sample.face
    if face is not None:
        x0, y0, x1, y1 = face
        face = (x0 * scale[0] - left, y0 * scale[1] - top, x1 * scale[0] - left, y1 * scale[1] - top)
    # bilinear, because Lanczos rings and would lighten black areas
    mask = sample.mask and sample.mask.resize((width, height), Image.Resampling.BILINEAR).crop(box)
    original = sample.original or sample.image.size
    return replace(sample, image=image, face=face, original=original, corner=(left, top), mask=mask)
