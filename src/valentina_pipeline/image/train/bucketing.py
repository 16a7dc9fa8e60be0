"""Which pictures a step sees: aspect-ratio buckets, and an order that is a function of (seed, batch)."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Size = tuple[int, int]
"""Width and height in pixels."""


def bucket_sizes(pixels: int, multiple: int = 64, max_ratio: float = 2.0) -> list[Size]:
    """Return the sizes that pictures are scaled and cut to, narrowest first.

    Widths are multiples of `multiple`; each has the tallest height that keeps within the budget, as in
    NovelAI's aspect-ratio bucketing. The widths from sqrt(pixels) down give the upright sizes, and these
    turned give the others.

    Args:
        pixels: the budget; no size has more.
        multiple: of both sides.
        max_ratio: of the longer side to the shorter.

    Raises:
        ValueError: not even one square of `multiple` fits the budget.
    """
    if pixels < multiple**2:
        raise ValueError(f"a budget of {pixels} pixels holds no square of {multiple}")
    side = math.isqrt(pixels) // multiple * multiple
    heights = {width: pixels // width // multiple * multiple for width in range(multiple, side + 1, multiple)}
    upright = [(width, height) for width, height in heights.items() if height <= width * max_ratio]
    sizes = {(side, side), *upright, *((height, width) for width, height in upright)}
    return sorted(sizes, key=lambda size: (size[0] / size[1], size))


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """Return the bucket whose aspect ratio is nearest in logarithm; of two as near, the larger."""
    ratio = math.log(size[0] / size[1])
    return min(buckets, key=lambda b: (round(abs(math.log(b[0] / b[1]) - ratio), 9), -b[0] * b[1]))


def resize_and_crop(size: Size, bucket: Size) -> tuple[Size, tuple[int, int]]:
    """Return the size at which a picture just covers a bucket, and left and top of the centred crop."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    scaled = (max(bucket[0], round(size[0] * scale)), max(bucket[1], round(size[1] * scale)))
    return scaled, ((scaled[0] - bucket[0]) // 2, (scaled[1] - bucket[1]) // 2)


def batch_indices(seed: int, index: int, groups: Sequence[Sequence[int]], size: int) -> list[int]:
    """Return the rows of the batch `index` of a run, whatever was asked for before.

    A batch is of one group, since pictures of one batch have one size. Each group is gone through in
    epochs, each a new order, without a rest; and in every `sum of groups` batches each group has as many as
    it has rows, so that each row is seen exactly `size` times in them: large and small buckets alike.

    Args:
        seed: of the run.
        index: of the batch, from 0.
        groups: rows by bucket; a row that is to be seen twice as often stands there twice.
        size: rows in a batch.
    """
    counts = tuple(len(group) for group in groups)
    cycle, place = divmod(index, sum(counts))
    order = _group_order(seed, cycle, counts)
    chosen = int(order[place])
    nth = cycle * counts[chosen] + int((order[:place] == chosen).sum())
    rows = []
    for position in range(nth * size, nth * size + size):
        epoch, within = divmod(position, counts[chosen])
        rows.append(groups[chosen][int(_row_order(seed, chosen, epoch, counts[chosen])[within])])
    return rows


@lru_cache(maxsize=4)
def _group_order(seed: int, cycle: int, counts: tuple[int, ...]) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels if len(counts) == 1 else np.random.default_rng([seed, cycle, 1]).permutation(labels)


@lru_cache(maxsize=64)
def _row_order(seed: int, group: int, epoch: int, count: int) -> np.ndarray:
    # the first group's key is the one of a run without buckets
    return np.random.default_rng([seed, epoch, *([group] if group else [])]).permutation(count)
