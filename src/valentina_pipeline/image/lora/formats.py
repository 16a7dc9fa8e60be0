"""Export adapters in the formats of diffusers, peft and kohya, all with the same numbers.

diffusers' format uses diffusers' module names and stores alpha as JSON in the metadata. peft's format is one
folder per network. kohya's format, which ComfyUI and the WebUIs read, uses flat module names and stores alpha
as one tensor per layer. It uses Stability's names for SDXL's U-Net, and LyCORIS's form for a DoRA or LoKr.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.image.lora.adapter import Adapter, Kind
from valentina_pipeline.image.lora.layer_names import kohya_name, split_layer
from valentina_pipeline.image.lora.unet_names import layout_of
from valentina_pipeline.image.models.families import Family
from valentina_pipeline.training.finite import refuse_not_finite

if TYPE_CHECKING:
    from torch import Tensor

Format = Literal["diffusers", "kohya", "peft"]

KOHYA_NAMES = {  # tensors of a layer: peft's name -> kohya's
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector.weight": "dora_scale",
}
ARCHITECTURES: dict[Family, tuple[str, str]] = {  # modelspec's and kohya's identifiers
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    "sd15": ("stable-diffusion-v1/lora", "sd_v1"),
}
NETWORKS: dict[Kind, dict[str, str]] = {
    "lora": {"ss_network_module": "networks.lora"},
    "rslora": {"ss_network_module": "networks.lora"},
    "dora": {
        "ss_network_module": "lycoris.kohya",
        "ss_network_args": json.dumps({"algo": "lora", "dora_wd": "True"}),
    },
    "lokr": {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "lokr"})},
}
"""Network module of kohya's scripts, by which readers tell the formats apart."""


@dataclass(frozen=True)
class AdapterMetadata:
    """Metadata of an adapter file, a function of the training inputs alone.

    Attributes:
        trigger: trigger word of the concept.
        base_sha256: `base_hash` of the base model.
        data_sha256: hash of the training images and captions.
        resolution: width and height of the training images in pixels.
        prediction_type: prediction type of the base model.
        captions: captions of the training images.
        rights: one line for each rights record that covers the images.
        private: omit the images' hash, their number, the tags of their captions and their rights.
    """

    trigger: str
    base_sha256: str
    data_sha256: str
    resolution: int
    prediction_type: str
    captions: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()
    private: bool = False


def export_adapter(
    adapter: Adapter,
    notes: AdapterMetadata,
    half: bool = False,
    formats: Iterable[Format] = ("diffusers", "kohya"),
) -> dict[str, bytes]:
    """Return the adapter's files by relative path; equal arguments give equal bytes.

    Args:
        adapter: trained adapter.
        notes: metadata of the files.
        half: store the weights as float16, the usual choice after training in half precision.
        formats: formats to export.
    """
    import torch

    dtype = torch.float16 if half else torch.float32
    tensors = {name: p.detach().to("cpu", dtype) for name, p in adapter.weights().items()}
    header = {**_metadata(adapter, notes, tensors), "format": "pt"}
    files = {}
    for form in formats:
        if form == "diffusers":
            configs = {f"{m}.{key}": v for m, config in adapter.configs.items() for key, v in config.items()}
            content = {_file_name(name): t for name, t in tensors.items()}
            metadata = {**header, "lora_adapter_metadata": json.dumps(configs, sort_keys=True)}
            files[LORA_FILE] = serialise(content, metadata)
        elif form == "kohya":
            files[f"{notes.trigger}.kohya.safetensors"] = serialise(_kohya(tensors, adapter), header)
        else:
            files |= _peft(tensors, adapter, header)
    return files


