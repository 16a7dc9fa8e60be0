"""Adapter: a LoRA, DoRA, rsLoRA or LoKr inside a frozen base model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.families import Family

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

Kind = Literal["lora", "dora", "rslora", "lokr"]
CONFIGS: dict[Kind, tuple[str, dict[str, Any]]] = {  # peft's class and its settings
    "lora": ("LoraConfig", {}),
    "dora": ("LoraConfig", {"use_dora": True}),
    "rslora": ("LoraConfig", {"use_rslora": True}),
    "lokr": ("LoKrConfig", {}),
}

UNET: dict[str, tuple[str, ...]] = {"attention": ("to_k", "to_out.0", "to_q", "to_v")}
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
TEXT: dict[str, tuple[str, ...]] = {"attention": ("k_proj", "out_proj", "q_proj", "v_proj")}
TEXT["attention+conv"] = (*TEXT["attention"], "fc1", "fc2")
ALL_LINEAR = "all-linear"
"""Every linear layer of the blocks; a target outside the presets is a pattern for whole layer names."""

OUTSIDE_BLOCKS = r"(time_embedding|add_embedding|text_projection)(\..*)?"
"""Linear layers without a name in kohya's format that all readers know."""


@dataclass(frozen=True)
class LayerOverride:
    """Rank and learning rate of the layers whose name matches `pattern`, such as "unet.mid_block".

    Attributes:
        pattern: regular expression, searched for in the layer's name.
        rank: rank of these layers; None is the rank of the adapter.
        lr_scale: multiplier of the learning rate.
    """

    pattern: str
    rank: int | None
    lr_scale: float


@dataclass(frozen=True)
class AdapterSpec:
    """Specification of an adapter.

    Attributes:
        kind: adapter type, a key of `CONFIGS`.
        rank: rank of every layer without a rank in `layer_overrides`.
        alpha: the update is scaled by alpha / rank, or by alpha / sqrt(rank) for "rslora".
        target_modules: a preset, or a pattern for whole layer names.
        layer_overrides: overrides; the first that matches a layer's name applies.
    """

    kind: Kind
    rank: int
    alpha: float
    target_modules: str
    layer_overrides: tuple[LayerOverride, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """Adapter inside a base model's networks.

    Attributes:
        family: family of the base model.
        plan: specification of the adapter.
        modules: networks with adapter layers, by their names in the pipeline; "unet" first.
        configs: peft's settings that rebuild the adapter, by network.
    """

    family: Family
    plan: AdapterSpec
    modules: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]

    def parameters(self, module: str) -> "dict[str, Parameter]":
        """Return a network's trainable parameters by their names in files.

        Examples: "mid_block.attentions.0.proj_in.lora_A.weight" (rank, in), "...lokr_w1" (a, b).
        """
        parameters = self.modules[module].named_parameters()
        return {re.sub(r"\.default(?=\.|$)", "", name): p for name, p in parameters if p.requires_grad}

    def weights(self) -> "dict[str, Parameter]":
        """Return all trainable parameters, such as "unet.mid_block...": the network's name comes first."""
        return {f"{m}.{name}": p for m in self.modules for name, p in self.parameters(m).items()}

    def scales(self) -> dict[str, float]:
        """Return the scale of each layer's update, by names such as "unet.mid_block..."."""
        scales = {}
        for module, network in self.modules.items():
            for name, layer in network.named_modules():
                if "default" in getattr(layer, "scaling", {}):
                    scales[f"{module}.{name}"] = float(layer.scaling["default"])
        return scales

    def rate(self, name: str) -> float:
        """Return the learning rate multiplier of a parameter, named as in `weights`."""
        overrides = self.plan.layer_overrides
        return next((one.lr_scale for one in overrides if re.search(one.pattern, name)), 1.0)


