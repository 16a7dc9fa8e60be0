import pytest
from hypothesis import given
from hypothesis import strategies as st

from valentina_pipeline.training.early_stopping import best_step, should_stop

LOSSES = {50: {"val_loss": 0.3}, 100: {"val_loss": 0.2}, 150: {"val_loss": 0.2}}
DRAWN = {
    10: {"identity": 0.1, "clip_t": 0.6},
    15: {"val_loss": 0.1},
    20: {"identity": 0.7, "clip_t": 0.56},
    30: {"identity": 0.9, "clip_t": 0.5},  # likeness paid for with the prompt
}


def test_the_best_look_is_by_the_stated_rule() -> None:
    assert best_step(LOSSES, "val_loss") == 100
    assert best_step(LOSSES, "none") is None
    assert best_step(DRAWN, "identity") == 20
    assert best_step({}, "val_loss") is None
    assert best_step(LOSSES, "identity") is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 5))
def test_a_run_has_had_enough_after_so_many_looks_without_a_better_one(
    losses: list[float], patience: int
) -> None:
    looks = {step: {"val_loss": loss} for step, loss in enumerate(losses)}
    since = len(losses) - 1 - losses.index(min(losses))
    assert should_stop(looks, "val_loss", patience) == (since >= patience)
    assert not should_stop(looks, "val_loss", 0)


@pytest.mark.parametrize("patience", [1, 2])
def test_only_looks_that_drew_count_towards_patience_in_identity(patience: int) -> None:
    assert should_stop(DRAWN, "identity", patience) == (patience == 1)
