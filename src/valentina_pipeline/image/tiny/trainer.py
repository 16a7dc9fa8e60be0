"""Training loop of all networks of the recipe: resumable, with averaged weights, seeded by (seed, step)."""

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

from valentina_pipeline.common import atomic_files

Loss = Callable[[int, np.random.Generator, torch.Generator], Tensor]


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Training device. Random numbers come from the CPU, so that a GPU run differs only by rounding."""


@dataclass(frozen=True)
class Plan:
    """Duration, learning rate and optimizer of a training run.

    Attributes:
        steps: optimizer steps.
        rate: peak learning rate; linear warm-up over 2 % of the steps, then cosine decay to a hundredth.
        optimizer: AdamW, or Muon for inner matrices and kernels with AdamW for the rest.
        decay: weight decay.
        average: horizon of the exponential average of the weights, in steps.
    """

    steps: int
    rate: float
    optimizer: Literal["adamw", "muon"]
    decay: float = 0.01
    average: int = 300


def train_network(network: nn.Module, loss: Loss, plan: Plan, seed: int, state: Path, name: str) -> None:
    """Train `network` in place on DEVICE; it ends on the CPU with averaged weights, in eval mode.

    An interrupted run resumes from `state`; a finished one does nothing. Step k uses only generators seeded
    with (seed, k), so that a resumed run repeats the uninterrupted one.

    Args:
        network: network with its initial weights.
        loss: (step, numpy generator, torch generator of the CPU) -> scalar to minimize.
        plan: duration, learning rate and optimizer.
        seed: seed of all random numbers.
        state: checkpoint file.
        name: label of the progress bar.
    """
    network.to(DEVICE).to(memory_format=torch.channels_last)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizers = choose_optimizers(network, plan)
    averages = [p.detach().clone() for p in weights]
    start = _resume(state, network, optimizers, averages)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task(name, total=plan.steps, completed=start)
        for step in range(start, plan.steps):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = plan.rate * _lr_multiplier(step, plan.steps)
            value = loss(
                step, np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 10**6 + step)
            )
            value.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            horizon = min(plan.average, step // 4 + 1)
            torch._foreach_lerp_(averages, [p.detach() for p in weights], 1 / horizon)
            if (step + 1) % 100 == 0 or step + 1 == plan.steps:
                _save(state, step + 1, network, optimizers, averages)
                progress.console.print(f"{name} {step + 1}/{plan.steps}: loss {value.item():.4f}")
            progress.update(bar, completed=step + 1, description=f"{name} loss {value.item():.4f}")
    with torch.no_grad():
        for parameter, averaged in zip(weights, averages, strict=True):
            parameter.copy_(averaged)
    network.cpu().eval()


class Muon(torch.optim.Optimizer):
    """Updates matrices and kernels along their orthogonalized momentum (Jordan et al. 2024, "Muon").

    torch.optim.Muon does not support kernels. It orthogonalizes in bfloat16, about 20 times slower than
    float32 on CPUs without bfloat16 units. Updates are as large as AdamW's (Liu et al. 2025, eq. 4), so that
    both use one learning rate.
    """

    MOMENTUM = 0.95

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient, parameters of one shape together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append((weight, self._momentum(weight, weight.grad).flatten(1)))
            for pairs in by_shape.values():
                updates = orthogonal(torch.stack([momentum for _, momentum in pairs]))
                size = 0.2 * max(updates.shape[1:]) ** 0.5
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(update.reshape(weight.shape), alpha=group["lr"] * size)

    def _momentum(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        """Add the gradient to the momentum; return the Nesterov momentum."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - self.MOMENTUM)
        return gradient.lerp(state["momentum"], self.MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return approximately U V^T for each matrix U S V^T of `matrices` (n, rows, columns).

    It runs five Newton-Schulz iterations with Jordan's coefficients; the resulting singular values lie
    between 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


def choose_optimizers(network: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return AdamW alone, or Muon for inner weights and AdamW for the rest."""
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    inner = {name: p for name, p in named.items() if plan.optimizer == "muon" and _is_inner(name, p)}
    rest = [p for name, p in named.items() if name not in inner]
    adamw = torch.optim.AdamW(rest, lr=plan.rate, weight_decay=plan.decay, betas=(0.9, 0.99), fused=True)
    return [Muon(inner.values(), plan.rate, plan.decay), adamw] if inner else [adamw]


def _is_inner(name: str, weight: Tensor) -> bool:
    """Return True for weights between many features: no bias, norm, embedding or last layer."""
    return weight.ndim > 1 and "embedding" not in name and min(weight.flatten(1).shape) >= 16


def _lr_multiplier(step: int, steps: int) -> float:
    warmup = max(1, steps // 50)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def _save(
    path: Path, step: int, network: nn.Module, optimizers: list[torch.optim.Optimizer], averages: list[Tensor]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    moments = [optimizer.state_dict() for optimizer in optimizers]
    state = {"step": step, "network": network.state_dict(), "optimizers": moments, "mean": averages}
    with atomic_files.replacing(path) as partial, partial.open("wb") as file:
        torch.save(state, file)


def _resume(
    path: Path, network: nn.Module, optimizers: list[torch.optim.Optimizer], averages: list[Tensor]
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=DEVICE)
    network.load_state_dict(state["network"])
    for optimizer, moments in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(moments)
    for averaged, saved in zip(averages, state["mean"], strict=True):
        averaged.copy_(saved)
    return int(state["step"])
