"""Networks run by ONNX Runtime in diffusers' own pipeline: samplers, seeds and guidance are the same code."""

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

WANTED = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Where it runs, the best first, of what the installed ONNX Runtime has."""


class TextOutput(NamedTuple):
    """What a text encoder gives, as diffusers' pipelines look for it."""

    first: Tensor
    hidden_states: tuple[Tensor, Tensor]


def pipeline(folder: Path) -> Any:
    """Return diffusers' pipeline over the graphs of a folder that image/export/onnx.py wrote."""
    import diffusers
    from diffusers.configuration_utils import FrozenDict
    from transformers import CLIPTokenizer

    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    family = settings["family"]
    configs = {name: FrozenDict(values) for name, values in settings.items() if isinstance(values, dict)}
    networks = {"unet": _Unet, "vae": _Vae, **dict.fromkeys(TEXT_ENCODERS[family], _Text)}
    parts = {name: kind(folder / f"{name}.onnx", configs[name]) for name, kind in networks.items()}
    tokenizers = {
        place.name: CLIPTokenizer.from_pretrained(place) for place in sorted(folder.glob("tokenizer*"))
    }
    sampler = getattr(diffusers, configs["scheduler"]["_class_name"]).from_config(configs["scheduler"])
    more = {"feature_extractor": None} if family == "sd15" else {}
    with no_progress_bars():
        pipe = getattr(diffusers, PIPELINES[family])(
            **parts,
            **tokenizers,
            **more,
            scheduler=sampler,
            **PIPELINE_KWARGS[family],
            **settings["pipeline"],
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class _Network(nn.Module):
    """A graph that is asked like the torch module that it was exported from.

    Attributes:
        config: the module's.
        device: of the tensors that it takes and gives; where it computes is its own affair.
        dtype: of them.
        runs_on: "cuda" or "cpu".
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, file: Path, config: Any) -> None:
        super().__init__()
        from onnxruntime import InferenceSession, SessionOptions, get_available_providers

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        there = [name for name in WANTED if name in get_available_providers()]
        self.config = config
        self._session = InferenceSession(file, options, providers=there)
        self.runs_on = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()

    def _run(self, **tensors: Tensor) -> list[Tensor]:
        given = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        return [torch.from_numpy(array) for array in self._session.run(None, given)]


class _Unet(_Network):
    @property
    def add_embedding(self) -> Any:
        """What the pipeline checks SDXL's size conditions against."""
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
        given = {"sample": sample, "timestep": timestep.float(), **(added_cond_kwargs or {})}
        (predicted,) = self._run(encoder_hidden_states=encoder_hidden_states, **given)
        return (predicted,)


class _Vae(_Network):
    def decode(self, latents: Tensor) -> Any:
        """Return an object whose `sample` are the pixels (n, 3, h, w)."""
        return SimpleNamespace(sample=self._run(latents=latents)[0])


class _Text(_Network):
    def forward(self, ids: Tensor, **_: Any) -> TextOutput:
        first, before_last = self._run(ids=ids)
        return TextOutput(first, (before_last, first))
