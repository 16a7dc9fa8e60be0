"""How weights move: the optimisers by name, the learning rate's course, and the averaged weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.config import TrainConfig
from valentina_pipeline.image.missing import MissingModel

Span = tuple[float, float]
"""From which share of the steps to before which."""

CYCLE_START = 1 / 25
"""Share of the peak rate that one cycle begins with (fastai's and torch's default)."""

CYCLE_RISE = 0.3
"""Share of the steps in which one cycle's rate rises."""


def schedule(step: int, cfg: TrainConfig, span: Span = (0.0, 1.0)) -> float:
    """Return the share of the learning rate at `step`, in [0, 1]; 0 outside the span.

    A linear warm-up over `cfg.warmup_steps`, then: "constant"; "cosine" towards 0; or "one_cycle" (Smith &
    Topin 2018), which rises from a 25th over the first 30 % and falls to nothing, both along a cosine.

    Args:
        step: from 0.
        cfg: how many there are, and the course.
        span: in which share of the steps this course takes place.
    """
    first, end = (round(share * cfg.steps) for share in span)
    if not first <= step < end:
        return 0.0
    if step - first < cfg.warmup_steps:
        return (step - first + 1) / cfg.warmup_steps
    progress = (step - first - cfg.warmup_steps) / max(1, end - first - cfg.warmup_steps)
    if cfg.schedule == "constant":
        return 1.0
    if cfg.schedule == "cosine":
        return _cosine(1, 0, progress)
    if progress < CYCLE_RISE:
        return _cosine(CYCLE_START, 1, progress / CYCLE_RISE)
    return _cosine(1, 0, (progress - CYCLE_RISE) / (1 - CYCLE_RISE))


def make_optimiser(groups: Sequence[Mapping[str, Any]], cfg: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser that `cfg` names, for groups of `params`, each with its own `lr`.

    Raises:
        MissingModel: its library, or the GPU it needs, is not here.
    """
    made = [dict(group) for group in groups]
    decay = cfg.weight_decay
    if cfg.optimiser == "adamw":
        return torch.optim.AdamW(made, weight_decay=decay, fused=True)
    if cfg.optimiser == "adafactor":
        return torch.optim.Adafactor(made, weight_decay=decay)
    if cfg.optimiser == "prodigy":
        from prodigyopt import Prodigy

        # its rate is a factor of the one it estimates: 1 where nothing else is known
        return Prodigy(made, weight_decay=decay, safeguard_warmup=True, use_bias_correction=True)
    if cfg.optimiser == "schedule_free":
        from schedulefree import AdamWScheduleFree

        return AdamWScheduleFree(made, weight_decay=decay)
    if not torch.cuda.is_available():
        raise MissingModel(
            "a GPU for 8-bit AdamW", "MIT", "set train_lora.optimiser to adamw: a CPU has the memory"
        )
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(made, weight_decay=decay)


def optimiser_state(
    optimiser: torch.optim.Optimizer, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all that an optimiser remembers: tensors by "parameter/key", and the rest as JSON.

    Args:
        optimiser: of any of `make_optimiser`'s.
        names: of its parameters, in the order of its groups.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            (tensors if isinstance(value, Tensor) else facts)[f"{names[index]}/{key}"] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    return tensors, {"state": facts, "groups": groups}


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    names: Sequence[str],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Bring an optimiser to where `optimiser_state` found it, to the bit."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    by_name = dict(zip(names, parameters, strict=True))
    for label, value in {**tensors, **facts["state"]}.items():
        name, key = label.rsplit("/", 1)
        parameter = by_name[name]
        if isinstance(value, Tensor):
            value = _alike(value, parameter)
        optimiser.state[parameter][key] = value
    for group, saved in zip(optimiser.param_groups, facts["groups"], strict=True):
        # JSON knows no tuples, and optimisers compare and unpack them
        group.update({k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in saved.items()})


def parameter_groups(
    weights: Mapping[str, nn.Parameter], rates: Mapping[str, float], spans: Mapping[str, Span]
) -> list[dict[str, Any]]:
    """Return one group of `params` for each rate and span, as `lr` and `span`; what has rate 0 is frozen."""
    groups: dict[tuple[float, Span], list[nn.Parameter]] = {}
    for name, parameter in weights.items():
        parameter.requires_grad_(rates[name] > 0)
        if rates[name] > 0:
            groups.setdefault((rates[name], spans[name]), []).append(parameter)
    return [{"params": members, "lr": rate, "span": span} for (rate, span), members in groups.items()]


def _alike(saved: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a saved tensor on the parameter's device, and in its memory layout where it has its shape."""
    if saved.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=saved.dtype).copy_(saved).detach()
    return saved.to(parameter.device)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
