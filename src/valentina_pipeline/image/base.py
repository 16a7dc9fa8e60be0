"""Base models: found on this machine, or an error that says how to get them; never a silent download."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valentina_pipeline.config import BaseConfig
from valentina_pipeline.domain.base_files import base_files, base_variant
from valentina_pipeline.domain.content import sha256
from valentina_pipeline.image.missing import MissingModel
from valentina_pipeline.image.offload import Placement, place, where

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Family = Literal["sdxl", "sd15"]
Precision = Literal["fp32", "bf16", "fp16"]
Quantise = Literal["none", "int8", "nf4"]

DOWNLOAD = "VALENTINA_DOWNLOAD"
"""Environment variable: 1 lets a hub id that is not in the local cache be downloaded."""

SETTINGS = ("model_index.json", "*/*.json", "*/*.txt")
WEIGHTS = "*/*.safetensors"
SPARE = ("*.fp16.*", "*.non_ema.*", "safety_checker/*", "vae_1_0/*")
"""Files of a hub's repository: a base's settings, its weights, and weights that nothing is loaded from."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

PIPELINES: dict[Family, str] = {"sdxl": "StableDiffusionXLPipeline", "sd15": "StableDiffusionPipeline"}
SAVED_AS: dict[Family, re.Pattern[str]] = {
    family: re.compile(name.removesuffix("Pipeline") + r"(ControlNet)?(Img2Img|Inpaint)?Pipeline")
    for family, name in PIPELINES.items()
}
"""The pipelines that a base's networks may have been saved from: the same ones serve them all."""

