"""The LoRA itself: injected into a frozen base, and written in the two formats that others read.

Both files hold the same numbers. diffusers' format names modules as diffusers does and carries alpha as
JSON in the metadata; kohya's names them in one flat style, with alpha as a tensor beside each pair, which
is what ComfyUI and the WebUIs read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valentina_pipeline.image.base import BaseModel, Family

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"

Targets = Literal["attention", "attention+conv"]

UNET: dict[Targets, tuple[str, ...]] = {"attention": ("to_k", "to_out.0", "to_q", "to_v")}
UNET["attention+conv"] = (
    *UNET["attention"],
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
    "upsamplers.0.conv",
)
TEXT: dict[Targets, tuple[str, ...]] = {"attention": ("k_proj", "out_proj", "q_proj", "v_proj")}
TEXT["attention+conv"] = (*TEXT["attention"], "fc1", "fc2")

KOHYA_PREFIXES: dict[Family, dict[str, str]] = {
    "sdxl": {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
    "sd15": {"unet": "lora_unet", "text_encoder": "lora_te"},
}
ARCHITECTURES: dict[Family, tuple[str, str]] = {  # in modelspec's and in kohya's words
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    "sd15": ("stable-diffusion-v1/lora", "sd_v1"),
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA inside a base's networks.

    Attributes:
        family: of the base.
        modules: the networks that carry it, by their names in the pipeline; "unet" first.
        configs: what diffusers needs to build each one again (LoraConfig's arguments).
        rank: of every pair.
        alpha: the update is alpha / rank * up @ down.
    """

    family: Family
    modules: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    rank: int
    alpha: float

    def parameters(self, module: str) -> "dict[str, Parameter]":
        """Return a network's trainable parameters: "mid_block...to_q.lora_A.weight" -> (rank, in)."""
        named = self.modules[module].named_parameters()
        return {name.replace(".default.", "."): p for name, p in named if p.requires_grad}

    def weights(self) -> "dict[str, Parameter]":
        """Return all trainable parameters, named with their network's name before a dot."""
        return {f"{m}.{name}": p for m in self.modules for name, p in self.parameters(m).items()}


@dataclass(frozen=True)
class Notes:
    """What a LoRA file says about itself, all of it a function of the training's inputs.

    Attributes:
        trigger: the word that calls the concept.
        base_sha256: `base_hash` of the base.
        data_sha256: of the training images and captions.
        code_sha256: of the code that trained it.
        resolution: pixels, width and height of the training images.
        prediction_type: of the base.
    """

    trigger: str
    base_sha256: str
    data_sha256: str
    code_sha256: str
    resolution: int
    prediction_type: str


def inject(base: BaseModel, rank: int, alpha: float, targets: Targets, text: bool, seed: int) -> Adapter:
    """Put an untrained LoRA, which changes nothing yet, into the U-Net and by option the text encoders.

    Args:
        base: changed in place; its own weights stay frozen.
        rank: of every pair.
        alpha: see Adapter.
        targets: attention alone, or convolutions and feed-forward layers too.
        text: whether the text encoders are trained too.
        seed: of the initial `down` matrices; torch's global generator is left as it was.
    """
    import torch
    from peft import LoraConfig

    configs: dict[str, dict[str, Any]] = {"unet": _config(rank, alpha, UNET[targets])}
    if text:
        for name, encoder in base.text_encoders.items():
            configs[name] = _config(rank, alpha, TEXT[targets])
            if base.family == "sdxl" and name == "text_encoder":
                # SDXL reads this encoder before its last layer: training that one would change nothing
                last = encoder.config.num_hidden_layers - 1
                configs[name]["exclude_modules"] = rf".*\blayers\.{last}\..*"
    modules = {name: getattr(base.pipe, name) for name in configs}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in modules.items():
            module.add_adapter(LoraConfig(**configs[name]))
    adapter = Adapter(base.family, modules, configs, rank, alpha)
    for parameter in adapter.weights().values():
        parameter.data = parameter.data.float()  # small steps would be lost in half precision
    for name in ("unet", *base.text_encoders):
        getattr(base.pipe, name).eval()
    return adapter


