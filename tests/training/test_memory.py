import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from runs import config, made, run
from valentina_pipeline.image.train import loss
from valentina_pipeline.training.memory import OutOfMemoryError, find_executable_batch_size

LORA = "pytorch_lora_weights.safetensors"


def test_pieces_are_halved_until_they_fit_and_one_that_does_not_fit_says_what_would_help(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = []

    def part(micro: int) -> None:
        tried.append(micro)
        if micro > 2:
            raise torch.OutOfMemoryError("full")

    assert find_executable_batch_size(part, 7, {}) == 2
    assert tried == [7, 4, 2]
    assert "reduced the micro-batch to 2 images" in caplog.text

    def never(micro: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(OutOfMemoryError) as caught:
        find_executable_batch_size(never, 1, {"unet": nn.Linear(2**14, 2**14)})
    for words in ("unet 1.0 GiB", "gradient_checkpointing: true", "quantize: nf4", "align.resolution"):
        assert words in str(caught.value)


def test_memory_is_saved_before_pieces_become_smaller() -> None:
    tried, saved = [], [True]

    def part(micro: int) -> None:
        tried.append(micro)
        if micro > 2:
            raise torch.OutOfMemoryError("full")

    assert find_executable_batch_size(part, 4, {}, lambda: bool(saved) and saved.pop()) == 2
    assert tried == [4, 4, 2]


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    def broken(micro: int) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        find_executable_batch_size(broken, 8, {})


def test_a_run_that_lacks_memory_goes_on_in_smaller_pieces_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(batch_size=3)
    expected = run(tmp_path / "whole", cfg)
    real = loss.DiffusionLoss.__call__

    def short_of_memory(self: Any, step: int, rows: Any, slots: Any) -> Any:
        if len(rows) > 1:
            raise torch.OutOfMemoryError("full")
        return real(self, step, rows, slots)

    monkeypatch.setattr(loss.DiffusionLoss, "__call__", short_of_memory)
    files = run(tmp_path / "short", cfg)
    assert "gradient checkpointing is on" in caplog.text
    assert json.loads(files["run"])["micro"] == 1
    assert json.loads(expected["run"])["micro"] == 3
    losses = [json.loads(each["run"])["losses"] for each in (files, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, weight in load(files[LORA]).items():
        torch.testing.assert_close(weight, load(expected[LORA])[name], rtol=1e-2, atol=1e-4)


def test_training_names_the_networks_when_nothing_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, step: int, rows: Any, slots: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(loss.DiffusionLoss, "__call__", full)
    with pytest.raises(OutOfMemoryError, match=r"unet .* GiB, vae .* GiB, text_encoder .* GiB"):
        run(tmp_path, config())


def test_gradient_checkpointing_changes_no_result(tmp_path: Path) -> None:
    assert made(config())[0].unet.is_gradient_checkpointing is False
    kept = run(tmp_path / "kept", config(gradient_checkpointing=False))
    again = run(tmp_path / "again", config(gradient_checkpointing=True))
    assert again[LORA] == kept[LORA]
