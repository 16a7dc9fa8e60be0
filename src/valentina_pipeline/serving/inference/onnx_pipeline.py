"""ONNX Runtime networks in diffusers' pipeline, which keeps its own samplers, seeds and guidance."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from valentina_pipeline.image.models.families import (
    PIPELINE_KWARGS,
    PIPELINES,
    TEXT_ENCODERS,
    no_progress_bars,
)

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Execution providers, best first; those of the installed ONNX Runtime are used."""


class TextOutput(NamedTuple):
    """Output of a text encoder, in the layout that diffusers' pipelines expect."""

    first: Tensor
    hidden_states: tuple[Tensor, Tensor]


def pipeline(folder: Path) -> Any:
    """Return diffusers' pipeline for a folder of ONNX graphs written by image/export/onnx.py."""
    import diffusers
    from diffusers.configuration_utils import FrozenDict
    from transformers import CLIPTokenizer

    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    family = settings["family"]
    configs = {name: FrozenDict(values) for name, values in settings.items() if isinstance(values, dict)}
    networks = {"unet": _Unet, "vae": _Vae, **dict.fromkeys(TEXT_ENCODERS[family], _Text)}
    parts = {name: kind(folder / f"{name}.onnx", configs[name]) for name, kind in networks.items()}
    tokenizers = {
        path.name: CLIPTokenizer.from_pretrained(path) for path in sorted(folder.glob("tokenizer*"))
    }
    sampler = getattr(diffusers, configs["scheduler"]["_class_name"]).from_config(configs["scheduler"])
    extra = {"feature_extractor": None} if family == "sd15" else {}
    with no_progress_bars():
        pipe = getattr(diffusers, PIPELINES[family])(
            **parts,
            **tokenizers,
            **extra,
            scheduler=sampler,
            **PIPELINE_KWARGS[family],
            **settings["pipeline"],
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class _Network(nn.Module):
    """An ONNX graph with the interface of the torch module that it was exported from.

    Attributes:
        config: the configuration of the module.
        device: the device of its input and output tensors; see `runs_on` for the computation.
        dtype: the type of these tensors.
        runs_on: the device of the computation, "cuda" or "cpu".
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, file: Path, config: Any) -> None:
        super().__init__()
        from onnxruntime import InferenceSession, SessionOptions, get_available_providers

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = [name for name in PROVIDERS if name in get_available_providers()]
        self.config = config
        self._session = InferenceSession(file, options, providers=providers)
        self.runs_on = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()

    def _run(self, **tensors: Tensor) -> list[Tensor]:
        inputs = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        return [torch.from_numpy(array) for array in self._session.run(None, inputs)]


class _Unet(_Network):
    @property
    def add_embedding(self) -> Any:
        """Stand-in for the module whose width the pipeline compares with SDXL's size conditions."""
        width = self.config.projection_class_embeddings_input_dim
        return SimpleNamespace(linear_1=SimpleNamespace(in_features=width))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        **_: Any,
    ) -> tuple[Tensor]:
        inputs = {"sample": sample, "timestep": timestep.float(), **(added_cond_kwargs or {})}
        (predicted,) = self._run(encoder_hidden_states=encoder_hidden_states, **inputs)
        return (predicted,)


class _Vae(_Network):
    def decode(self, latents: Tensor) -> Any:
        """Return an object whose `sample` holds the pixels (n, 3, h, w)."""
        return SimpleNamespace(sample=self._run(latents=latents)[0])


class _Text(_Network):
    def forward(self, ids: Tensor, **_: Any) -> TextOutput:
        first, before_last = self._run(ids=ids)
        return TextOutput(first, (before_last, first))
