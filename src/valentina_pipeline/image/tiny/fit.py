"""One training loop for every network of the recipe: resumable, averaged, seeded by (seed, step)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

Loss = Callable[[int, np.random.Generator, torch.Generator], Tensor]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        rate: peak learning rate of AdamW; linear warm-up over 2 % of the steps, then a cosine to a hundredth.
        decay: weight decay.
        average: horizon of the exponential average of the weights, in steps.
    """

    steps: int
    rate: float
    decay: float = 0.01
    average: int = 300


def fit(network: nn.Module, loss: Loss, plan: Plan, seed: int, state: Path, name: str) -> None:
    """Train `network` in place and leave it with its averaged weights, in eval mode.

    A run that was stopped goes on from `state`; a finished one has nothing left to do. Step k draws only
    from generators seeded by (seed, k), so that a resumed run repeats the uninterrupted one.

    Args:
        network: with the weights to start from.
        loss: (step, numpy generator, torch generator) -> scalar to minimise.
        plan: how long and how fast.
        seed: of every draw.
        state: the file that a stopped run goes on from.
        name: for the progress bar.
    """
    network.to(memory_format=torch.channels_last)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        weights, lr=plan.rate, weight_decay=plan.decay, betas=(0.9, 0.99), fused=True
    )
    mean = [p.detach().clone() for p in weights]
    start = _resume(state, network, optimiser, mean)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task(name, total=plan.steps, completed=start)
        for step in range(start, plan.steps):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * _schedule(step, plan.steps)
            value = loss(
                step, np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 10**6 + step)
            )
            value.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            horizon = min(plan.average, step // 4 + 1)
            torch._foreach_lerp_(mean, [p.detach() for p in weights], 1 / horizon)
            if (step + 1) % 100 == 0 or step + 1 == plan.steps:
                _save(state, step + 1, network, optimiser, mean)
                progress.console.print(f"{name} {step + 1}/{plan.steps}: loss {value.item():.4f}")
            progress.update(bar, completed=step + 1, description=f"{name} loss {value.item():.4f}")
    with torch.no_grad():
        for parameter, averaged in zip(weights, mean, strict=True):
            parameter.copy_(averaged)
    network.eval()


def _schedule(step: int, steps: int) -> float:
    warmup = max(1, steps // 50)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def _save(
    path: Path, step: int, network: nn.Module, optimiser: torch.optim.Optimizer, mean: list[Tensor]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    state = {"step": step, "network": network.state_dict(), "optimiser": optimiser.state_dict(), "mean": mean}
    torch.save(state, beside)
    beside.replace(path)


def _resume(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, mean: list[Tensor]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    for averaged, saved in zip(mean, state["mean"], strict=True):
        averaged.copy_(saved)
    return int(state["step"])
