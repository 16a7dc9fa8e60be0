"""LoRA files into a base's networks by peft, all layers of a file or none."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.lora.layer_names import one_name, split_layer, summarize_names
from valentina_pipeline.image.lora.reader import Form, LoraFile, LoraLayer, read_lora, refuse_mixture
from valentina_pipeline.image.lora.unet_names import layout_of
from valentina_pipeline.image.models.base_model import BaseModel

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

CONFIGS: Mapping[Form, str] = {
    "lora": "LoraConfig", "dora": "LoraConfig", "loha": "LoHaConfig", "lokr": "LoKrConfig",
}  # fmt: skip
REBUILT = ("decompose_both", "decompose_factor", "use_effective_conv2d")
"""Settings of peft's LoKr that tell whoever builds it again which shapes it has."""


def load_lora(base: BaseModel, file: Path, adapter: str) -> None:
    """Put an adapter file, each of its layers, into a base.

    Args:
        base: changed in place; unchanged where the file does not fit.
        file: as `read_lora` takes it.
        adapter: what peft knows it by.

    Raises:
        ValueError: it is no LoRA, or one of its layers has no place in the base; the message names both.
    """
    lora = read_lora(file, layout_of(base.unet.config).size)
    found = _placed(base, lora)
    forms = {network: refuse_mixture(lora, network) for network in found}
    shaped = {network: _shaped(base, lora, network, layers) for network, layers in found.items()}
    for network, tensors in shaped.items():
        _inject(
            getattr(base.pipe, network),
            _config(lora, network, forms[network], found[network]),
            tensors,
            adapter,
        )


def _placed(base: BaseModel, lora: LoraFile) -> dict[str, dict[str, LoraLayer]]:
    """Return the file's layers by network and path in it."""
    size = layout_of(base.unet.config).size
    places = {}
    for network in ("unet", *base.text_encoders):
        for path in _targets(getattr(base.pipe, network)):
            places[one_name(split_layer(f"{network}.{path}"), size)] = (network, path)
    if strange := [layer.name for key, layer in lora.layers.items() if key not in places]:
        raise ValueError(
            f"{lora.file}: the {base.family} base has no layer for {len(strange)} of the {len(lora.layers)} "
            f"in the file: {summarize_names(strange)}"
        )
    found: dict[str, dict[str, LoraLayer]] = defaultdict(dict)
    for key, layer in lora.layers.items():
        network, path = places[key]
        found[network][path] = layer
    return dict(found)


