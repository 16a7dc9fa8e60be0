"""Aspect-ratio buckets, and the images of each batch as a pure function of (seed, batch)."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Size = tuple[int, int]
"""Width and height in pixels."""


def bucket_sizes(pixels: int, multiple: int = 64, max_ratio: float = 2.0) -> list[Size]:
    """Return the bucket sizes that images are resized and cropped to, narrowest first.

    As in NovelAI's aspect-ratio bucketing, widths are multiples of `multiple`, and each has the tallest
    height within the pixel budget. Widths up to sqrt(pixels) give the portrait sizes; swapping their sides
    gives the landscape sizes.

    Args:
        pixels: pixel budget; the largest area of a bucket.
        multiple: both sides are multiples of it.
        max_ratio: largest ratio of the longer side to the shorter.

    Raises:
        ValueError: the budget is smaller than one square of `multiple`.
    """
    if pixels < multiple**2:
        raise ValueError(f"a budget of {pixels} pixels is too small: at least {multiple**2}")
    side = math.isqrt(pixels) // multiple * multiple
    heights = {width: pixels // width // multiple * multiple for width in range(multiple, side + 1, multiple)}
    upright = [(width, height) for width, height in heights.items() if height <= width * max_ratio]
    sizes = {(side, side), *upright, *((height, width) for width, height in upright)}
    return sorted(sizes, key=lambda size: (size[0] / size[1], size))


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """Return the bucket with the nearest logarithm of the aspect ratio; ties go to the larger bucket."""
    ratio = math.log(size[0] / size[1])
    return min(buckets, key=lambda b: (round(abs(math.log(b[0] / b[1]) - ratio), 9), -b[0] * b[1]))


def resize_and_crop(size: Size, bucket: Size) -> tuple[Size, tuple[int, int]]:
    """Return the size at which an image just covers a bucket, and left and top of the center crop."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    scaled = (max(bucket[0], round(size[0] * scale)), max(bucket[1], round(size[1] * scale)))
    return scaled, ((scaled[0] - bucket[0]) // 2, (scaled[1] - bucket[1]) // 2)


def batch_indices(seed: int, index: int, groups: Sequence[Sequence[int]], size: int) -> list[int]:
    """Return the rows of batch `index` of a run, a pure function of the arguments.

    All rows of a batch come from one group, because the images of a batch have one size. Each group is
    read in epochs, each in a new order, and a batch may span two epochs. A cycle is as many batches as
    there are rows. In each cycle a group fills as many batches as it has rows, so that each row occurs
    exactly `size` times, in large and small buckets alike.

    Args:
        seed: seed of the run.
        index: index of the batch, from 0.
        groups: rows by bucket; a row that occurs twice is seen twice as often.
        size: rows in a batch.
    """
    counts = tuple(len(group) for group in groups)
    cycle, place = divmod(index, sum(counts))
    order = _group_order(seed, cycle, counts)
    group = int(order[place])
    nth = cycle * counts[group] + int((order[:place] == group).sum())
    rows = []
    for position in range(nth * size, nth * size + size):
        epoch, within = divmod(position, counts[group])
        rows.append(groups[group][int(_row_order(seed, group, epoch, counts[group])[within])])
    return rows


@lru_cache(maxsize=4)
def _group_order(seed: int, cycle: int, counts: tuple[int, ...]) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels if len(counts) == 1 else np.random.default_rng([seed, cycle, 1]).permutation(labels)


@lru_cache(maxsize=64)
def _row_order(seed: int, group: int, epoch: int, count: int) -> np.ndarray:
    # the first group uses the key of a run without buckets
    return np.random.default_rng([seed, epoch, *([group] if group else [])]).permutation(count)
