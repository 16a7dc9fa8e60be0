import pytest

from packages import stage
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.training.lr_schedules import CYCLE_START, lr_multiplier


def rates(**changes: object) -> list[float]:
    cfg = TrainConfig.model_validate({**stage("train_lora"), "max_steps": 100, **changes})
    return [lr_multiplier(step, cfg) for step in range(100)]


def test_the_rate_warms_up_then_falls_to_nothing() -> None:
    cosine = rates(lr_warmup_steps=10, lr_scheduler="cosine")
    assert cosine[0] == pytest.approx(0.1)
    assert max(cosine) == cosine[9] == cosine[10] == 1
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    assert cosine[-1] == pytest.approx(0, abs=0.001)


def test_one_cycle_rises_for_three_tenths_then_falls_to_nothing() -> None:
    cycle = rates(lr_warmup_steps=0, lr_scheduler="one_cycle")
    assert (cycle[0], cycle[30]) == pytest.approx((CYCLE_START, 1))
    assert cycle[:31] == sorted(cycle[:31])
    assert cycle[30:] == sorted(cycle[30:], reverse=True)
    assert cycle[-1] == pytest.approx(0, abs=0.001)


def test_a_constant_rate_stays() -> None:
    assert set(rates(lr_warmup_steps=0, lr_scheduler="constant")) == {1.0}