def _targets(network: Any) -> "dict[str, Module]":
    """Return the linear layers and convolutions of a network by path, whatever adapters wrap them."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Conv2d, Linear

    found: dict[str, Module] = {}
    wrapped: list[str] = []
    for path, module in network.named_modules():
        if any(path.startswith(f"{outer}.") for outer in wrapped[-1:]):
            continue
        own = module
        if isinstance(module, BaseTunerLayer):
            wrapped.append(path)
            own = module.get_base_layer()
        if isinstance(own, Linear | Conv2d):
            found[path] = own
    return found


def _shaped(
    base: BaseModel, lora: LoraFile, network: str, layers: Mapping[str, LoraLayer]
) -> "dict[str, dict[str, Tensor]]":
    targets = _targets(getattr(base.pipe, network))
    return {path: _in_shape(lora, layer, targets[path]) for path, layer in layers.items()}


def _in_shape(lora: LoraFile, layer: LoraLayer, own: Any) -> "dict[str, Tensor]":
    """Return a layer's tensors in peft's shapes.

    Raises:
        ValueError: they do not fit the base's layer.
    """
    kernel = tuple(getattr(own, "kernel_size", ()))
    wide, tall = (own.in_channels, own.out_channels) if kernel else (own.in_features, own.out_features)
    parts = dict(layer.parts)
    if layer.form in {"loha", "lokr"}:
        _refuse_other_size(lora, layer, _kin_size(layer), (tall, wide * _product(kernel)))
        return parts
    down, up = parts["lora_A"], parts["lora_B"]
    given = up.shape[0] * _product(up.shape[2:]), down[0].numel()
    _refuse_other_size(lora, layer, given, (tall, wide * _product(kernel)))
    shaped = {
        "lora_A.weight": down.reshape(layer.parts["lora_A"].shape[0], wide, *kernel),
        "lora_B.weight": up.reshape(tall, -1, *[1] * len(kernel)),
    }
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if magnitude is not None:
        # LyCORIS may norm each input instead, which peft cannot; its shape is (1, in, ...) then
        by_input = "dora_scale" in parts and magnitude.ndim > 1 and len(magnitude) != tall
        if by_input or magnitude.numel() != tall:
            raise ValueError(
                f"{lora.file}: the magnitudes of layer {layer.name} are {tuple(magnitude.shape)}; "
                f"only one for each of its {tall} outputs is read"
            )
        shaped["lora_magnitude_vector.weight"] = magnitude.reshape(*([1, tall, 1, 1] if kernel else [tall]))
    return shaped


def _refuse_other_size(
    lora: LoraFile, layer: LoraLayer, given: tuple[int, int], own: tuple[int, int]
) -> None:
    if given != own:
        raise ValueError(
            f"{lora.file}: layer {layer.name} changes {given[0]} x {given[1]} numbers, and the base's layer "
            f"has {own[0]} x {own[1]}: this file is of another base"
        )


def _kin_size(layer: LoraLayer) -> tuple[int, int]:
    """Return height and width, flattened, of a LoHa's or LoKr's update."""

    def size(name: str) -> tuple[int, int]:
        if name in parts:
            return parts[name].shape[0], parts[name][0].numel()
        first, second = parts[f"{name}_a"], parts[f"{name}_b"]
        middle = parts.get(f"{name.replace('_w', '_t')}")
        if middle is None:
            return first.shape[0], second.shape[1]
        return first.shape[1], second.shape[1] * _product(middle.shape[2:])

    parts = layer.parts
    if layer.form == "loha":
        one, two = size("hada_w1"), size("hada_w2")
        return one if one == two else (0, 0)
    one, two = size("lokr_w1"), size("lokr_w2")
    return one[0] * two[0], one[1] * two[1]


def _product(sides: Any) -> int:
    total = 1
    for side in sides:
        total *= side
    return total


def _config(lora: LoraFile, network: str, form: Form, layers: Mapping[str, LoraLayer]) -> Any:
    """Return what peft builds these layers by."""
    import peft

    label = "lora_alpha" if form in {"lora", "dora"} else "alpha"
    rank, ranks = _common({path: layer.rank for path, layer in layers.items()})
    alpha, alphas = _common({path: layer.alpha for path, layer in layers.items()})
    settings: dict[str, Any] = {"r": rank, label: alpha, "rank_pattern": ranks, "alpha_pattern": alphas}
    settings["target_modules"] = sorted(layers)
    if form == "dora":
        settings["use_dora"] = True
    if label == "lora_alpha" and lora.is_rslora(network):
        settings["use_rslora"] = True
    if form == "lokr":
        settings |= {
            name: lora.config[f"{network}.{name}"] for name in REBUILT if f"{network}.{name}" in lora.config
        }
    return getattr(peft, CONFIGS[form])(**settings)


def _common(values: Mapping[str, float]) -> tuple[Any, dict[str, Any]]:
    """Return the most frequent value, and patterns of the layers that have another: one for each value."""
    paths: dict[float, list[str]] = defaultdict(list)
    for path, value in sorted(values.items()):
        paths[value].append(path)
    common = max(paths, key=lambda value: (len(paths[value]), -value))
    return _plain(common), {
        "^" + "$|^".join(path.replace(".", r"\.") for path in named): _plain(value)
        for value, named in sorted(paths.items())
        if value != common
    }


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _inject(network: Any, config: Any, tensors: "Mapping[str, Mapping[str, Tensor]]", adapter: str) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, network, adapter, low_cpu_mem_usage=True)
    network._hf_peft_config_loaded = True
    for path, parts in tensors.items():
        _fill(network.get_submodule(path), adapter, parts)
    network.set_adapter(adapter)


def _fill(layer: Any, adapter: str, parts: "Mapping[str, Tensor]") -> None:
    """Give an injected layer its numbers."""
    from torch.nn import Parameter

    lycoris = not any(name.endswith(".weight") for name in parts)
    for name in layer.adapter_layer_names if lycoris else ():  # where peft would have chosen other shapes
        chosen = getattr(layer, name)
        if adapter in chosen:
            del chosen[adapter]
    for name, tensor in parts.items():
        number = Parameter(tensor.clone(), requires_grad=False)
        if lycoris:
            getattr(layer, name)[adapter] = number
        else:
            getattr(layer, name.removesuffix(".weight"))[adapter].weight = number
    layer._move_adapter_to_device_of_base_layer(adapter)
