import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valentina_pipeline.image.train.bucketing import (
    batch_indices,
    bucket_sizes,
    nearest_bucket,
    resize_and_crop,
)

sides = st.integers(16, 5000)
groups = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(
    lambda counts: [list(range(sum(counts[:i]), sum(counts[: i + 1]))) for i in range(len(counts))]
)


@given(st.integers(64, 2048), st.sampled_from([8, 32, 64]), st.floats(1, 4))
def test_every_bucket_keeps_within_the_budget_and_the_ratio(side: int, multiple: int, ratio: float) -> None:
    buckets = bucket_sizes(side**2, multiple, ratio)
    for width, height in buckets:
        assert width % multiple == height % multiple == 0
        assert 0 < width * height <= side**2
        assert max(width / height, height / width) <= ratio
    assert {(h, w) for w, h in buckets} == set(buckets)
    assert any(w == h for w, h in buckets)


def test_sdxl_s_budget_gives_the_sizes_it_was_trained_on() -> None:
    buckets = bucket_sizes(1024**2)
    assert {(1024, 1024), (896, 1152), (832, 1216), (768, 1344), (1216, 832)} <= set(buckets)
    with pytest.raises(ValueError, match="1000 pixels is too small: at least 4096"):
        bucket_sizes(1000)


@given(sides, sides)
def test_a_picture_goes_to_the_bucket_of_the_nearest_shape_and_covers_it(width: int, height: int) -> None:
    buckets = bucket_sizes(512**2)
    bucket = nearest_bucket((width, height), buckets)
    off = abs(math.log(width / height * bucket[1] / bucket[0]))
    assert all(off <= abs(math.log(width / height * h / w)) + 1e-6 for w, h in buckets)
    (scaled_width, scaled_height), (left, top) = resize_and_crop((width, height), bucket)
    assert 0 <= left <= scaled_width - bucket[0]
    assert 0 <= top <= scaled_height - bucket[1]
    assert left == 0 or top == 0  # nothing is cut on one of the axes


@given(st.integers(0, 2**32 - 1), groups, st.integers(1, 9))
def test_rows_are_seen_equally_often_and_batches_stay_in_one_group(
    seed: int, members: list[list[int]], size: int
) -> None:
    count = sum(map(len, members))
    batches = [batch_indices(seed, index, members, size) for index in range(count)]
    for batch in batches:
        assert len(batch) == size
        assert any(set(batch) <= set(group) for group in members)
    seen = Counter(row for batch in batches for row in batch)
    assert seen == {row: size for group in members for row in group}


@given(st.integers(0, 99), groups, st.integers(0, 10**6), st.integers(1, 9))
def test_a_batch_depends_on_seed_and_index_alone(
    seed: int, members: list[list[int]], index: int, size: int
) -> None:
    asked = batch_indices(seed, index, members, size)
    batch_indices(seed + 1, index + 3, members, size)
    assert batch_indices(seed, index, members, size) == asked


def test_a_row_that_stands_there_twice_is_seen_twice_as_often() -> None:
    seen = Counter(row for index in range(3) for row in batch_indices(1, index, [[0, 0, 1]], 4))
    assert seen == {0: 8, 1: 4}
