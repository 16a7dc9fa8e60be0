import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from valentina_pipeline.image.lora.fused_linear import use_fused_linear


def layers(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """The same network twice, computed as peft does and as this project does."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"], init_lora_weights=False)
    theirs = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4, bias=False)).requires_grad_(False)
    inject_adapter_in_model(config, theirs)
    theirs.to(dtype)
    ours = copy.deepcopy(theirs)
    use_fused_linear(ours)
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_those_of_peft(dtype: torch.dtype) -> None:
    tolerance = {"rtol": 0.1, "atol": 0.05} if dtype == torch.bfloat16 else {}
    found = []
    for network in layers(dtype):
        x = torch.linspace(-2, 2, 2 * 5 * 8, dtype=dtype).view(2, 5, 8).requires_grad_()
        result = network(x)
        result.square().sum().backward()
        moved = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        assert all(p.grad is None for p in network.parameters() if not p.requires_grad)
        found.append([result, x.grad, *moved.values()])
    assert len(found[0]) == 6
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, **tolerance)


def test_the_gradient_is_right_by_finite_differences() -> None:
    from valentina_pipeline.image.lora.fused_linear import LoraLinear

    torch.manual_seed(0)
    x, weight, bias, down, up = (
        torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    )
    inputs = [tensor.requires_grad_() for tensor in (x, down, up)]
    assert torch.autograd.gradcheck(lambda x, a, b: LoraLinear.apply(x, weight, bias, a, b, 0.7), inputs)


def test_under_autocast_it_computes_in_half_precision_and_learns_in_float32() -> None:
    ours, _ = layers()
    with torch.autocast("cpu", torch.bfloat16):
        result = ours(torch.ones(2, 8))
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    assert {p.grad.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}


def test_merged_and_switched_off_adapters_are_left_to_peft() -> None:
    ours, theirs = layers()
    x = torch.ones(2, 8)
    expected = theirs(x)
    for network in (ours, theirs):
        network[0].merge()
    torch.testing.assert_close(ours(x), expected)
    for network in (ours, theirs):
        network[0].unmerge()
        network[0].enable_adapters(False)
    torch.testing.assert_close(ours(x), theirs(x))
