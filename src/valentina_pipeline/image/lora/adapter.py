"""What is trained: a LoRA, or one of its kin, inside a frozen base."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.families import Family

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

Kind = Literal["lora", "dora", "rslora", "lokr"]
CONFIGS: dict[Kind, tuple[str, dict[str, Any]]] = {  # peft's class, and what makes it this kind
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
"""Every linear layer of the blocks; a target that is no preset is a pattern for whole layer names."""

OUTSIDE_BLOCKS = r"(time_embedding|add_embedding|text_projection)(\..*)?"
"""Linear layers for which kohya's format has no name that all readers know."""


@dataclass(frozen=True)
class LayerOverride:
    """What is different in the layers whose name `pattern` is found in, such as "unet.mid_block".

    Attributes:
        pattern: a regular expression.
        rank: of these layers; None: as elsewhere.
        rate: times the learning rate.
    """

    pattern: str
    rank: int | None
    rate: float


@dataclass(frozen=True)
class AdapterSpec:
    """What to inject.

    Attributes:
        kind: which of peft's.
        rank: of every layer that no block has another for.
        alpha: the update is scaled by alpha / rank; by alpha / sqrt(rank) for "rslora".
        targets: a preset, or a pattern for whole layer names.
        blocks: the first that is found in a layer's name counts.
    """

    kind: Kind
    rank: int
    alpha: float
    targets: str
    blocks: tuple[LayerOverride, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """A LoRA, or one of its kin, inside a base's networks.

    Attributes:
        family: of the base.
        plan: what was injected.
        modules: the networks that carry it, by their names in the pipeline; "unet" first.
        configs: what peft needs to build each one again.
    """

    family: Family
    plan: AdapterSpec
    modules: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]

    def parameters(self, module: str) -> "dict[str, Parameter]":
        """Return a network's trainable parameters as files name them.

        Such as "mid_block.attentions.0.proj_in.lora_A.weight" (rank, in), "...lokr_w1" (a, b).
        """
        named = self.modules[module].named_parameters()
        return {re.sub(r"\.default(?=\.|$)", "", name): p for name, p in named if p.requires_grad}

    def weights(self) -> "dict[str, Parameter]":
        """Return all trainable parameters, named with their network's name before a dot."""
        return {f"{m}.{name}": p for m in self.modules for name, p in self.parameters(m).items()}

    def scales(self) -> dict[str, float]:
        """Return what each layer's update is multiplied by, by "unet.mid_block..."."""
        found = {}
        for module, network in self.modules.items():
            for name, layer in network.named_modules():
                if "default" in getattr(layer, "scaling", {}):
                    found[f"{module}.{name}"] = float(layer.scaling["default"])
        return found

    def rate(self, name: str) -> float:
        """Return how many times the learning rate a parameter, named as in `weights`, learns at."""
        return next((block.rate for block in self.plan.blocks if re.search(block.pattern, name)), 1.0)


