"""What each method trains in a base, and the files that come of it."""

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
"""Share of the steps after which pivotal tuning goes from the tokens to the LoRA (Roich et al. 2021)."""


@dataclass(frozen=True)
class Trainable:
    """What is trained.

    Attributes:
        weights: by names that begin with their network's.
        rates: the peak learning rate of each.
        spans: by the same names: in which share of the steps each learns.
        expand_trigger: a caption as the tokenizers are to see it.
        files: what came of it, by relative path.
    """

    weights: "Mapping[str, Parameter]"
    rates: Mapping[str, float]
    spans: Mapping[str, tuple[float, float]]
    expand_trigger: Callable[[str], str]
    files: Callable[[AdapterMetadata], dict[str, bytes]]


def build_method(
    base: BaseModel, cfg: TrainConfig, trigger: str, like: str, seed: int, start: Path | None = None
) -> Trainable:
    """Make a base ready for `cfg.method`.

    Args:
        base: changed in place.
        cfg: the effective parameters.
        trigger: the word that calls the concept.
        like: what it is, such as "woman".
        seed: of initial weights.
        start: a LoRA to go on from: its kind, ranks and alpha count, not those of `cfg`.
    """
    if cfg.method == "full":
        return _whole(base, cfg)
    if cfg.method == "textual_inversion":
        return _tokens(base, cfg, trigger, like, (0.0, 1.0))
    if cfg.method == "pivotal":
        tokens = _tokens(base, cfg, trigger, like, (0.0, PIVOT))
        return _both(tokens, _adapter(base, cfg, seed, (PIVOT, 1.0)))
    return _adapter(base, cfg, seed, (0.0, 1.0), start)


def _adapter(
    base: BaseModel, cfg: TrainConfig, seed: int, span: tuple[float, float], start: Path | None = None
) -> Trainable:
    blocks = tuple(LayerOverride(pattern, each.rank, each.rate) for pattern, each in cfg.blocks.items())
    if start is None:
        kind = cfg.method if cfg.method in CONFIGS else "lora"
        plan = AdapterSpec(kind, cfg.rank, cfg.alpha, cfg.targets, blocks)
        adapter = inject(base, plan, cfg.text_encoder_learning_rate > 0, seed)
    else:
        load_adapter(base, start)
        adapter = from_loaded(base, blocks)
    weights = adapter.weights()
    rates = {name: _rate(name, cfg) * adapter.rate(name) for name in weights}
    half = cfg.precision != "fp32"
    return Trainable(
        weights,
        rates,
        dict.fromkeys(weights, span),
        str,
        lambda notes: export_adapter(adapter, notes, half, cfg.formats),
    )


def _tokens(
    base: BaseModel, cfg: TrainConfig, trigger: str, like: str, span: tuple[float, float]
) -> Trainable:
    from valentina_pipeline.image.lora.textual_inversion import add_tokens

    tokens = add_tokens(base, trigger, like, cfg.vectors)
    weights = tokens.weights()

    def files(notes: AdapterMetadata) -> dict[str, bytes]:
        about = {"trigger": notes.trigger, "base_sha256": notes.base_sha256, "format": "pt"}
        return {f"{trigger}.embeddings.safetensors": serialise(tokens.tensors(), about)}

    rates = dict.fromkeys(weights, cfg.embedding_learning_rate)
    return Trainable(weights, rates, dict.fromkeys(weights, span), tokens.expand_trigger, files)


def _whole(base: BaseModel, cfg: TrainConfig) -> Trainable:
    import torch

    networks: dict[str, Any] = {"unet": base.unet}
    if cfg.text_encoder_learning_rate > 0:
        networks |= base.text_encoders
    weights = {f"{n}.{name}": p for n, network in networks.items() for name, p in network.named_parameters()}
    for parameter in weights.values():
        parameter.data = parameter.data.float()  # small steps would be lost in half precision
    rates = {name: _rate(name, cfg) for name in weights}
    dtype = torch.float32 if cfg.precision == "fp32" else torch.float16

    def files(notes: AdapterMetadata) -> dict[str, bytes]:
        about = {"trigger": notes.trigger, "base_sha256": notes.base_sha256, "format": "pt"}
        content = {}
        for name, network in networks.items():
            tensors = {key: value.detach().to("cpu", dtype) for key, value in network.state_dict().items()}
            content[f"{name}.safetensors"] = serialise(tensors, about)
        return content

    return Trainable(weights, rates, dict.fromkeys(weights, (0.0, 1.0)), str, files)


def _both(one: Trainable, other: Trainable) -> Trainable:
    return Trainable(
        {**one.weights, **other.weights},
        {**one.rates, **other.rates},
        {**one.spans, **other.spans},
        lambda caption: other.expand_trigger(one.expand_trigger(caption)),
        lambda notes: {**one.files(notes), **other.files(notes)},
    )


def _rate(name: str, cfg: TrainConfig) -> float:
    return cfg.learning_rate if name.startswith("unet.") else cfg.text_encoder_learning_rate
