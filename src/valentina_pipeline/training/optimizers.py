"""Optimizers by name, their parameter groups and their state."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.config.train_lora import TrainConfig

Span = tuple[float, float]
"""Start and end of a training phase, as shares of all steps; the end is excluded."""


def create_optimizer(groups: Sequence[Mapping[str, Any]], cfg: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer that `cfg` names, for groups of `params`, each with its own `lr`.

    Raises:
        MissingModelError: the optimizer needs a GPU, and there is none.
    """
    param_groups = [dict(group) for group in groups]
    decay = cfg.weight_decay
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(param_groups, weight_decay=decay, fused=True)
    if cfg.optimizer == "adafactor":
        return torch.optim.Adafactor(param_groups, weight_decay=decay)
    if cfg.optimizer == "prodigy":
        from prodigyopt import Prodigy

        # lr is a factor of the learning rate that Prodigy estimates; its default is 1
        return Prodigy(param_groups, weight_decay=decay, safeguard_warmup=True, use_bias_correction=True)
    if cfg.optimizer == "schedule_free":
        from schedulefree import AdamWScheduleFree

        return AdamWScheduleFree(param_groups, weight_decay=decay)
    if not torch.cuda.is_available():
        raise MissingModelError(
            "a GPU for 8-bit AdamW",
            "MIT",
            "set train_lora.optimizer to adamw: a CPU has the memory",
        )
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(param_groups, weight_decay=decay)


def optimizer_state(
    optimizer: torch.optim.Optimizer, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state: tensors by "parameter/key", and all other values as JSON.

    Args:
        optimizer: any optimizer of `create_optimizer`.
        names: names of its parameters, in the order of its groups.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            (tensors if isinstance(value, Tensor) else facts)[f"{names[index]}/{key}"] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return tensors, {"state": facts, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Sequence[str],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Restore an optimizer exactly to the state that `optimizer_state` returned."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_name = dict(zip(names, parameters, strict=True))
    for label, value in {**tensors, **facts["state"]}.items():
        name, key = label.rsplit("/", 1)
        parameter = by_name[name]
        if isinstance(value, Tensor):
            value = _match_layout(value, parameter)
        optimizer.state[parameter][key] = value
    for group, saved in zip(optimizer.param_groups, facts["groups"], strict=True):
        # JSON turns tuples into lists, and optimizers compare and unpack tuples
        group.update({k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in saved.items()})


def parameter_groups(
    weights: Mapping[str, nn.Parameter], rates: Mapping[str, float], spans: Mapping[str, Span]
) -> list[dict[str, Any]]:
    """Freeze weights of rate 0; return a group of `params`, `lr` and `span` for each rate and span."""
    groups: dict[tuple[float, Span], list[nn.Parameter]] = {}
    for name, parameter in weights.items():
        parameter.requires_grad_(rates[name] > 0)
        if rates[name] > 0:
            groups.setdefault((rates[name], spans[name]), []).append(parameter)
    return [{"params": params, "lr": rate, "span": span} for (rate, span), params in groups.items()]


def _match_layout(saved: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a saved tensor on the parameter's device, and in its memory layout if the shapes match."""
    if saved.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=saved.dtype).copy_(saved).detach()
    return saved.to(parameter.device)
