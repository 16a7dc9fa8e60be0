"""Read LoRA files of any tool: validate the layers, give them canonical names and determine their scales."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valentina_pipeline.image.lora.layer_names import Layer, one_name, split_layer, split_name
from valentina_pipeline.image.lora.unet_names import SDXL, group_size

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["lora", "dora", "loha", "lokr"]
PARTS_BY_FORM: Mapping[Form, str] = {
    "lora": r"lora_A lora_B( lora_mid)?",
    "dora": r"dora_scale lora_A lora_B( lora_mid)?|lora_A lora_B( lora_mid)? magnitude",
    "loha": r"(hada_t1 hada_t2 )?hada_w1_a hada_w1_b hada_w2_a hada_w2_b",
    "lokr": r"(lokr_t2 )?lokr_w1(_a lokr_w1_b)? lokr_w2(_a lokr_w2_b)?",
}
"""Patterns of the sorted part names that a layer must have, by form."""

PRODUCTS = (
    ("lora_B", "lora_A", "lora_mid"),
    ("hada_w1_a", "hada_w1_b", "hada_t1"),
    ("hada_w2_a", "hada_w2_b", "hada_t2"),
    ("lokr_w1_a", "lokr_w1_b", ""),
    ("lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
"""Parts that are multiplied: the first and second matrix, and Tucker's middle between them."""


@dataclass(frozen=True)
class LoraLayer:
    """One layer of a LoRA file.

    Attributes:
        name: name in the file.
        form: adapter type.
        parts: tensors by part, without alpha.
        rank: rank that divides alpha.
        alpha: the update is scaled by alpha / rank, or by alpha / sqrt(rank) if it is rank-stabilized.
    """

    name: str
    form: Form
    parts: "Mapping[str, Tensor]"
    rank: int
    alpha: float

    def as_form(self, form: Form) -> "LoraLayer":
        """Return the same update in another form: a LoRA's as a LoHa or LoKr, whose other factor is 1."""
        import torch

        if self.form == form:
            return self
        down, up = (self.parts[name].flatten(1) for name in ("lora_A", "lora_B"))
        if form == "lokr":
            parts = {"lokr_w1": torch.ones(1, 1, dtype=up.dtype), "lokr_w2_a": up, "lokr_w2_b": down}
        else:
            ones = {"hada_w2_a": torch.ones_like(up[:, :1]), "hada_w2_b": torch.ones_like(down[:1])}
            parts = {"hada_w1_a": up, "hada_w1_b": down, **ones}
        return replace(self, form=form, parts=parts)


@dataclass(frozen=True)
class LoraFile:
    """Contents of a LoRA, DoRA, LoHa or LoKr file.

    Attributes:
        file: file or folder that was read.
        metadata: metadata of the file.
        layers: layers by canonical name.
        config: peft's settings as in diffusers' format, by "network.setting"; {} if the file has none.
        size: size of the U-Net's `Layout` if Stability's names determine it, else None.
    """

    file: Path
    metadata: Mapping[str, str]
    layers: Mapping[Layer, LoraLayer]
    config: Mapping[str, Any]
    size: int | None

    def is_rslora(self, network: str) -> bool:
        """Return True if a network's updates are scaled by alpha / sqrt(rank)."""
        return bool(self.config.get(f"{network}.use_rslora"))


