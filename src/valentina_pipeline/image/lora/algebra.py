"""Sums and smaller versions of LoRAs, exact or least-squares best, without the base they belong to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """One layer's update: `scale` times `up` after `down`.

    Attributes:
        down: (r, in) of a linear layer, (r, in, k, k) of a convolution.
        up: (out, r), or (out, r, 1, 1).
        scale: alpha / r, or alpha / sqrt(r) of a rank-stabilised LoRA.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """How many directions it has."""
        return self.down.shape[0]

    def update(self) -> Tensor:
        """Return what is added to the layer's weight, flattened to (out, in), (out, in * k * k)."""
        return self.scale * self.up.flatten(1) @ self.down.flatten(1)


Lora = Mapping[str, Pair]
"""A LoRA by layer under its one name, such as "unet.mid_block_attentions_0_proj_in"."""


def weighted_sum(parts: Sequence[tuple[Lora, float]]) -> dict[str, Pair]:
    """Return the LoRA whose update is the weighted sum of those of `parts`, exactly.

    Its rank at each layer is the sum of theirs; `resize` makes it small again. A layer that one of them
    lacks counts as zero there.

    Raises:
        ValueError: no parts, or a layer has another shape in one of them: they are of different bases.
    """
    if not parts:
        raise ValueError("a sum needs at least one LoRA")
    return {name: _stack(name, parts) for name in sorted({name for lora, _ in parts for name in lora})}


def resize(lora: Lora, rank: int) -> dict[str, Pair]:
    """Return the best LoRA of at most `rank` by least squares (Eckart & Young 1936), at scale 1.

    The singular values are shared evenly by `down` and `up`. Signs are fixed, so that the bytes depend on
    the numbers alone.
    """
    if rank < 1:
        raise ValueError(f"a rank of {rank} leaves nothing: choose 1 or more")
    return {name: _truncate(pair, rank) for name, pair in lora.items()}


def retained_energy(lora: Lora, smaller: Lora) -> float:
    """Return the share of the squared norm of all updates that a smaller version keeps, in [0, 1]."""
    whole = sum(_energy(pair.update()) for pair in lora.values())
    lost = sum(_energy(pair.update() - smaller[name].update()) for name, pair in lora.items())
    return 1.0 if whole == 0 else 1 - lost / whole


def _stack(name: str, parts: Sequence[tuple[Lora, float]]) -> Pair:
    present = [(lora[name], weight) for lora, weight in parts if name in lora]
    shapes = {(pair.up.shape[0], *pair.down.shape[1:]) for pair, _ in present}
    if len(shapes) > 1:
        raise ValueError(f"layer {name} has the shapes {_listed(shapes)}: these LoRAs are of different bases")
    down = torch.cat([pair.down for pair, _ in present])
    up = torch.cat([pair.up * (pair.scale * weight) for pair, weight in present], dim=1)
    return Pair(down, up, 1.0)


def _truncate(pair: Pair, rank: int) -> Pair:
    # the SVD of up @ down by way of two thin QRs: r x r instead of out x in
    left, upper = torch.linalg.qr(pair.up.flatten(1).double() * pair.scale)
    right, lower = torch.linalg.qr(pair.down.flatten(1).double().mT)
    u, s, v = torch.linalg.svd(upper @ lower.mT)
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    up, down = left @ u[:, :kept] * root, root[:, None] * (v[:kept] @ right.mT)
    largest = up.gather(0, up.abs().argmax(dim=0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0)
    kernel = pair.down.shape[1:]
    return Pair(
        (down * sign.mT).to(pair.down.dtype).reshape(kept, *kernel),
        (up * sign).to(pair.up.dtype).reshape(-1, kept, *[1] * (len(kernel) - 1)),
        1.0,
    )


def _energy(update: Tensor) -> float:
    return update.double().square().sum().item()


def _listed(shapes: Iterable[tuple[int, ...]]) -> str:
    return " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
