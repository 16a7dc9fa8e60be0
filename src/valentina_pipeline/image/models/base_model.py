"""Base models: found on this machine, or an error that says how to get them; never a silent download."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.base_files import base_variant
from valentina_pipeline.image.models.offload import Placement, execution_device, place

if TYPE_CHECKING:
    import torch
    from torch import Tensor
from valentina_pipeline.image.models.families import (
    CONFIG_REPOS,
    ORIGINAL_TEXT,
    PIPELINE_KWARGS,
    PIPELINES,
    TEXT_ENCODERS,
    Family,
    Precision,
    Quantize,
    no_progress_bars,
)
from valentina_pipeline.image.models.weights import SETTINGS, _pipeline_folder, base_folder


@dataclass(frozen=True)
class BaseModel:
    """A base model on its device, frozen, as diffusers' own pipeline.

    The VAE is always float32: SDXL's overflows in float16, and it runs once an image.

    Attributes:
        family: "sdxl" (two text encoders, pooled text, size conditions) or "sd15".
        folder: where it was read from; the file, where all of it is in one.
        pipe: StableDiffusionXLPipeline or StableDiffusionPipeline.
        placement: how it uses memory, where that was chosen.
        replaced: networks' own weights, while fully trained ones stand in for them.
    """

    family: Family
    folder: Path
    pipe: Any
    placement: Placement | None = None
    replaced: "dict[str, dict[str, Tensor]]" = field(default_factory=dict)

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.pipe.unet

    @property
    def vae(self) -> Any:
        """The autoencoder between pixels and latents."""
        return self.pipe.vae

    @property
    def text_encoders(self) -> dict[str, Any]:
        """One or two text encoders, by their names in the pipeline."""
        return {name: getattr(self.pipe, name) for name in TEXT_ENCODERS[self.family]}

    @property
    def tokenizers(self) -> list[Any]:
        """As many tokenizers as text encoders, in the same order."""
        names = (name.replace("text_encoder", "tokenizer") for name in TEXT_ENCODERS[self.family])
        return [getattr(self.pipe, name) for name in names]

    @property
    def device(self) -> "torch.device":
        """Where it computes; diffusers' own property walks through all modules, 60 ms each time."""
        return execution_device(self.unet)

    @property
    def dtype(self) -> "torch.dtype":
        """What the U-Net computes in, outside of autocast."""
        return next(self.unet.parameters()).dtype

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon" or "v_prediction"."""
        return str(self.pipe.scheduler.config.prediction_type)

    def compile(self) -> None:
        """Have the U-Net's transformer blocks compiled when they first run.

        They alone: the whole of it takes minutes before the first step. Their shapes are dynamic from the
        start, so that a run that goes on computes by the same kernels as one that was not stopped.
        """
        import torch

        torch._dynamo.config.suppress_errors = True  # what does not compile runs as it is, with a message
        torch._dynamo.config.recompile_limit = 64  # so does what exceeds it: each width, mode, LoRA
        self.unet.compile_repeated_blocks(dynamic=True)


def load_base(
    base: BaseConfig,
    root: Path,
    precision: Precision | None = None,
    quantise: Quantize = "none",
    offload: bool = False,
) -> BaseModel:
    """Load a base model, frozen and in eval mode, onto the GPU where there is one.

    Args:
        base: `path` is a folder in diffusers' layout or a .safetensors file, absolute or below `root`, or a
            hub id in the cache.
        root: the project's folder.
        precision: of the weights on a GPU; None takes bf16 where the GPU has it, else fp16. Always
            float32 on a CPU.
        quantise: store the U-Net and the text encoders in 8 or 4 bits, by bitsandbytes on a GPU.
        offload: where the GPU's memory is too small for all networks, have only those there that compute.

    Raises:
        MissingModelError: it, a part of it, or the GPU that `quantise` needs is not on this machine.
        ValueError: it is of another family.
    """
    import torch

    place_of = base_folder(base, root)
    with no_progress_bars():
        read = _from_file if place_of.is_file() else _from_folder
        pipe = read(base, place_of, root, precision, quantise)
    pipe.set_progress_bar_config(disable=True)
    for name in ("unet", "vae", *TEXT_ENCODERS[base.family]):
        getattr(pipe, name).requires_grad_(False).eval()
    for name in ("vae",) if quantise != "none" else ("unet", "vae"):
        # several times faster convolutions on CPUs and tensor cores
        getattr(pipe, name).to(memory_format=torch.channels_last)
    device, free = ("cuda", torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else ("cpu", None)
    if not offload:
        pipe.to(device)
    return BaseModel(
        base.family, place_of, pipe, place(pipe, device, base.resolution, free) if offload else None
    )


def _from_folder(base: BaseConfig, folder: Path, root: Path, precision: Any, quantise: Quantize) -> Any:
    import diffusers
    import torch

    dtype = _dtype(precision)
    more = {} if quantise == "none" else {"quantization_config": _quantisation(base, quantise, dtype)}
    return getattr(diffusers, PIPELINES[base.family]).from_pretrained(
        folder,
        dtype={"default": dtype, "vae": torch.float32},
        use_safetensors=True,
        local_files_only=True,
        variant=base_variant(folder) or None,
        **PIPELINE_KWARGS[base.family],
        **more,
    )


def _from_file(base: BaseConfig, file: Path, root: Path, precision: Any, quantise: Quantize) -> Any:
    """Load what is in one file, as kohya's scripts, ComfyUI and the WebUIs keep a base."""
    import diffusers
    import torch
    from safetensors import safe_open

    if quantise != "none":
        raise ValueError(f"train_lora.quantise needs a base in diffusers' layout; {file} is one file")
    with safe_open(file, framework="pt") as opened:
        if not any(name.startswith(ORIGINAL_TEXT[base.family]) for name in opened.keys()):  # noqa: SIM118
            raise ValueError(f"{file} holds no tensors {ORIGINAL_TEXT[base.family]}*: it is no {base.family}")
    path = base.config or CONFIG_REPOS[base.family]
    pipe = getattr(diffusers, PIPELINES[base.family]).from_single_file(
        file,
        config=str(_pipeline_folder(base.model_copy(update={"path": path}), root, SETTINGS)),
        dtype=torch.float32,
        local_files_only=True,
        **PIPELINE_KWARGS[base.family],
    )
    for name in ("unet", *TEXT_ENCODERS[base.family]):
        getattr(pipe, name).to(_dtype(precision))
    return pipe


def _quantisation(base: BaseConfig, quantise: Quantize, dtype: "torch.dtype") -> Any:
    import torch
    from diffusers import PipelineQuantizationConfig

    if not torch.cuda.is_available():
        raise MissingModelError(
            f"a GPU for a base in {quantise}", "MIT", "set train_lora.quantise to none: a CPU has the memory"
        )
    bits = {
        "int8": ("bitsandbytes_8bit", {"load_in_8bit": True}),
        "nf4": (
            "bitsandbytes_4bit",
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
        ),
    }
    backend, settings = bits[quantise]
    return PipelineQuantizationConfig(
        quant_backend=backend,
        quant_kwargs=settings,
        components_to_quantize=["unet", *TEXT_ENCODERS[base.family]],
    )


def _dtype(precision: Precision | None) -> "torch.dtype":
    import torch

    if not torch.cuda.is_available() or precision == "fp32":
        return torch.float32
    half = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[precision or half]
