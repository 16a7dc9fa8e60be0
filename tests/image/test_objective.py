import math
from typing import Any

import numpy as np
import pytest
import torch

from valentina_pipeline.image import objective

SHAPE = (8, 4, 4)


def test_a_draw_depends_on_seed_step_and_slot_alone() -> None:
    whole = objective.draw(7, 3, batch=4, images=6, shape=SHAPE, timesteps=1000)
    torch.manual_seed(99)  # the global generator has no say
    fewer = objective.draw(7, 3, batch=2, images=6, shape=SHAPE, timesteps=1000)
    assert torch.equal(whole.noise[:2], fewer.noise)
    assert torch.equal(whole.timesteps[:2], fewer.timesteps)
    for other in (objective.draw(8, 3, 4, 6, SHAPE, 1000), objective.draw(7, 4, 4, 6, SHAPE, 1000)):
        assert not torch.equal(whole.noise, other.noise)


def test_slots_of_one_step_draw_different_noise() -> None:
    noise = objective.draw(7, 0, batch=3, images=1, shape=SHAPE, timesteps=10).noise
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])


def test_every_epoch_shows_each_image_once_in_a_new_order() -> None:
    rows = torch.cat([objective.draw(1, step, 2, 6, SHAPE, 10).rows for step in range(6)]).tolist()
    first, second = rows[:6], rows[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second


def test_about_a_tenth_of_the_captions_is_dropped_and_timesteps_cover_the_schedule() -> None:
    draws = [objective.draw(1, step, 8, 24, (1, 1, 1), 1000) for step in range(200)]
    share = torch.cat([d.dropped for d in draws]).float().mean().item()
    times = torch.cat([d.timesteps for d in draws])
    assert 0.07 < share < 0.13
    assert times.min() < 20
    assert times.max() > 980
    assert abs(times.float().mean().item() - 500) < 30


def test_v_and_noise_recover_the_clean_latents() -> None:
    clean, noise = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    kept = torch.tensor([0.9, 0.2])
    noisy = objective.corrupt(clean, noise, kept)
    v = objective.target(clean, noise, kept, "v_prediction")
    a, s = kept.sqrt().view(-1, 1, 1, 1), (1 - kept).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(a * noisy - s * v, clean)
    assert objective.target(clean, noise, kept, "epsilon") is noise


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_targets_and_corruption_are_those_of_diffusers(kind: str) -> None:
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=kind)
    clean, noise, steps = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE), torch.tensor([0, 400, 999])
    kept = scheduler.alphas_cumprod[steps]
    torch.testing.assert_close(
        objective.corrupt(clean, noise, kept), scheduler.add_noise(clean, noise, steps)
    )
    wanted = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, steps)
    torch.testing.assert_close(objective.target(clean, noise, kept, kind), wanted)


def test_min_snr_weights_are_those_of_the_paper() -> None:
    snr = torch.tensor([0.5, 5.0, 50.0])
    kept = snr / (1 + snr)
    torch.testing.assert_close(objective.weights(kept, 5.0, "epsilon"), torch.tensor([1.0, 1.0, 0.1]))
    by_v = torch.tensor([0.5 / 1.5, 5 / 6, 5 / 51])
    torch.testing.assert_close(objective.weights(kept, 5.0, "v_prediction"), by_v)


def test_weights_are_finite_at_both_ends_of_the_schedule_and_off_at_gamma_zero() -> None:
    ends = torch.tensor([0.0, 1.0])  # zero terminal SNR, and no noise at all
    for kind in ("epsilon", "v_prediction"):
        assert objective.weights(ends, 5.0, kind).isfinite().all()
    assert objective.weights(ends, 0.0, "epsilon").tolist() == [1.0, 1.0]
    assert objective.weights(ends, 5.0, "epsilon")[0] == 1


def test_the_loss_is_the_weighted_mean_of_each_images_error() -> None:
    predicted, wanted = (
        torch.zeros(2, 1, 2, 2),
        torch.ones(2, 1, 2, 2) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1),
    )
    everywhere = torch.ones(2, 1, 2, 2)
    loss = objective.loss(predicted, wanted, torch.tensor([1.0, 0.5]), everywhere)
    assert math.isclose(loss.item(), (1 * 1 + 9 * 0.5) / 2)


def test_an_error_in_the_face_counts_as_often_as_the_weight_says() -> None:
    places = objective.face_weights(np.array([[0.5, 0.5, 1, 1]]), 4.0, 4, 4)
    at_rest = torch.zeros(1, 1, 4, 4)
    inside, outside = at_rest.clone(), at_rest.clone()
    inside[..., 3, 3], outside[..., 0, 0] = 1, 1
    once = torch.ones(1)
    ratio = objective.loss(inside, at_rest, once, places) / objective.loss(outside, at_rest, once, places)
    assert math.isclose(ratio.item(), 4, rel_tol=1e-6)
    assert math.isclose(places.mean().item(), 1, rel_tol=1e-6)


def test_a_place_that_the_face_covers_in_part_counts_in_part() -> None:
    places = objective.face_weights(np.array([[0, 0, 0.75, 1], [0, 0, 1, 1]]), 3.0, 1, 2)
    assert places[0, 0, 0].tolist() == pytest.approx([1.2, 0.8])  # 3 and 2, over their mean
    assert places[1, 0, 0].tolist() == [1, 1]


def test_a_base_that_predicts_something_else_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'sample'"):
        objective.target(torch.zeros(1), torch.zeros(1), torch.ones(1), "sample")
