"""What all tests of networks have in common."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def backward_before_any_export() -> None:
    """Go backward once: after torch.onnx.export a first time starts threads, which forked processes lack."""
    import torch

    torch.ones(1, requires_grad=True).sum().backward()
