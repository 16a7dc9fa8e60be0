import logging

import pytest
import torch

from valentina_pipeline.common.threads import DeterministicKernels, reproducible


def test_an_operation_without_a_deterministic_kernel_costs_a_warning_and_is_asked_for_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strict = []

    def compute() -> int:
        strict.append(not torch.is_deterministic_algorithms_warn_only_enabled())
        if strict[-1]:
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set")
        return 1

    kernels = DeterministicKernels()
    with reproducible(1), caplog.at_level(logging.WARNING):
        torch.use_deterministic_algorithms(True, warn_only=True)  # as on a GPU
        assert [kernels.run(compute), kernels.run(compute)] == [1, 1]
    assert strict == [True, False, False]
    assert caplog.messages == [
        "a repeated run may round differently: "
        "cumsum_cuda_kernel does not have a deterministic implementation"
    ]


def test_another_error_stays_one_and_kernels_are_as_before() -> None:
    def compute() -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"), reproducible(1):
        DeterministicKernels().run(compute)
    assert not torch.are_deterministic_algorithms_enabled()
