"""LoRA algebra without the base model: exact weighted sums and least-squares resizing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """Low-rank update of one layer: `scale` * `up` @ `down`.

    Attributes:
        down: (r, in) for a linear layer, (r, in, k, k) for a convolution.
        up: (out, r), or (out, r, 1, 1).
        scale: alpha / r, or alpha / sqrt(r) for a rank-stabilized LoRA.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return self.down.shape[0]

    def update(self) -> Tensor:
        """Return the update of the layer's weight, flattened to (out, in) or (out, in * k * k)."""
        return self.scale * self.up.flatten(1) @ self.down.flatten(1)


Lora = Mapping[str, Pair]
"""LoRA by canonical layer name, such as "unet.mid_block_attentions_0_proj_in"."""


def weighted_sum(parts: Sequence[tuple[Lora, float]]) -> dict[str, Pair]:
    """Return the LoRA whose update is exactly the weighted sum of the updates of `parts`.

    The rank of each layer is the sum of the ranks; `resize` reduces it. A missing layer counts as zero.

    Raises:
        ValueError: `parts` is empty, or a layer's shapes differ because the base models differ.
    """
    if not parts:
        raise ValueError("a sum needs at least one LoRA")
    return {name: _stack(name, parts) for name in sorted({name for lora, _ in parts for name in lora})}


def resize(lora: Lora, rank: int) -> dict[str, Pair]:
    """Return the least-squares best LoRA of at most `rank` (Eckart & Young 1936), with scale 1.

    `down` and `up` each get the square root of the singular values. Signs are fixed, so that the bytes
    depend on the numbers alone.
    """
    if rank < 1:
        raise ValueError(f"invalid rank {rank}: must be at least 1")
    return {name: _truncate(pair, rank) for name, pair in lora.items()}


def retained_energy(lora: Lora, smaller: Lora) -> float:
    """Return the share of the squared norm of all updates that the smaller LoRA retains, in [0, 1]."""
    total = sum(_energy(pair.update()) for pair in lora.values())
    lost = sum(_energy(pair.update() - smaller[name].update()) for name, pair in lora.items())
    return 1.0 if total == 0 else 1 - lost / total


def _stack(name: str, parts: Sequence[tuple[Lora, float]]) -> Pair:
    present = [(lora[name], weight) for lora, weight in parts if name in lora]
    shapes = {(pair.up.shape[0], *pair.down.shape[1:]) for pair, _ in present}
    if len(shapes) > 1:
        raise ValueError(f"layer {name} has the shapes {_listed(shapes)}: the base models differ")
    down = torch.cat([pair.down for pair, _ in present])
    up = torch.cat([pair.up * (pair.scale * weight) for pair, weight in present], dim=1)
    return Pair(down, up, 1.0)


def _truncate(pair: Pair, rank: int) -> Pair:
    # SVD of up @ down through two thin QRs: r x r instead of out x in
    left, upper = torch.linalg.qr(pair.up.flatten(1).double() * pair.scale)
    right, lower = torch.linalg.qr(pair.down.flatten(1).double().mT)
    u, s, v = torch.linalg.svd(upper @ lower.mT)
    new_rank = min(rank, len(s))
    root = s[:new_rank].sqrt()
    up, down = left @ u[:, :new_rank] * root, root[:, None] * (v[:new_rank] @ right.mT)
    largest = up.gather(0, up.abs().argmax(dim=0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0)
    kernel = pair.down.shape[1:]
    return Pair(
        (down * sign.mT).to(pair.down.dtype).reshape(new_rank, *kernel),
        (up * sign).to(pair.up.dtype).reshape(-1, new_rank, *[1] * (len(kernel) - 1)),
        1.0,
    )


def _energy(update: Tensor) -> float:
    return update.double().square().sum().item()


def _listed(shapes: Iterable[tuple[int, ...]]) -> str:
    return " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
