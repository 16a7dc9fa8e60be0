"""Training methods: the trainable weights of each, and the files it writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.lora.adapter import CONFIGS, AdapterSpec, LayerOverride, from_loaded, inject
from valentina_pipeline.image.lora.formats import AdapterMetadata, export_adapter, serialise
from valentina_pipeline.image.lora.loading import load_adapter
from valentina_pipeline.image.models.base_model import BaseModel

if TYPE_CHECKING:
    from torch.nn import Parameter

PIVOT = 0.5
"""Share of the steps after which pivotal tuning switches from tokens to LoRA (Roich et al. 2021)."""


@dataclass(frozen=True)
class Trainable:
    """Trainable weights of a method.

    Attributes:
        weights: parameters by name; each name begins with its network's name.
        rates: peak learning rate of each parameter, by the same names.
        spans: share of the steps in which each parameter is trained, by the same names.
        expand_trigger: replaces the trigger word in a caption by its trained tokens.
        files: returns the trained files, by relative path.
    """

    weights: "Mapping[str, Parameter]"
    rates: Mapping[str, float]
    spans: Mapping[str, tuple[float, float]]
    expand_trigger: Callable[[str], str]
    files: Callable[[AdapterMetadata], dict[str, bytes]]


def build_method(
    base: BaseModel, cfg: TrainConfig, trigger: str, like: str, seed: int, start: Path | None = None
) -> Trainable:
    """Prepare a base model for `cfg.method`.

    Args:
        base: base model, changed in place.
        cfg: effective parameters.
        trigger: trigger word of the concept.
        like: class word of the concept, such as "woman".
        seed: seed of the initial weights.
        start: LoRA to continue from; its kind, ranks and alpha replace those of `cfg`.
    """
    if cfg.method == "full":
        return _full_finetune(base, cfg)
    if cfg.method == "textual_inversion":
        return _tokens(base, cfg, trigger, like, (0.0, 1.0))
    if cfg.method == "pivotal":
        tokens = _tokens(base, cfg, trigger, like, (0.0, PIVOT))
        return _combine(tokens, _adapter(base, cfg, seed, (PIVOT, 1.0)))
    return _adapter(base, cfg, seed, (0.0, 1.0), start)


def _adapter(
    base: BaseModel, cfg: TrainConfig, seed: int, span: tuple[float, float], start: Path | None = None
) -> Trainable:
    overrides = tuple(
        LayerOverride(pattern, layers.rank, layers.lr_scale)
        for pattern, layers in cfg.layer_overrides.items()
    )
    if start is None:
        kind = cfg.method if cfg.method in CONFIGS else "lora"
        spec = AdapterSpec(kind, cfg.rank, cfg.alpha, cfg.target_modules, overrides)
        adapter = inject(base, spec, cfg.text_encoder_lr > 0, seed)
    else:
        load_adapter(base, start)
        adapter = from_loaded(base, overrides)
    weights = adapter.weights()
    rates = {name: _rate(name, cfg) * adapter.rate(name) for name in weights}
    half = cfg.precision != "fp32"
    return Trainable(
        weights,
        rates,
        dict.fromkeys(weights, span),
        str,
        lambda metadata: export_adapter(adapter, metadata, half, cfg.export_formats),
    )


def _tokens(
    base: BaseModel, cfg: TrainConfig, trigger: str, like: str, span: tuple[float, float]
) -> Trainable:
    from valentina_pipeline.image.lora.textual_inversion import add_tokens

    tokens = add_tokens(base, trigger, like, cfg.num_vectors)
    weights = tokens.weights()

    def files(metadata: AdapterMetadata) -> dict[str, bytes]:
        header = {"trigger": metadata.trigger, "base_sha256": metadata.base_sha256, "format": "pt"}
        return {f"{trigger}.embeddings.safetensors": serialise(tokens.tensors(), header)}

    rates = dict.fromkeys(weights, cfg.embedding_lr)
    return Trainable(weights, rates, dict.fromkeys(weights, span), tokens.expand_trigger, files)


def _full_finetune(base: BaseModel, cfg: TrainConfig) -> Trainable:
    import torch

    networks: dict[str, Any] = {"unet": base.unet}
    if cfg.text_encoder_lr > 0:
        networks |= base.text_encoders
    weights = {f"{n}.{name}": p for n, network in networks.items() for name, p in network.named_parameters()}
    for parameter in weights.values():
        parameter.data = parameter.data.float()  # half precision would round small steps away
    rates = {name: _rate(name, cfg) for name in weights}
    dtype = torch.float32 if cfg.precision == "fp32" else torch.float16

    def files(metadata: AdapterMetadata) -> dict[str, bytes]:
        header = {"trigger": metadata.trigger, "base_sha256": metadata.base_sha256, "format": "pt"}
        content = {}
        for name, network in networks.items():
            tensors = {key: value.detach().to("cpu", dtype) for key, value in network.state_dict().items()}
            content[f"{name}.safetensors"] = serialise(tensors, header)
        return content

    return Trainable(weights, rates, dict.fromkeys(weights, (0.0, 1.0)), str, files)


def _combine(first: Trainable, second: Trainable) -> Trainable:
    return Trainable(
        {**first.weights, **second.weights},
        {**first.rates, **second.rates},
        {**first.spans, **second.spans},
        lambda caption: second.expand_trigger(first.expand_trigger(caption)),
        lambda metadata: {**first.files(metadata), **second.files(metadata)},
    )


def _rate(name: str, cfg: TrainConfig) -> float:
    return cfg.learning_rate if name.startswith("unet.") else cfg.text_encoder_lr
