import math
from typing import Any

import numpy as np
import pytest
import torch

from valentina_pipeline.image.train import diffusion

SHAPE = (8, 4, 4)


def draws(seed: int, step: int, slots: range, **options: Any) -> diffusion.StepNoise:
    return diffusion.sample_step_noise(seed, step, slots, SHAPE, (0, 1000), **options)


def test_a_draw_depends_on_seed_step_and_slot_alone() -> None:
    whole = draws(7, 3, range(4))
    torch.manual_seed(99)  # the global generator has no say
    part = draws(7, 3, range(1, 3))
    for name in ("timesteps", "noise", "dropout", "order"):
        assert torch.equal(getattr(whole, name)[1:3], getattr(part, name))
    for other in (draws(8, 3, range(4)), draws(7, 4, range(4))):
        assert not torch.equal(whole.noise, other.noise)


def test_slots_of_one_step_draw_different_noise() -> None:
    noise = draws(7, 0, range(3)).noise
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])


def test_timesteps_cover_their_span_and_the_chances_are_even() -> None:
    drawn = [diffusion.sample_step_noise(1, step, range(8), (1, 1, 1), (100, 900)) for step in range(200)]
    times = torch.cat([d.timesteps for d in drawn])
    assert 100 <= times.min() < 120
    assert 880 < times.max() < 900
    assert abs(times.float().mean().item() - 500) < 30
    for name in ("dropout", "order"):
        chance = torch.cat([getattr(d, name) for d in drawn])
        assert 0.07 < (chance < 0.1).float().mean() < 0.13


def test_offset_noise_shifts_whole_channels_and_leaves_the_other_draws_as_they_are() -> None:
    plain, offset = draws(7, 3, range(2)), draws(7, 3, range(2), offset=0.5)
    shift = offset.noise - plain.noise
    assert torch.equal(offset.timesteps, plain.timesteps)
    assert shift.std(dim=(0, 1)).max() > 0.1
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift), atol=1e-6, rtol=0)


def test_v_and_noise_recover_the_clean_latents() -> None:
    clean, noise = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    kept = torch.tensor([0.9, 0.2])
    noisy = diffusion.add_noise(clean, noise, kept)
    v = diffusion.target(clean, noise, kept, "v_prediction")
    a, s = kept.sqrt().view(-1, 1, 1, 1), (1 - kept).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(a * noisy - s * v, clean)
    assert diffusion.target(clean, noise, kept, "epsilon") is noise


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_targets_and_corruption_are_those_of_diffusers(kind: str) -> None:
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=kind)
    clean, noise, steps = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE), torch.tensor([0, 400, 999])
    kept = scheduler.alphas_cumprod[steps]
    torch.testing.assert_close(
        diffusion.add_noise(clean, noise, kept), scheduler.add_noise(clean, noise, steps)
    )
    wanted = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, steps)
    torch.testing.assert_close(diffusion.target(clean, noise, kept, kind), wanted)


def test_min_snr_weights_are_those_of_the_paper() -> None:
    snr = torch.tensor([0.5, 5.0, 50.0])
    kept = snr / (1 + snr)
    torch.testing.assert_close(diffusion.weights(kept, 5.0, "epsilon"), torch.tensor([1.0, 1.0, 0.1]))
    by_v = torch.tensor([0.5 / 1.5, 5 / 6, 5 / 51])
    torch.testing.assert_close(diffusion.weights(kept, 5.0, "v_prediction"), by_v)


def test_debiased_weights_count_an_error_of_the_picture_the_same_whatever_is_predicted() -> None:
    snr = torch.tensor([0.01, 1.0, 100.0])
    kept = snr / (1 + snr)
    by_eps, by_v = (diffusion.debiased_weights(kept, kind) for kind in ("epsilon", "v_prediction"))
    torch.testing.assert_close(by_eps, torch.tensor([10.0, 1.0, 0.1]))
    # an error e of x_0 is one of sqrt(SNR) e in eps and of sqrt(SNR + 1) e in v
    torch.testing.assert_close(by_eps * snr, by_v * (snr + 1))
    assert diffusion.debiased_weights(torch.tensor([0.0, 1.0]), "epsilon").isfinite().all()


def test_weights_are_finite_at_both_ends_of_the_schedule_and_off_at_gamma_zero() -> None:
    ends = torch.tensor([0.0, 1.0])  # zero terminal SNR, and no noise at all
    for kind in ("epsilon", "v_prediction"):
        assert diffusion.weights(ends, 5.0, kind).isfinite().all()
    assert diffusion.weights(ends, 0.0, "epsilon").tolist() == [1.0, 1.0]
    assert diffusion.weights(ends, 5.0, "epsilon")[0] == 1


def test_the_loss_is_the_weighted_mean_of_each_images_error() -> None:
    predicted, wanted = (
        torch.zeros(2, 1, 2, 2),
        torch.ones(2, 1, 2, 2) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1),
    )
    everywhere = torch.ones(2, 1, 2, 2)
    loss = diffusion.loss(predicted, wanted, torch.tensor([1.0, 0.5]), everywhere)
    assert math.isclose(loss.item(), (1 * 1 + 9 * 0.5) / 2)


def test_an_error_in_the_face_counts_as_often_as_the_weight_says() -> None:
    places = diffusion.face_weights(np.array([[0.5, 0.5, 1, 1]]), 4.0, 4, 4)
    at_rest = torch.zeros(1, 1, 4, 4)
    inside, outside = at_rest.clone(), at_rest.clone()
    inside[..., 3, 3], outside[..., 0, 0] = 1, 1
    once = torch.ones(1)
    ratio = diffusion.loss(inside, at_rest, once, places) / diffusion.loss(outside, at_rest, once, places)
    assert math.isclose(ratio.item(), 4, rel_tol=1e-6)
    assert math.isclose(places.mean().item(), 1, rel_tol=1e-6)


def test_a_place_that_the_face_covers_in_part_counts_in_part() -> None:
    places = diffusion.face_weights(np.array([[0, 0, 0.75, 1], [0, 0, 1, 1]]), 3.0, 1, 2)
    assert places[0, 0, 0].tolist() == pytest.approx([1.2, 0.8])  # 3 and 2, over their mean
    assert places[1, 0, 0].tolist() == [1, 1]


def test_a_base_that_predicts_something_else_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'sample'"):
        diffusion.target(torch.zeros(1), torch.zeros(1), torch.ones(1), "sample")
