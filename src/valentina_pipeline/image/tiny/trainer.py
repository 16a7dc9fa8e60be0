"""One training loop for every network of the recipe: resumable, averaged, seeded by (seed, step)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

Loss = Callable[[int, np.random.Generator, torch.Generator], Tensor]


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where networks are trained. Every draw is made on the CPU: a GPU sees the same numbers, and only rounds."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        rate: peak learning rate; linear warm-up over 2 % of the steps, then a cosine to a hundredth.
        optimiser: AdamW, or Muon for inner matrices and kernels and AdamW for the rest.
        decay: weight decay.
        average: horizon of the exponential average of the weights, in steps.
    """

    steps: int
    rate: float
    optimiser: Literal["adamw", "muon"]
    decay: float = 0.01
    average: int = 300


def train_network(network: nn.Module, loss: Loss, plan: Plan, seed: int, state: Path, name: str) -> None:
    """Train `network` in place on DEVICE and leave it on the CPU with its averaged weights, in eval mode.

    A run that was stopped goes on from `state`; a finished one has nothing left to do. Step k draws only
    from generators seeded by (seed, k), so that a resumed run repeats the uninterrupted one.

    Args:
        network: with the weights to start from.
        loss: (step, numpy generator, torch generator of the CPU) -> scalar to minimise.
        plan: how long and how fast.
        seed: of every draw.
        state: the file that a stopped run goes on from.
        name: for the progress bar.
    """
    network.to(DEVICE).to(memory_format=torch.channels_last)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimisers = choose_optimisers(network, plan)
    mean = [p.detach().clone() for p in weights]
    start = _resume(state, network, optimisers, mean)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task(name, total=plan.steps, completed=start)
        for step in range(start, plan.steps):
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = plan.rate * _schedule(step, plan.steps)
            value = loss(
                step, np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 10**6 + step)
            )
            value.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            horizon = min(plan.average, step // 4 + 1)
            torch._foreach_lerp_(mean, [p.detach() for p in weights], 1 / horizon)
            if (step + 1) % 100 == 0 or step + 1 == plan.steps:
                _save(state, step + 1, network, optimisers, mean)
                progress.console.print(f"{name} {step + 1}/{plan.steps}: loss {value.item():.4f}")
            progress.update(bar, completed=step + 1, description=f"{name} loss {value.item():.4f}")
    with torch.no_grad():
        for parameter, averaged in zip(weights, mean, strict=True):
            parameter.copy_(averaged)
    network.cpu().eval()


class Muon(torch.optim.Optimizer):
    """Moves matrices and kernels along their orthogonalised momentum (Jordan et al. 2024, "Muon").

    torch.optim.Muon takes no kernels, and orthogonalises in bfloat16: some 20 times slower than float32 where
    the processor has no units for it. Moves are as large as AdamW's (Liu et al. 2025, eq. 4), so that both
    take one rate.
    """

    MOMENTUM = 0.95

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every parameter that has a gradient, those of one shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append((weight, self._momentum(weight, weight.grad).flatten(1)))
            for pairs in alike.values():
                moves = orthogonal(torch.stack([momentum for _, momentum in pairs]))
                size = 0.2 * max(moves.shape[1:]) ** 0.5
                for (weight, _), move in zip(pairs, moves, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(move.reshape(weight.shape), alpha=group["lr"] * size)

    def _momentum(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        """Take in the gradient; return Nesterov's look ahead."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - self.MOMENTUM)
        return gradient.lerp(state["momentum"], self.MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return about U V^T of each matrix U S V^T of `matrices` (n, rows, columns).

    Five Newton-Schulz iterations with Jordan's coefficients: singular values come out between 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


def choose_optimisers(network: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return AdamW alone, or Muon for what maps many features to many and AdamW for the rest."""
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    inner = {name: p for name, p in named.items() if plan.optimiser == "muon" and _is_inner(name, p)}
    rest = [p for name, p in named.items() if name not in inner]
    adamw = torch.optim.AdamW(rest, lr=plan.rate, weight_decay=plan.decay, betas=(0.9, 0.99), fused=True)
    return [Muon(inner.values(), plan.rate, plan.decay), adamw] if inner else [adamw]


def _is_inner(name: str, weight: Tensor) -> bool:
    """Say whether it maps many features to many: no bias, norm, embedding or last layer."""
    return weight.ndim > 1 and "embedding" not in name and min(weight.flatten(1).shape) >= 16


def _schedule(step: int, steps: int) -> float:
    warmup = max(1, steps // 50)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def _save(
    path: Path, step: int, network: nn.Module, optimisers: list[torch.optim.Optimizer], mean: list[Tensor]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    moments = [optimiser.state_dict() for optimiser in optimisers]
    state = {"step": step, "network": network.state_dict(), "optimisers": moments, "mean": mean}
    torch.save(state, beside)
    beside.replace(path)


def _resume(
    path: Path, network: nn.Module, optimisers: list[torch.optim.Optimizer], mean: list[Tensor]
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=DEVICE)
    network.load_state_dict(state["network"])
    for optimiser, moments in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(moments)
    for averaged, saved in zip(mean, state["mean"], strict=True):
        averaged.copy_(saved)
    return int(state["step"])
