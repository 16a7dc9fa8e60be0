"""Load LoRA files into a base model's networks with peft, all layers of a file or none."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.image.lora.layer_names import one_name, split_layer, summarize_names
from valentina_pipeline.image.lora.reader import Form, LoraFile, LoraLayer, group_by_form, read_lora
from valentina_pipeline.image.lora.unet_names import layout_of
from valentina_pipeline.image.models.base_model import BaseModel

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

CONFIGS: Mapping[Form, str] = {
    "lora": "LoraConfig", "dora": "LoraConfig", "loha": "LoHaConfig", "lokr": "LoKrConfig",
}  # fmt: skip
LOKR_SETTINGS = ("decompose_both", "decompose_factor", "use_effective_conv2d")
"""Settings of peft's LoKr that determine the shapes of its tensors."""


def load_lora(base: BaseModel, file: Path, adapter: str) -> None:
    """Load all layers of an adapter file into a base model.

    Args:
        base: base model, changed in place; unchanged if the file does not fit.
        file: file or folder, see `read_lora`.
        adapter: adapter name in peft.

    Raises:
        ValueError: the file is not a LoRA, or the base model lacks one of its layers; the message names both.
    """
    lora = read_lora(file, layout_of(base.unet.config).size)
    groups = [
        (network, form, layers, _reshape_layers(base, lora, network, layers))
        for network, found in _locate_layers(base, lora).items()
        for form, layers in group_by_form(lora, network, found).items()
    ]
    for network, form, layers, tensors in groups:
        # layers are injected form by form under one name: peft's configuration has one form
        _inject(getattr(base.pipe, network), _config(lora, network, form, layers), tensors, adapter)


def _locate_layers(base: BaseModel, lora: LoraFile) -> dict[str, dict[str, LoraLayer]]:
    """Return the file's layers by network and by path in the network."""
    size = layout_of(base.unet.config).size
    places = {}
    for network in ("unet", *base.text_encoders):
        for path in _targets(getattr(base.pipe, network)):
            places[one_name(split_layer(f"{network}.{path}"), size)] = (network, path)
    if unknown := [layer.name for key, layer in lora.layers.items() if key not in places]:
        raise ValueError(
            f"{lora.file}: the {base.family} base model has no layer for {len(unknown)} of the "
            f"{len(lora.layers)} in the file: {summarize_names(unknown)}"
        )
    found: dict[str, dict[str, LoraLayer]] = defaultdict(dict)
    for key, layer in lora.layers.items():
        network, path = places[key]
        found[network][path] = layer
    return dict(found)


def _targets(network: Any) -> "dict[str, Module]":
    """Return the linear layers and convolutions of a network by path, without adapters around them."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Conv2d, Linear

    found: dict[str, Module] = {}
    wrapped: list[str] = []
    for path, module in network.named_modules():
        if any(path.startswith(f"{outer}.") for outer in wrapped[-1:]):
            continue
        layer = module
        if isinstance(module, BaseTunerLayer):
            wrapped.append(path)
            layer = module.get_base_layer()
        if isinstance(layer, Linear | Conv2d):
            found[path] = layer
    return found


def _reshape_layers(
    base: BaseModel, lora: LoraFile, network: str, layers: Mapping[str, LoraLayer]
) -> "dict[str, dict[str, Tensor]]":
    targets = _targets(getattr(base.pipe, network))
    return {path: _reshape_layer(lora, layer, targets[path]) for path, layer in layers.items()}


def _reshape_layer(lora: LoraFile, layer: LoraLayer, target: Any) -> "dict[str, Tensor]":
    """Return a layer's tensors in peft's shapes.

    Raises:
        ValueError: the tensors do not fit the base model's layer `target`.
    """
    kernel = tuple(getattr(target, "kernel_size", ()))
    if kernel:
        inputs, outputs = target.in_channels, target.out_channels
    else:
        inputs, outputs = target.in_features, target.out_features
    target_size = outputs, inputs * _product(kernel)
    parts = dict(layer.parts)
    if layer.form in {"loha", "lokr"}:
        _refuse_other_size(lora, layer, _lycoris_size(layer), target_size)
        return parts
    down, up = parts["lora_A"], parts["lora_B"]
    _refuse_other_size(lora, layer, (up.shape[0] * _product(up.shape[2:]), down[0].numel()), target_size)
    shaped = {
        "lora_A.weight": down.reshape(layer.parts["lora_A"].shape[0], inputs, *kernel),
        "lora_B.weight": up.reshape(outputs, -1, *[1] * len(kernel)),
    }
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if magnitude is not None:
        # LyCORIS may normalize by input, shape (1, in, ...), which peft does not support
        by_input = "dora_scale" in parts and magnitude.ndim > 1 and len(magnitude) != outputs
        if by_input or magnitude.numel() != outputs:
            raise ValueError(
                f"{lora.file}: the magnitudes of layer {layer.name} have shape {tuple(magnitude.shape)}; "
                f"must be one for each of its {outputs} outputs"
            )
        shaped["lora_magnitude_vector.weight"] = magnitude.reshape(
            *([1, outputs, 1, 1] if kernel else [outputs])
        )
    return shaped


def _refuse_other_size(
    lora: LoraFile, layer: LoraLayer, size: tuple[int, int], target_size: tuple[int, int]
) -> None:
    if size != target_size:
        raise ValueError(
            f"{lora.file}: layer {layer.name} is {size[0]} x {size[1]}, but the base model's layer is "
            f"{target_size[0]} x {target_size[1]}: the LoRA belongs to another base model"
        )


def _lycoris_size(layer: LoraLayer) -> tuple[int, int]:
    """Return outputs and flattened inputs of a LoHa's or LoKr's update."""

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
    """Return peft's configuration for these layers."""
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
            name: lora.config[f"{network}.{name}"]
            for name in LOKR_SETTINGS
            if f"{network}.{name}" in lora.config
        }
    return getattr(peft, CONFIGS[form])(**settings)


def _common(values: Mapping[str, float]) -> tuple[Any, dict[str, Any]]:
    """Return the most frequent value, and for each other value one pattern of its layers."""
    paths: dict[float, list[str]] = defaultdict(list)
    for path, value in sorted(values.items()):
        paths[value].append(path)
    common = max(paths, key=lambda value: (len(paths[value]), -value))
    return _plain(common), {
        "^" + "$|^".join(path.replace(".", r"\.") for path in layers): _plain(value)
        for value, layers in sorted(paths.items())
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
    """Set the weights of an injected layer."""
    from torch.nn import Parameter

    lycoris = not any(name.endswith(".weight") for name in parts)
    for name in layer.adapter_layer_names if lycoris else ():  # peft may have created other shapes
        created = getattr(layer, name)
        if adapter in created:
            del created[adapter]
    for name, tensor in parts.items():
        parameter = Parameter(tensor.clone(), requires_grad=False)
        if lycoris:
            getattr(layer, name)[adapter] = parameter
        else:
            getattr(layer, name.removesuffix(".weight"))[adapter].weight = parameter
    layer._move_adapter_to_device_of_base_layer(adapter)