def serialise(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file whose bytes depend on the arguments alone.

    The library writes the metadata in random order, so this function rewrites the header: its length in
    8 bytes (little endian), JSON padded to a multiple of 8, then the data.

    Raises:
        NotFiniteError: a weight is infinite or NaN, for example because it overflows half precision.
    """
    from safetensors.torch import save

    refuse_not_finite(tensors, "the file")
    plain = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + plain[8 + length :]


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        ValueError: the file is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return dict(tensors.metadata() or {})
    except SafetensorError as err:
        raise ValueError(f"{file} is not a valid safetensors file: {err}") from err


def _file_name(name: str) -> str:
    """Return a parameter's name in files: for text encoders it always starts with `text_model.`."""
    module, rest = name.split(".", 1)
    return name if module == "unet" or rest.startswith("text_model.") else f"{module}.text_model.{rest}"


def _kohya(tensors: "Mapping[str, Tensor]", adapter: Adapter) -> "dict[str, Tensor]":
    import torch

    scales, alpha = adapter.scales(), adapter.plan.alpha
    layout = layout_of(adapter.modules["unet"].config)
    converted = {}
    for layer, parts in _by_layer(tensors, scales).items():
        flat = kohya_name(split_layer(layer), adapter.family, layout)
        # diffusers reads only one alpha for all layers, so the rest of a layer's scale (beyond alpha / rank)
        # goes into its weights. LyCORIS ignores alpha if neither factor is decomposed
        lokr = adapter.plan.kind == "lokr"
        rest_scale = scales[layer] if lokr else scales[layer] * _rank(parts) / alpha
        last = ("lokr_w1" if "lokr_w1" in parts else "lokr_w1_a") if lokr else "lora_B.weight"
        for part, tensor in {**parts, last: parts[last] * rest_scale}.items():
            name = KOHYA_NAMES.get(part, part)
            if name == "dora_scale":  # LyCORIS: (out, 1, ...); peft: (out) or (1, out, 1, 1)
                tensor = tensor.transpose(0, 1) if tensor.ndim > 1 else tensor[:, None]
            converted[f"{flat}.{name}"] = tensor
        # diffusers' own conversion writes the rank here, which rescales a LoRA whose alpha differs from it
        converted[f"{flat}.alpha"] = torch.tensor(float(_rank(parts) if lokr else alpha))
    return converted


def _by_layer(tensors: "Mapping[str, Tensor]", layers: Iterable[str]) -> "dict[str, dict[str, Tensor]]":
    """Return each layer's tensors by the rest of their names, such as "lora_A.weight"."""
    parts: dict[str, dict[str, Tensor]] = {layer: {} for layer in sorted(layers)}
    for name, tensor in tensors.items():
        layer, part = re.split(r"\.(?=lora_|lokr_)", name, maxsplit=1)
        parts[layer][part] = tensor
    return parts


def _rank(parts: "Mapping[str, Tensor]") -> int:
    """Return the rank by which readers of the file divide alpha."""
    if "lora_A.weight" in parts:
        return parts["lora_A.weight"].shape[0]
    factor = parts.get("lokr_w2_b", parts.get("lokr_w1_b"))
    return 1 if factor is None else factor.shape[0]


def _peft(tensors: "Mapping[str, Tensor]", adapter: Adapter, header: Mapping[str, str]) -> dict[str, bytes]:
    kind = "LOKR" if adapter.plan.kind == "lokr" else "LORA"
    files = {}
    for module, config in adapter.configs.items():
        prefix = f"{module}."
        own_tensors = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        renamed = {f"base_model.model.{_plain_magnitude(name)}": t for name, t in own_tensors.items()}
        settings = {**config, "peft_type": kind, "task_type": None}
        files[f"peft/{module}/adapter_config.json"] = json.dumps(settings, indent=2, sort_keys=True).encode()
        files[f"peft/{module}/adapter_model.safetensors"] = serialise(renamed, header)
    return files


def _plain_magnitude(name: str) -> str:
    """Return the name in peft's own files, where a magnitude vector has no `.weight`."""
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def _metadata(adapter: Adapter, notes: AdapterMetadata, tensors: "Mapping[str, Tensor]") -> dict[str, str]:
    architecture, version = ARCHITECTURES[adapter.family]
    plan = adapter.plan
    rank, alpha = str(plan.rank), f"{plan.alpha:g}"
    side = notes.resolution
    metadata = {
        "trigger": notes.trigger,
        "method": plan.kind,
        "base_sha256": notes.base_sha256,
        "rank": rank,
        "alpha": alpha,
        "resolution": str(side),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": notes.trigger,
        "modelspec.trigger_phrase": notes.trigger,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": notes.prediction_type.removesuffix("_prediction"),
        "modelspec.hash_sha256": f"0x{_tensor_hash(tensors)}",
        **NETWORKS[plan.kind],
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_base_model_version": version,
        "ss_output_name": notes.trigger,
        "ss_resolution": f"({side}, {side})",
        "ss_v2": "False",
    }
    return metadata if notes.private else {**metadata, **_image_metadata(notes)}


def _image_metadata(notes: AdapterMetadata) -> dict[str, str]:
    tags = Counter(tag.strip() for caption in notes.captions for tag in caption.split(",") if tag.strip())
    return {
        "data_sha256": notes.data_sha256,
        "rights": json.dumps(notes.rights, ensure_ascii=False),
        "ss_num_train_images": str(len(notes.captions)),
        "ss_tag_frequency": json.dumps({notes.trigger: dict(sorted(tags.items()))}, ensure_ascii=False),
    }


def _tensor_hash(tensors: "Mapping[str, Tensor]") -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + b"\0" + tensors[name].contiguous().numpy().tobytes())
    return total.hexdigest()
