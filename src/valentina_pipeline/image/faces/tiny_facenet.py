"""The tiny face embedder, which replaces FaceNet with the embedded tiny base."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FaceNetTiny(nn.Module):
    """A residual network from a 64 px face crop to a unit identity vector.

    Input: (n, 3, 64, 64) in [-1, 1], the canonical crop of `faces.face_crop`. Output: (n, 128), L2 norm 1.
    """

    SIZE = 64

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128), dimensions: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels[0], 5, stride=2, padding=2), _norm(channels[0]))
        widths = (channels[0], *channels)
        self.blocks = nn.Sequential(*(_Residual(a, b) for a, b in zip(widths, channels, strict=False)))
        # position matters in an aligned face: keep the 4 x 4 grid instead of averaging over it
        self.head = nn.Linear(channels[-1] * 4 * 4, dimensions)

    def forward(self, faces: Tensor) -> Tensor:
        """Embed `faces` (n, 3, 64, 64) as unit vectors (n, dimensions)."""
        features = self.blocks(functional.silu(self.stem(faces)))
        features = functional.adaptive_avg_pool2d(features, 4)
        return functional.normalize(self.head(features.flatten(1)), dim=1)


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        stride = 1 if inside == outside else 2
        self.first = nn.Conv2d(inside, outside, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.norms = nn.ModuleList([_norm(outside), _norm(outside)])
        self.skip = nn.Conv2d(inside, outside, 1, stride=stride) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norms[0](self.first(x)))
        return functional.silu(self.skip(x) + self.norms[1](self.second(y)))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


def to_network(pixels: Tensor) -> Tensor:
    """Convert uint8 (n, h, w, 3) to float32 (n, 3, h, w) in [-1, 1], channels last in memory."""
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
    return scaled.contiguous(memory_format=torch.channels_last)