def adapter_files(adapter: Adapter, notes: Notes, half: bool = False) -> dict[str, bytes]:
    """Return the LoRA as files: diffusers' format and kohya's, byte for byte a function of the arguments.

    Args:
        adapter: trained.
        notes: for the metadata.
        half: store the weights as float16, as is usual where they were trained with it.
    """
    import torch

    dtype = torch.float16 if half else torch.float32
    tensors = {name: p.detach().to("cpu", dtype) for name, p in adapter.weights().items()}
    about = _about(adapter, notes)
    configs = {f"{m}.{key}": value for m, config in adapter.configs.items() for key, value in config.items()}
    alike = {"format": "pt", "lora_adapter_metadata": json.dumps(configs, sort_keys=True)}
    return {
        DIFFUSERS_NAME: serialise({_diffusers_key(n): t for n, t in tensors.items()}, {**about, **alike}),
        f"{notes.trigger}.kohya.safetensors": serialise(_kohya(tensors, adapter), {**about, "format": "pt"}),
    }


def serialise(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file whose bytes depend on nothing but the arguments.

    The library itself writes the metadata in a random order, so that its header is written again here:
    8 bytes of length (little endian), JSON padded to a multiple of 8, then the data.
    """
    from safetensors.torch import save

    plain = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + plain[8 + length :]


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        ValueError: it is none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as err:
        raise ValueError(f"{file} is no safetensors file: {err}") from err


def _config(rank: int, alpha: float, targets: tuple[str, ...]) -> dict[str, Any]:
    return {"r": rank, "lora_alpha": _plain(alpha), "target_modules": list(targets)}


def _plain(number: float) -> float:
    """Return 8 for 8.0: some readers of the metadata expect a whole number."""
    return int(number) if number == int(number) else number


def _diffusers_key(name: str) -> str:
    module, rest = name.split(".", 1)
    return f"{module}.{_published(module, rest)}"


def _published(module: str, name: str) -> str:
    """Return a parameter's name as files know it: text encoders' always start with `text_model.`."""
    return name if module == "unet" or name.startswith("text_model.") else f"text_model.{name}"


def _kohya(tensors: "Mapping[str, Tensor]", adapter: Adapter) -> "dict[str, Tensor]":
    import torch

    converted = {}
    for name, tensor in tensors.items():
        module, rest = name.split(".", 1)
        layer, side = _published(module, rest).removesuffix(".weight").rsplit(".", 1)
        flat = f"{KOHYA_PREFIXES[adapter.family][module]}_{layer.replace('.', '_')}"
        converted[f"{flat}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = tensor
        # diffusers' own conversion writes the rank here, which rescales every LoRA of another alpha
        converted[f"{flat}.alpha"] = torch.tensor(float(adapter.alpha))
    return converted


def _about(adapter: Adapter, notes: Notes) -> dict[str, str]:
    architecture, version = ARCHITECTURES[adapter.family]
    rank, alpha = str(adapter.rank), str(_plain(adapter.alpha))
    return {
        "trigger": notes.trigger,
        "base_sha256": notes.base_sha256,
        "data_sha256": notes.data_sha256,
        "code_sha256": notes.code_sha256,
        "rank": rank,
        "alpha": alpha,
        "resolution": str(notes.resolution),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": notes.trigger,
        "modelspec.trigger_phrase": notes.trigger,
        "modelspec.resolution": f"{notes.resolution}x{notes.resolution}",
        "modelspec.prediction_type": notes.prediction_type.removesuffix("_prediction"),
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_base_model_version": version,
        "ss_output_name": notes.trigger,
        "ss_v2": "False",
    }


def code_hash() -> str:
    """Return the sha256 over the files whose code decides what a training results in."""
    here = Path(__file__).parent
    names = ("base.py", "encoding.py", "lora.py", "objective.py", "train.py")
    sums = [hashlib.sha256((here / name).read_bytes()).hexdigest() for name in names]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