def read_lora(file: Path, size: int | None = None) -> LoraFile:
    """Return the layers of a LoRA, DoRA, LoHa or LoKr.

    Args:
        file: file of kohya's scripts, LyCORIS, diffusers, ComfyUI or peft; or a folder in peft's layout.
        size: size of the U-Net's `Layout`; None derives it from the names in the file.

    Raises:
        ValueError: the file is not an adapter, is damaged, or has unsupported content; the message says what.
    """
    try:
        tensors, metadata = _folder(file) if file.is_dir() else _file(file)
        config = _config(metadata)
        named = {name: split_name(name) for name in tensors}
        own = {layer: split_layer(layer) for layer in sorted({layer for layer, _ in named.values()})}
        size = size or group_size([flat for network, flat in own.values() if network == "unet"])
        parts: dict[str, dict[str, Tensor]] = {layer: {} for layer in own}
        for name, (layer, part) in named.items():
            if part in parts[layer]:
                raise ValueError(f"layer {layer} has {part} twice")
            parts[layer][part] = tensors[name]
        layers: dict[Layer, LoraLayer] = {}
        for name, layer_parts in parts.items():
            key = one_name(own[name], size or SDXL.size)
            if key in layers:
                raise ValueError(f"layers {layers[key].name} and {name} are the same layer")
            layers[key] = _layer(name, key, layer_parts, config)
    except ValueError as err:
        raise ValueError(f"{file}: {err}" if str(file) not in str(err) else str(err)) from err
    if not layers:
        raise ValueError(f"{file} does not contain a LoRA: it has no tensors")
    return LoraFile(file, metadata, layers, config, size)