def inject(base: BaseModel, plan: AdapterSpec, text: bool, seed: int) -> Adapter:
    """Put an untrained adapter, which changes nothing yet, into the U-Net and by option the text encoders.

    Args:
        base: changed in place; its own weights stay frozen.
        plan: what to inject.
        text: whether the text encoders are trained too.
        seed: of the initial matrices; torch's global generator is left as it was.

    Raises:
        ValueError: the targets, or a block's pattern, fit no layer.
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
        parameter.data = parameter.data.float()  # small steps would be lost in half precision
    for name in ("unet", *base.text_encoders):
        getattr(base.pipe, name).eval()
    for block in plan.blocks:
        if not any(re.search(block.pattern, name) for name in adapter.weights()):
            raise ValueError(f"train_lora.blocks: {block.pattern!r} is found in no layer that is trained")
    return adapter


def from_loaded(base: BaseModel, blocks: tuple[LayerOverride, ...] = ()) -> Adapter:
    """Return the LoRA that was loaded into a base, as one to go on training.

    Args:
        base: its pipeline has loaded a LoRA under the name "default".
        blocks: rates of their own; ranks are those of the LoRA.

    Raises:
        ValueError: it changes no layer of the U-Net, or is a LoHa.
    """
    networks = {"unet": base.unet, **base.text_encoders}
    loaded = {name: getattr(network, "peft_config", {}).get("default") for name, network in networks.items()}
    if loaded["unet"] is None:
        raise ValueError("this LoRA changes no layer of the U-Net that this base has")
    if loaded["unet"].peft_type == "LOHA":
        raise ValueError("a LoHa can be drawn with and packaged; trained on is a LoRA, DoRA or LoKr")
    configs = {name: _kept(config) for name, config in loaded.items() if config is not None}
    first = configs["unet"]
    kind: Kind = "dora" if "use_dora" in first else "rslora" if "use_rslora" in first else "lora"
    kind = "lokr" if "alpha" in first else kind
    plan = AdapterSpec(
        kind, first["r"], float(first.get("alpha") or first["lora_alpha"]), "as loaded", blocks
    )
    for name in configs:
        for label, parameter in networks[name].named_parameters():
            if ".lora_" in label or ".lokr_" in label:
                parameter.requires_grad_(True).data = parameter.data.float()
    return Adapter(base.family, plan, {name: networks[name] for name in configs}, configs)


KEPT = (
    "r", "alpha", "lora_alpha", "target_modules", "exclude_modules", "use_dora", "use_rslora", "rank_pattern",
    "alpha_pattern", "decompose_both", "decompose_factor", "use_effective_conv2d",
)  # fmt: skip
"""Settings of peft's configurations that tell how to build an adapter again."""


def _kept(config: Any) -> dict[str, Any]:
    """Return what peft needs to build a loaded LoRA again, as JSON."""
    kept = {name: value for name in KEPT if (value := getattr(config, name, None))}
    for name in {"alpha", "lora_alpha"} & kept.keys():
        kept[name] = _plain(kept[name])
    if not isinstance(kept["target_modules"], str):
        kept["target_modules"] = sorted(kept["target_modules"])
    return kept


def _config(base: BaseModel, name: str, network: Any, plan: AdapterSpec) -> dict[str, Any]:
    presets = UNET if name == "unet" else TEXT
    alpha_key = "alpha" if plan.kind == "lokr" else "lora_alpha"
    targets = presets.get(plan.targets)
    config: dict[str, Any] = {"r": plan.rank, alpha_key: _plain(plan.alpha), **CONFIGS[plan.kind][1]}
    config["target_modules"] = plan.targets if targets is None else list(targets)
    left_out = [OUTSIDE_BLOCKS] if plan.targets == ALL_LINEAR else []
    if base.family == "sdxl" and name == "text_encoder":
        # SDXL reads this encoder before its last layer: training that one would change nothing
        left_out.append(rf".*\blayers\.{network.config.num_hidden_layers - 1}\..*")
    if left_out:
        config["exclude_modules"] = "|".join(left_out)
    ranks = {f"^{layer}": rank for layer, rank in _ranks(name, network, plan, config).items()}
    # their updates keep the scale of the others
    alphas = {layer: _plain(plan.alpha * rank / plan.rank) for layer, rank in ranks.items()}
    return {**config, "rank_pattern": ranks, "alpha_pattern": alphas} if ranks else config


def _ranks(name: str, network: "Module", plan: AdapterSpec, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the layers, of those that `config` targets, for which a block has another rank."""
    import peft
    from peft.tuners.tuners_utils import check_target_module_exists
    from torch.nn import Linear

    targeted = getattr(peft, CONFIGS[plan.kind][0])(**config)
    found = {}
    for layer, module in network.named_modules():
        block = next((b for b in plan.blocks if re.search(b.pattern, f"{name}.{layer}")), None)
        if block is None or block.rank is None:
            continue
        if plan.targets == ALL_LINEAR:
            hit = isinstance(module, Linear) and not re.fullmatch(targeted.exclude_modules, layer)
        else:
            hit = bool(check_target_module_exists(targeted, layer))
        if hit:
            found[layer] = block.rank
    return found


def _plain(number: float) -> float:
    """Return 8 for 8.0: some readers of the metadata expect a whole number."""
    return int(number) if number == int(number) else number
