"""Fused LoRA linear layer: one operation with the fewest passes over the activations."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class LoraLinear(torch.autograd.Function):
    """x W^T + bias + scale x A^T B^T, without a gradient of the frozen W.

    peft computes the same in five operations, each of which reads and writes all activations.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """Return (..., out) from x (..., in), W (out, in), A = down (r, in) and B = up (out, r)."""
        flat = x.reshape(-1, x.shape[-1])
        if x.dtype == torch.float32:  # merge into W, which is smaller than the activations
            result = functional.linear(flat, torch.addmm(weight, up, down, alpha=scale), bias)
        else:  # half precision would round small updates of W away
            result = functional.linear(flat, weight, bias).addmm_(flat @ down.T, up.T, alpha=scale)
        ctx.save_for_backward(flat, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x (if it needs one), A and B."""
        flat, weight, down, up = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])
        inner = (outer @ up).mul_(ctx.scale)
        up_gradient = (outer.T @ (flat @ down.T)).mul_(ctx.scale)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = (outer @ weight).addmm_(inner, down).view(ctx.shape)
        return x_gradient, None, None, inner.T @ flat, up_gradient, None


def use_fused_linear(network: nn.Module) -> None:
    """Replace the forward pass of a network's plain LoRA layers on linear layers by the fused operation."""
    from peft.tuners.lora.layer import Linear

    for layer in network.modules():
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear and not layer.lora_variant:
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if self.merged or self.disable_adapters or self.active_adapters != ["default"]:
        return type(self).forward(self, x, *args, **kwargs)
    base, down, up = self.base_layer, self.lora_A["default"].weight, self.lora_B["default"].weight
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.weight.dtype
    bias = None if base.bias is None else base.bias.to(dtype)
    cast = (tensor.to(dtype) for tensor in (x, base.weight))
    return LoraLinear.apply(*cast, bias, down.to(dtype), up.to(dtype), self.scaling["default"])
