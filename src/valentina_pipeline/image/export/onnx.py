"""Export a package's networks for other engines, with the LoRA fused into the base model's weights.

ONNX Runtime gets one graph with a weights file per network, stable-diffusion.cpp one file for all networks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.image.export.single_file import write
from valentina_pipeline.image.lora.loading import load_pipeline
from valentina_pipeline.image.models.base_model import BaseModel, load_base
from valentina_pipeline.image.models.families import no_progress_bars

SETTINGS = "settings.json"
"""Configurations of the networks and the sampler, in an export for ONNX Runtime."""

TRACE_SIZE = (11, 13)
"""Height and width of the traced latents; with even sizes, a graph might rely on sizes that halve evenly."""


def fuse_lora(base: BaseConfig, root: Path, learned: Path) -> BaseModel:
    """Return a base model on the CPU in float32 with the LoRA fused into its weights.

    Args:
        base: base model, see `load_base`.
        root: project folder.
        learned: train_lora's folder.
    """
    model = load_base(base, root, "fp32")
    pipe = load_pipeline(model, learned).to("cpu")
    if (learned / LORA_FILE).is_file():
        pipe.fuse_lora(components=["unet", *model.text_encoders], safe_fusing=True)
        pipe.unload_lora_weights()
    return model


def export_single_file(model: BaseModel, folder: Path) -> dict[str, Path]:
    """Write all networks into one float16 file, the common format of base models.

    Args:
        model: base model, changed in place.
        folder: existing folder.

    Returns:
        Path in `folder` -> file.
    """
    with no_progress_bars():
        write(model.pipe.to(torch.float16), folder / "model.safetensors")
    return {"model.safetensors": folder / "model.safetensors"}


def export_onnx(model: BaseModel, folder: Path) -> dict[str, Path]:
    """Write each network as an ONNX graph of any batch, height and width, with tokenizers and settings.

    Args:
        model: base model on the CPU, in float32.
        folder: existing folder.

    Returns:
        Path in `folder` -> file; equal models give equal bytes.
    """
    for name, (network, inputs, dynamic) in _traced(model).items():
        _export(network, inputs, dynamic, folder / f"{name}.onnx")
    for tokenizer, name in zip(model.tokenizers, ("tokenizer", "tokenizer_2"), strict=False):
        tokenizer.save_pretrained(folder / name)
    pipe = model.pipe
    parts = {"unet": pipe.unet, "vae": pipe.vae, **model.text_encoders, "scheduler": pipe.scheduler}
    settings = {name: _plain(part.config) for name, part in parts.items()}
    settings["pipeline"] = {
        name: pipe.config[name] for name in ("force_zeros_for_empty_prompt",) if name in pipe.config
    }
    text = json.dumps({"family": model.family, **settings}, indent=2, sort_keys=True)
    (folder / SETTINGS).write_text(f"{text}\n", "utf-8")
    return {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}


ENGINES = {"onnx": export_onnx, "sd_cpp": export_single_file}
"""Engine -> function that writes its files."""


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration without the path that it was read from."""
    values: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    return {name: value for name, value in values.items() if name != "_name_or_path"}


def _traced(model: BaseModel) -> dict[str, tuple[nn.Module, dict[str, Tensor], dict[str, Any]]]:
    """Return each network with its trace inputs and their dynamic dimensions."""
    unet, vae = model.unet.to(memory_format=torch.contiguous_format), model.vae
    n, length = 4, model.tokenizers[0].model_max_length
    inputs = {
        "sample": torch.zeros(n, unet.config.in_channels, *TRACE_SIZE),
        "timestep": torch.tensor(500.0),
        "encoder_hidden_states": torch.zeros(n, length, unet.config.cross_attention_dim),
    }
    if model.family == "sdxl":
        inputs["text_embeds"] = torch.zeros(n, model.text_encoders["text_encoder_2"].config.projection_dim)
        inputs["time_ids"] = torch.zeros(n, 6)
    dynamic = torch.export.Dim.AUTO
    batch = {0: dynamic}
    sides = {
        "sample": {0: dynamic, 2: dynamic, 3: dynamic},
        "timestep": {},
        "encoder_hidden_states": {0: dynamic, 1: dynamic},  # texts of several chunks are longer
    }
    latents = {"latents": torch.zeros(n, vae.config.latent_channels, *TRACE_SIZE)}
    ids = {"ids": torch.zeros(n, length, dtype=torch.int64)}
    return {
        "unet": (_Unet(unet), inputs, {name: sides.get(name, batch) for name in inputs}),
        "vae": (
            _Decoder(vae.to(memory_format=torch.contiguous_format)),
            latents,
            {"latents": sides["sample"]},
        ),
        **{name: (_Text(encoder), ids, {"ids": batch}) for name, encoder in model.text_encoders.items()},
    }


def _export(network: nn.Module, inputs: dict[str, Tensor], sides: dict[str, Any], file: Path) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        network.eval(),
        kwargs=inputs,
        dynamic_shapes=sides,
        input_names=list(inputs),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise ValueError(f"{file.name}: torch exported no program")
    ClearMetadataAndDocStringPass()(program.model)  # they contain paths of this machine
    program.model.producer_version = torch.__version__.partition("+")[0]
    program.save(file, external_data=True)


class _Unet(nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> Tensor:
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.unet(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[
            0
        ]


class _Decoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents, return_dict=False)[0]


class _Text(nn.Module):
    """Returns the first output and the last but one hidden states, which diffusers' pipelines use."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        output = self.encoder(ids, output_hidden_states=True)
        return output[0], output.hidden_states[-2]