def inject(base: BaseModel, plan: AdapterSpec, text: bool, seed: int) -> Adapter:
    """Inject an untrained adapter, whose update is zero, into the U-Net and optionally the text encoders.

    Args:
        base: base model, changed in place; its own weights stay frozen.
        plan: specification of the adapter.
        text: True also trains the text encoders.
        seed: seed of the initial matrices; torch's global generator does not change.

    Raises:
        ValueError: the targets, or the pattern of an override, match no layer.
    """
    import peft
    import torch

    networks = {"unet": base.unet, **(base.text_encoders if text else {})}
    configs = {name: _config(base, name, network, plan) for name, network in networks.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, network in networks.items():
            network.add_adapter(getattr(peft, CONFIGS[plan.kind][0])(**configs[name]))
    adapter = Adapter(base.family, plan, networks, configs)
    for parameter in adapter.weights().values():
        parameter.data = parameter.data.float()  # half precision would round small steps away
    for name in ("unet", *base.text_encoders):
        getattr(base.pipe, name).eval()
    for override in plan.layer_overrides:
        if not any(re.search(override.pattern, name) for name in adapter.weights()):
            raise ValueError(
                f"train_lora.layer_overrides: pattern {override.pattern!r} matches no trained layer"
            )
    return adapter


def from_loaded(base: BaseModel, layer_overrides: tuple[LayerOverride, ...] = ()) -> Adapter:
    """Return the LoRA that is loaded into a base model as an adapter for further training.

    Args:
        base: base model, whose pipeline has loaded a LoRA under the name "default".
        layer_overrides: learning rates of layers; the ranks are those of the LoRA.

    Raises:
        ValueError: the LoRA changes no layer of the U-Net, is a LoHa, or mixes forms.
    """
    networks = {"unet": base.unet, **base.text_encoders}
    loaded = {name: getattr(network, "peft_config", {}).get("default") for name, network in networks.items()}
    if loaded["unet"] is None:
        raise ValueError("this LoRA changes no layer of the base model's U-Net")
    if loaded["unet"].peft_type == "LOHA":
        raise ValueError("a LoHa cannot be trained further, only used and packaged: use a LoRA, DoRA or LoKr")
    _refuse_mixture(networks, loaded)
    configs = {name: _rebuild_settings(config) for name, config in loaded.items() if config is not None}
    first = configs["unet"]
    kind: Kind = "dora" if "use_dora" in first else "rslora" if "use_rslora" in first else "lora"
    kind = "lokr" if "alpha" in first else kind
    plan = AdapterSpec(
        kind, first["r"], float(first.get("alpha") or first["lora_alpha"]), "as loaded", layer_overrides
    )
    for name in configs:
        for label, parameter in networks[name].named_parameters():
            if ".lora_" in label or ".lokr_" in label:
                parameter.requires_grad_(True).data = parameter.data.float()
    return Adapter(base.family, plan, {name: networks[name] for name in configs}, configs)


def _refuse_mixture(networks: Mapping[str, "Module"], loaded: Mapping[str, Any]) -> None:
    """Raise ValueError unless one configuration of peft describes all layers of each network."""
    from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists

    others = [
        f"{name}.{path}"
        for name, network in networks.items()
        for path, layer in network.named_modules()
        if isinstance(layer, BaseTunerLayer)
        and not (
            loaded[name].peft_type == loaded["unet"].peft_type
            and check_target_module_exists(loaded[name], path)
        )
    ]
    if others:
        raise ValueError(
            f"a file that mixes forms of adapters cannot be trained further, only used and packaged: "
            f"{len(others)} layers differ from the rest, such as {others[0]}"
        )


REBUILD_SETTINGS = (
    "r", "alpha", "lora_alpha", "target_modules", "exclude_modules", "use_dora", "use_rslora", "rank_pattern",
    "alpha_pattern", "decompose_both", "decompose_factor", "use_effective_conv2d",
)  # fmt: skip
"""Settings of peft's configurations that rebuild an adapter."""


def _rebuild_settings(config: Any) -> dict[str, Any]:
    """Return the peft settings that rebuild a loaded LoRA, as JSON values."""
    settings = {name: value for name in REBUILD_SETTINGS if (value := getattr(config, name, None))}
    for name in {"alpha", "lora_alpha"} & settings.keys():
        settings[name] = _plain(settings[name])
    if not isinstance(settings["target_modules"], str):
        settings["target_modules"] = sorted(settings["target_modules"])
    return settings


def _config(base: BaseModel, name: str, network: Any, plan: AdapterSpec) -> dict[str, Any]:
    presets = UNET if name == "unet" else TEXT
    alpha_key = "alpha" if plan.kind == "lokr" else "lora_alpha"
    targets = presets.get(plan.target_modules)
    config: dict[str, Any] = {"r": plan.rank, alpha_key: _plain(plan.alpha), **CONFIGS[plan.kind][1]}
    config["target_modules"] = plan.target_modules if targets is None else list(targets)
    excluded = [OUTSIDE_BLOCKS] if plan.target_modules == ALL_LINEAR else []
    if base.family == "sdxl" and name == "text_encoder":
        # SDXL uses the output before this encoder's last layer: training that layer would change nothing
        excluded.append(rf".*\blayers\.{network.config.num_hidden_layers - 1}\..*")
    if excluded:
        config["exclude_modules"] = "|".join(excluded)
    ranks = {f"^{layer}": rank for layer, rank in _ranks(name, network, plan, config).items()}
    # the same scale for all updates
    alphas = {layer: _plain(plan.alpha * rank / plan.rank) for layer, rank in ranks.items()}
    return {**config, "rank_pattern": ranks, "alpha_pattern": alphas} if ranks else config


def _ranks(name: str, network: "Module", plan: AdapterSpec, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the ranks of the layers that `config` targets and whose override sets a rank."""
    import peft
    from peft.tuners.tuners_utils import check_target_module_exists
    from torch.nn import Linear

    peft_config = getattr(peft, CONFIGS[plan.kind][0])(**config)
    ranks = {}
    for layer, module in network.named_modules():
        override = next((b for b in plan.layer_overrides if re.search(b.pattern, f"{name}.{layer}")), None)
        if override is None or override.rank is None:
            continue
        if plan.target_modules == ALL_LINEAR:
            is_target = isinstance(module, Linear) and not re.fullmatch(peft_config.exclude_modules, layer)
        else:
            is_target = bool(check_target_module_exists(peft_config, layer))
        if is_target:
            ranks[layer] = override.rank
    return ranks


def _plain(number: float) -> float:
    """Return 8 for 8.0, because some readers of the metadata expect an integer."""
    return int(number) if number == int(number) else number
