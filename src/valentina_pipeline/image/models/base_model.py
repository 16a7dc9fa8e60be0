"""Load base models. A missing one is an error that says how to get it, never an implicit download."""

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
    PIPELINE_KWARGS,
    PIPELINES,
    TEXT_ENCODERS,
    Family,
    Precision,
    Quantize,
    no_progress_bars,
)
from valentina_pipeline.image.models.weights import find_base_weights, find_settings


@dataclass(frozen=True)
class BaseModel:
    """Base model on its device, frozen, as a pipeline of diffusers.

    The VAE is always float32, because SDXL's overflows in float16. It runs only once per image.

    Attributes:
        family: "sdxl" (two text encoders, pooled text embeddings, time ids) or "sd15".
        path: folder, or the file of a single-file base model.
        pipe: StableDiffusionXLPipeline or StableDiffusionPipeline.
        placement: placement of the networks in memory, if one was chosen.
        replaced: original weights by network, while fully trained ones replace them.
    """

    family: Family
    path: Path
    pipe: Any
    placement: Placement | None = None
    replaced: "dict[str, dict[str, Tensor]]" = field(default_factory=dict)

    @property
    def unet(self) -> Any:
        """Denoiser."""
        return self.pipe.unet

    @property
    def vae(self) -> Any:
        """Autoencoder between pixels and latents."""
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
        """Execution device; unlike diffusers' property, this does not visit all modules (60 ms a call)."""
        return execution_device(self.unet)

    @property
    def dtype(self) -> "torch.dtype":
        """Dtype of the U-Net's weights and, outside autocast, of its computation."""
        return next(self.unet.parameters()).dtype

    @property
    def prediction_type(self) -> str:
        """Prediction type of the denoiser: "epsilon" or "v_prediction"."""
        return str(self.pipe.scheduler.config.prediction_type)

    def compile(self) -> None:
        """Compile the U-Net's transformer blocks when they first run.

        Compiling the whole U-Net would take minutes before the first step. Shapes are dynamic from the
        start, so that a resumed run uses the same kernels as an uninterrupted one.
        """
        import torch

        torch._dynamo.config.suppress_errors = True  # a block that fails to compile runs as it is
        torch._dynamo.config.recompile_limit = 64  # beyond this limit likewise: one per width, mode and LoRA
        self.unet.compile_repeated_blocks(dynamic=True)


def load_base(
    base: BaseConfig,
    root: Path,
    precision: Precision | None = None,
    quantize: Quantize = "none",
    offload: bool = False,
) -> BaseModel:
    """Load a base model, frozen and in eval mode, onto the GPU if there is one.

    Args:
        base: `path` is a folder in diffusers' layout or a .safetensors file, absolute or below `root`, or a
            hub id in the cache.
        root: project folder.
        precision: precision of the weights on a GPU; None is bf16 if the GPU supports it, else fp16. A CPU
            always uses float32.
        quantize: store the U-Net and the text encoders in 8 or 4 bits, with bitsandbytes on a GPU.
        offload: if the GPU's memory is too small for all networks, keep only the computing ones there.

    Raises:
        MissingModelError: the model, a part of it, or the GPU that `quantize` needs is missing.
        ValueError: the model belongs to another family.
    """
    import torch

    path = find_base_weights(base, root)
    with no_progress_bars():
        load = _from_file if path.is_file() else _from_folder
        pipe = load(base, path, root, precision, quantize)
    pipe.set_progress_bar_config(disable=True)
    for name in ("unet", "vae", *TEXT_ENCODERS[base.family]):
        getattr(pipe, name).requires_grad_(False).eval()
    for name in ("vae",) if quantize != "none" else ("unet", "vae"):
        # makes convolutions several times faster on CPUs and tensor cores
        getattr(pipe, name).to(memory_format=torch.channels_last)
    device, free = ("cuda", torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else ("cpu", None)
    if not offload:
        pipe.to(device)
    return BaseModel(base.family, path, pipe, place(pipe, device, base.resolution, free) if offload else None)


def _from_folder(base: BaseConfig, folder: Path, root: Path, precision: Any, quantize: Quantize) -> Any:
    import diffusers
    import torch

    dtype = _dtype(precision)
    quantization = {} if quantize == "none" else {"quantization_config": _quantization(base, quantize, dtype)}
    return getattr(diffusers, PIPELINES[base.family]).from_pretrained(
        folder,
        dtype={"default": dtype, "vae": torch.float32},
        use_safetensors=True,
        local_files_only=True,
        variant=base_variant(folder) or None,
        **PIPELINE_KWARGS[base.family],
        **quantization,
    )


def _from_file(base: BaseConfig, file: Path, root: Path, precision: Any, quantize: Quantize) -> Any:
    """Load a single-file base model, the format of kohya's scripts, ComfyUI and the WebUIs."""
    import diffusers
    import torch

    if quantize != "none":
        raise ValueError(f"train_lora.quantize: {file} is a single file; must be in diffusers' layout")
    pipe = getattr(diffusers, PIPELINES[base.family]).from_single_file(
        file,
        config=str(find_settings(base, root)),
        dtype=torch.float32,
        local_files_only=True,
        **PIPELINE_KWARGS[base.family],
    )
    for name in ("unet", *TEXT_ENCODERS[base.family]):
        getattr(pipe, name).to(_dtype(precision))
    return pipe


def _quantization(base: BaseConfig, quantize: Quantize, dtype: "torch.dtype") -> Any:
    import torch
    from diffusers import PipelineQuantizationConfig

    if not torch.cuda.is_available():
        raise MissingModelError(
            f"a GPU for a base model in {quantize}",
            "MIT",
            "set train_lora.quantize to none: a CPU has the memory",
        )
    bits = {
        "int8": ("bitsandbytes_8bit", {"load_in_8bit": True}),
        "nf4": (
            "bitsandbytes_4bit",
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
        ),
    }
    backend, settings = bits[quantize]
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