def _file(file: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, dict(opened.metadata() or {})
    except SafetensorError as err:
        raise ValueError(f"{file} is not a valid safetensors file: {err}") from err


def _folder(folder: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read a folder in peft's layout, of the U-Net or with a folder for each network, like one file."""
    names = [name for name in ("unet", "text_encoder", "text_encoder_2") if (folder / name).is_dir()]
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for name, place in {name: folder / name for name in names}.items() if names else {"unet": folder}.items():
        file, settings = place / "adapter_model.safetensors", place / "adapter_config.json"
        if not file.is_file() or not settings.is_file():
            raise ValueError(f"{place} is not a peft adapter: must contain {settings.name} and {file.name}")
        read, _ = _file(file)
        tensors |= {f"{name}.{key.removeprefix('base_model.model.')}": tensor for key, tensor in read.items()}
        config |= {f"{name}.{key}": value for key, value in json.loads(settings.read_text("utf-8")).items()}
    return tensors, {"lora_adapter_metadata": json.dumps(config)}


def _config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return peft's settings; allow only lists of layer names as patterns, because a regex may be slow."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError as err:
        raise ValueError(f"lora_adapter_metadata: not valid JSON: {err}") from err
    if not isinstance(config, dict):
        raise ValueError("lora_adapter_metadata: must be a mapping")
    for name, value in config.items():
        setting = name.rpartition(".")[2]
        if setting in {"rank_pattern", "alpha_pattern"} and value is not None:
            if not isinstance(value, dict) or not all(re.fullmatch(r"[\w.^$|\\-]+", key) for key in value):
                raise ValueError(f"lora_adapter_metadata: {name} must map layer names to numbers")
            numbers = list(value.values())
        else:
            numbers = [value] if setting in {"r", "alpha", "lora_alpha"} else []
        if not all(isinstance(n, int | float) and 0 < n < math.inf for n in numbers):
            raise ValueError(f"lora_adapter_metadata: {name} must contain finite numbers above 0")
    return config


def _layer(name: str, key: Layer, parts: "dict[str, Tensor]", config: Mapping[str, Any]) -> LoraLayer:
    import torch

    alpha = parts.pop("alpha", None)
    forms = {"lora" if part.startswith("lora_") and part[5] in "ABm" else part[:4] for part in parts}
    form = _form(name, set(parts), forms)
    for part, tensor in parts.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"layer {name}: {part} must contain finite numbers")
        if not tensor.numel() or (tensor.ndim < 2 and part not in {"dora_scale", "magnitude"}):
            raise ValueError(f"layer {name}: {part} has shape {tuple(tensor.shape)}; must be a matrix")
    if not _ranks_fit(parts):
        raise ValueError(f"layer {name}: the ranks of its matrices differ")
    if "lora_mid" in parts:  # Tucker decomposition: merge the middle into the first matrix
        mid, down = parts.pop("lora_mid"), parts["lora_A"]
        parts["lora_A"] = torch.einsum("ij...,jr->ir...", mid.float(), down.flatten(1).float())
    rank, scale = _scale(key, form, _rank(form, parts), alpha, config)
    return LoraLayer(name, form, parts, rank, scale)


def _form(name: str, parts: set[str], forms: set[str]) -> Form:
    named = " ".join(sorted(parts))
    for form, needed in PARTS_BY_FORM.items():
        if re.fullmatch(needed, named):
            return form
    if {"dora_scale", "magnitude"} & parts and forms & {"hada", "lokr"}:
        raise ValueError(f"layer {name}: peft does not support a LoHa or LoKr with DoRA's magnitudes")
    raise ValueError(f"layer {name} is damaged: it has only {named or 'alpha'} of a LoRA, LoHa or LoKr")


def _ranks_fit(parts: "Mapping[str, Tensor]") -> bool:
    """Return True if the matrices of each product, with or without Tucker's middle, have equal ranks."""
    for first, second, middle in PRODUCTS:
        if first not in parts:
            continue
        ranks = [parts[first].shape[1], parts[second].shape[0]]
        if middle not in parts:
            fit = ranks[0] == ranks[1]
        elif middle == "lora_mid":
            fit = [*parts[middle].shape[:2]] == ranks
        else:  # LyCORIS transposes the first matrix then
            fit = parts[middle].ndim == 4 and [*parts[middle].shape[:2]] == [len(parts[first]), ranks[1]]
        if not fit:
            return False
    return True


def _rank(form: Form, parts: "Mapping[str, Tensor]") -> int:
    """Return the rank by the shapes of the parts; 0 for a LoKr without decomposed factors."""
    if form in {"lora", "dora"}:
        return parts["lora_A"].shape[0]
    names = ("hada_w1_b",) if form == "loha" else ("lokr_w2_b", "lokr_w1_b")
    return next((parts[name].shape[0] for name in names if name in parts), 0)


def _scale(
    key: Layer, form: Form, rank: int, alpha: "Tensor | None", config: Mapping[str, Any]
) -> tuple[int, float]:
    """Return a layer's rank and alpha, from its alpha tensor or peft's settings; the default is the rank."""
    network, flat = key
    label = "lora_alpha" if form in {"lora", "dora"} else "alpha"
    if alpha is None and f"{network}.{label}" in config:
        rank = rank or round(_setting(config, network, "r", "rank_pattern", flat))
        return rank, float(_setting(config, network, label, "alpha_pattern", flat))
    if alpha is None or not rank:  # LyCORIS does not scale a LoKr without decomposed factors
        return rank or 1, float(rank or 1)
    if alpha.numel() != 1 or not math.isfinite(alpha.item()):
        raise ValueError(f"layer {flat}: alpha must be one finite number")
    return rank, float(alpha.item()) or float(rank)  # 0 means the rank, as in kohya's and LyCORIS's settings


def _setting(config: Mapping[str, Any], network: str, name: str, pattern: str, flat: str) -> float:
    plain = flat.removeprefix("text_model_")
    for key, value in (config.get(f"{network}.{pattern}") or {}).items():
        if _ending(key).search(plain):
            return float(value)
    return float(config.get(f"{network}.{name}", 1))


@lru_cache(maxsize=8192)
def _ending(key: str) -> re.Pattern[str]:
    """Return one of peft's patterns, which match the end of dotted names, as a pattern for flat names."""
    loose = re.sub(r"\\?\.", "_", key.removeprefix("^").removesuffix("$")).removeprefix("text_model_")
    return re.compile(rf"(^|_)({loose})$")


def group_by_form(
    lora: LoraFile, network: str, layers: Mapping[str, LoraLayer]
) -> dict[Form, dict[str, LoraLayer]]:
    """Return the layers of one network by the form that they are loaded in, sorted.

    LoRA beside either LoHa or LoKr is given their form, so that the file is one adapter of peft.
    """
    forms = {layer.form for layer in layers.values()}
    if len(forms) == 2 and "lora" in forms and "dora" not in forms and not lora.is_rslora(network):
        (form,) = forms - {"lora"}
        return {form: {path: layer.as_form(form) for path, layer in layers.items()}}
    return {
        form: {path: layer for path, layer in layers.items() if layer.form == form} for form in sorted(forms)
    }