CONFIGURED_AS: dict[Family, str] = {
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Whose configuration and tokenizers a base in one file has, where it names no other."""

ORIGINAL_TEXT: dict[Family, str] = {"sdxl": "conditioner.embedders.1.", "sd15": "cond_stage_model."}
"""How the names of the text encoder's tensors begin in a base of one file."""

TEXT_ENCODERS: dict[Family, tuple[str, ...]] = {
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sd15": ("text_encoder",),
}

NO_EXTRAS: dict[Family, dict[str, Any]] = {
    # every image is marked by image/generate.py and looked at by image/safety.py
    "sdxl": {"add_watermarker": False},
    "sd15": {"safety_checker": None, "requires_safety_checker": False},
}


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
        return where(self.unet)

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
    quantise: Quantise = "none",
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
        MissingModel: it, a part of it, or the GPU that `quantise` needs is not on this machine.
        ValueError: it is of another family.
    """
    import torch

    place_of = base_folder(base, root)
    with quiet():
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


def _from_folder(base: BaseConfig, folder: Path, root: Path, precision: Any, quantise: Quantise) -> Any:
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
        **NO_EXTRAS[base.family],
        **more,
    )


def _from_file(base: BaseConfig, file: Path, root: Path, precision: Any, quantise: Quantise) -> Any:
    """Load what is in one file, as kohya's scripts, ComfyUI and the WebUIs keep a base."""
    import diffusers
    import torch
    from safetensors import safe_open

    if quantise != "none":
        raise ValueError(f"train_lora.quantise needs a base in diffusers' layout; {file} is one file")
    with safe_open(file, framework="pt") as opened:
        if not any(name.startswith(ORIGINAL_TEXT[base.family]) for name in opened.keys()):  # noqa: SIM118
            raise ValueError(f"{file} holds no tensors {ORIGINAL_TEXT[base.family]}*: it is no {base.family}")
    path = base.config or CONFIGURED_AS[base.family]
    pipe = getattr(diffusers, PIPELINES[base.family]).from_single_file(
        file,
        config=str(_pipeline_folder(base.model_copy(update={"path": path}), root, SETTINGS)),
        dtype=torch.float32,
        local_files_only=True,
        **NO_EXTRAS[base.family],
    )
    for name in ("unet", *TEXT_ENCODERS[base.family]):
        getattr(pipe, name).to(_dtype(precision))
    return pipe


def _quantisation(base: BaseConfig, quantise: Quantise, dtype: "torch.dtype") -> Any:
    import torch
    from diffusers import PipelineQuantizationConfig

    if not torch.cuda.is_available():
        raise MissingModel(
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


def base_folder(base: BaseConfig, root: Path) -> Path:
    """Return the folder of a base's weights, or the one file that holds them.

    Raises:
        MissingModel: there is none, or a part of it is missing.
        ValueError: the folder holds a pipeline of another family, or the file's format is not read.
    """
    file = root / base.path
    if file.is_file():
        if file.suffix != ".safetensors":
            raise ValueError(f"{file}: only .safetensors is read; a pickle may run code when it is opened")
        return file
    folder = _pipeline_folder(base, root, (*SETTINGS, WEIGHTS))
    files = base_files(folder)
    for part in ("unet", "vae", *TEXT_ENCODERS[base.family]):
        if not any(file.parent.name == part for file in files):
            raise MissingModel(f"{base.path} (no safetensors in {folder / part})", base.licence, base.obtain)
    if not (folder / "unet/config.json").is_file():
        raise MissingModel(f"{base.path} (no {folder / 'unet/config.json'})", base.licence, base.obtain)
    unet = json.loads((folder / "unet/config.json").read_text("utf-8"))
    if unet.get("in_channels") != unet.get("out_channels"):
        raise ValueError(
            f"{folder}: its U-Net takes {unet.get('in_channels')} channels and gives "
            f"{unet.get('out_channels')}, as for inpainting; a base draws from text alone"
        )
    return folder


def _pipeline_folder(base: BaseConfig, root: Path, needed: tuple[str, ...]) -> Path:
    folder = root / base.path
    if not (folder / "model_index.json").is_file():
        folder = _cached(base, needed)
    name = json.loads((folder / "model_index.json").read_text("utf-8")).get("_class_name")
    if not SAVED_AS[base.family].fullmatch(str(name)):
        raise ValueError(f"{folder} holds a {name}; family {base.family} needs {PIPELINES[base.family]}")
    return folder


def base_hash(folder: Path) -> str:
    """Return the sha256 over the names and sha256 sums of a base's weights.

    Only what a pipeline loads counts, see `base_files`; of a base in one file it is the file's sha256.
    Cached per process.
    """
    return _weights_hash(folder.resolve())


@lru_cache(maxsize=8)
def _weights_hash(folder: Path) -> str:
    if folder.is_file():
        return sha256(folder)
    files = base_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no weights of a base: unet/*.safetensors and the like")
    lines = (f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    return sha256("".join(lines).encode())


def _cached(base: BaseConfig, needed: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = MissingModel(base.path, base.licence, base.obtain)
    if not HUB_ID.fullmatch(base.path):
        raise missing
    offline = os.environ.get(DOWNLOAD) != "1"
    fetch = partial(snapshot_download, base.path, allow_patterns=list(needed), local_files_only=offline)
    try:
        found = Path(fetch(ignore_patterns=list(SPARE)))
        if WEIGHTS in needed and not base_files(found):  # some are offered in half precision alone
            found = Path(fetch())
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as err:
        raise missing from err
    if not (found / "model_index.json").is_file():
        raise missing
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Show no progress bar for each component: loading takes seconds."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (of_diffusers, of_transformers):
            library.enable_progress_bar()


def _dtype(precision: Precision | None) -> "torch.dtype":
    import torch

    if not torch.cuda.is_available() or precision == "fp32":
        return torch.float32
    half = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[precision or half]


def encode(vae: Any, pixels: "Tensor") -> "Tensor":
    """Return the latents that a pipeline denoises, of the distribution's mean: the same every time.

    Args:
        vae: AutoencoderKL, float32.
        pixels: float32 (n, 3, h, w) in [-1, 1].

    Returns:
        float32 (n, c, h / f, w / f), scaled as the VAE's configuration says.
    """
    import torch

    shift, spread = _spread(vae)
    with torch.no_grad():
        mean = vae.encode(pixels.to(where(vae))).latent_dist.mean
    return (mean - shift) / spread


def decode(vae: Any, latents: "Tensor") -> "Tensor":
    """Return float32 pixels (n, 3, h, w), about [-1, 1], of a pipeline's latents: `encode` reversed."""
    import torch

    shift, spread = _spread(vae)
    with torch.no_grad():
        return vae.decode(latents.to(where(vae), vae.dtype) * spread + shift).sample


def _spread(vae: Any) -> "tuple[Tensor, Tensor]":
    """Return what the VAE's own latents are shifted and divided by, each (1, c or 1, 1, 1)."""
    import torch

    def channels(values: list[float]) -> "Tensor":
        return torch.tensor(values, dtype=vae.dtype, device=where(vae)).view(1, -1, 1, 1)

    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    return channels(mean or [0.0]), channels(std or [1.0]) / config.scaling_factor
