import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from valentina_pipeline.image.lora.algebra import Pair, resize, retained_energy, weighted_sum


@st.composite
def pairs(draw: st.DrawFn, out: int = 6, inner: int = 5, kernel: int = 1) -> Pair:
    rank, seed = draw(st.integers(1, 8)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    shape = () if kernel == 1 else (kernel, kernel)
    down = torch.randn(rank, inner, *shape, generator=generator)
    up = torch.randn(out, rank, *[1] * len(shape), generator=generator)
    return Pair(down, up, draw(st.floats(0.1, 4)))


close = {"rtol": 1e-4, "atol": 1e-4}


@given(pairs(), pairs(), st.floats(-2, 2), st.floats(-2, 2))
def test_the_update_of_a_sum_is_the_sum_of_the_updates(one: Pair, other: Pair, a: float, b: float) -> None:
    total = weighted_sum([({"x": one, "y": one}, a), ({"x": other}, b)])
    assert total["x"].rank == one.rank + other.rank
    torch.testing.assert_close(total["x"].update(), a * one.update() + b * other.update(), **close)
    torch.testing.assert_close(total["y"].update(), a * one.update(), **close)


@given(st.sampled_from([1, 3]).flatmap(lambda kernel: pairs(kernel=kernel)), st.integers(1, 10))
def test_resizing_is_as_good_as_any_matrix_of_that_rank_can_be(pair: Pair, rank: int) -> None:
    small = resize({"x": pair}, rank)["x"]
    assert small.rank == min(rank, pair.rank, *pair.update().shape)
    assert small.down.shape[1:] == pair.down.shape[1:]
    assert small.up.ndim == pair.up.ndim
    values = torch.linalg.svdvals(pair.update())
    off = (small.update() - pair.update()).norm()
    torch.testing.assert_close(off, values[rank:].norm(), rtol=1e-3, atol=1e-4)


@given(pairs(), pairs())
def test_a_sum_resized_to_full_rank_is_the_sum(one: Pair, other: Pair) -> None:
    total = weighted_sum([({"x": one}, 0.5), ({"x": other}, 2.0)])
    small = resize(total, 5)
    torch.testing.assert_close(small["x"].update(), total["x"].update(), **close)
    assert retained_energy(total, small) == pytest.approx(1)


def test_resizing_twice_gives_the_same_bytes_and_keeps_less_energy_at_a_smaller_rank() -> None:
    pair = Pair(torch.randn(6, 9), torch.randn(8, 6), 0.5)
    two, three = resize({"x": pair}, 2), resize({"x": pair}, 3)
    assert torch.equal(two["x"].up, resize({"x": pair}, 2)["x"].up)
    assert 0 < retained_energy({"x": pair}, two) < retained_energy({"x": pair}, three) < 1


def test_loras_of_different_bases_and_empty_sums_are_refused() -> None:
    one, other = Pair(torch.ones(1, 4), torch.ones(3, 1), 1.0), Pair(torch.ones(1, 5), torch.ones(3, 1), 1.0)
    with pytest.raises(ValueError, match=r"layer x has the shapes 3 x 4 and 3 x 5: the base models differ"):
        weighted_sum([({"x": one}, 1.0), ({"x": other}, 1.0)])
    with pytest.raises(ValueError, match="at least one"):
        weighted_sum([])
    with pytest.raises(ValueError, match="invalid rank 0"):
        resize({"x": one}, 0)
