"""A base with what was learned: any method's files, read back by the libraries' own readers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.domain.content import LORA
from valentina_pipeline.image.base import BaseModel, quiet
from valentina_pipeline.image.lora_files import evenly_scaled, read_metadata
from valentina_pipeline.image.offload import whole

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDINGS = "*.embeddings.safetensors"


def pipeline(base: BaseModel, learned: Path | None = None) -> Any:
    """Return the base's pipeline, ready to draw: bare, or with what was learned.

    What was loaded before is unloaded first. `learned` is one LoRA file, or train_lora's folder.
    """
    with whole(base.pipe, base.placement):
        _unload(base)
        if learned is not None:
            _load(base, learned)
    return base.pipe


def parts(adapter: Path) -> list[Path]:
    """Return the files of an adapter: itself, or in peft's layout those of its folder, sorted."""
    return [adapter] if adapter.is_file() else sorted(file for file in adapter.rglob("*") if file.is_file())


def load_adapter(base: BaseModel, file: Path, name: str = "default") -> None:
    """Load a LoRA, DoRA or LoKr into a base, beside those that are in it.

    Args:
        base: changed in place.
        file: in diffusers' format, or a LoRA or DoRA in kohya's; or a folder in peft's layout, of the U-Net
            or with a folder for each network.
        name: what peft knows it by.

    Raises:
        ValueError: it is no safetensors file, or not of this base.
    """
    with whole(base.pipe, base.placement):
        _load_adapter(base, file, name)


def unload_adapter(base: BaseModel, name: str) -> None:
    """Take an adapter out of a base; of one that was loaded in part, what there is."""
    with whole(base.pipe, base.placement):
        base.pipe.delete_adapters(name)


def _load(base: BaseModel, learned: Path) -> None:
    if learned.is_file():
        _load_adapter(base, learned)
        return
    for name in ("unet", *base.text_encoders):
        if (learned / f"{name}.safetensors").is_file():
            _replace(base, name, learned / f"{name}.safetensors")
    for file in learned.glob(EMBEDDINGS):
        _load_tokens(base, file)
    if (learned / LORA).is_file():
        _load_adapter(base, learned / LORA)


def _load_adapter(base: BaseModel, file: Path, name: str = "default") -> None:
    from safetensors.torch import load_file

    if file.is_dir():
        _load_peft(base, file, name)
        return
    metadata = read_metadata(file)
    with quiet():
        if "lokr" in metadata.get("method", ""):
            _load_lokr(base, file, name)
        elif "lora_adapter_metadata" in metadata:  # which is read from files only
            base.pipe.load_lora_weights(
                file.parent, weight_name=file.name, use_safetensors=True, adapter_name=name
            )
        else:
            base.pipe.load_lora_weights(evenly_scaled(load_file(file)), adapter_name=name)


def _load_lokr(base: BaseModel, file: Path, adapter: str) -> None:
    """Load a LoKr, which diffusers' models read and its pipelines for SDXL and SD 1.5 refuse."""
    from peft import LoKrConfig
    from safetensors.torch import load_file

    tensors, configs = load_file(file), json.loads(read_metadata(file)["lora_adapter_metadata"])
    for name in ("unet", *base.text_encoders):
        if config := _below(configs, name):
            _inject(base, name, adapter, LoKrConfig(**config), _below(tensors, name), file)


def _load_peft(base: BaseModel, folder: Path, adapter: str) -> None:
    from peft import PeftConfig
    from safetensors.torch import load_file

    networks = {name: folder / name for name in ("unet", *base.text_encoders) if (folder / name).is_dir()}
    for name, place in (networks or {"unet": folder}).items():
        file = place / "adapter_model.safetensors"
        if not file.is_file() or not (place / "adapter_config.json").is_file():
            raise ValueError(f"{place} is no adapter of peft's: adapter_config.json and {file.name} make one")
        tensors = {key.removeprefix("base_model.model."): value for key, value in load_file(file).items()}
        _inject(base, name, adapter, PeftConfig.from_pretrained(str(place)), tensors, file)


def _inject(
    base: BaseModel, name: str, adapter: str, config: Any, tensors: "dict[str, Tensor]", file: Path
) -> None:
    """Put an adapter into one network, by peft itself."""
    from peft import set_peft_model_state_dict

    network = getattr(base.pipe, name)
    if not hasattr(network, "text_model"):  # as transformers names them since version 5
        tensors = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    network.add_adapter(config, adapter)
    read: Any = set_peft_model_state_dict(network, tensors, adapter)
    if strange := read.unexpected_keys:
        raise ValueError(f"{file}: the base's {name} has no layer for {len(strange)} tensors: {strange[0]}")


def _load_tokens(base: BaseModel, file: Path) -> None:
    from safetensors.torch import load_file

    from valentina_pipeline.image.tokens import FILE_KEYS, end_at_its_own_token

    trigger, tensors = read_metadata(file)["trigger"], load_file(file)
    keys = FILE_KEYS[base.family]
    for key, tokenizer, encoder in zip(keys, base.tokenizers, base.text_encoders.values(), strict=True):
        end_at_its_own_token(encoder, tokenizer)
        base.pipe.load_textual_inversion(
            tensors[key], token=trigger, text_encoder=encoder, tokenizer=tokenizer
        )


def _replace(base: BaseModel, name: str, file: Path) -> None:
    from safetensors.torch import load_file

    network = getattr(base.pipe, name)
    base.replaced[name] = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(load_file(file))


def _unload(base: BaseModel) -> None:
    base.pipe.unload_lora_weights()
    for tokenizer, encoder in zip(base.tokenizers, base.text_encoders.values(), strict=True):
        if len(tokenizer) > tokenizer.vocab_size:
            base.pipe.unload_textual_inversion(text_encoder=encoder, tokenizer=tokenizer)
    for name in list(base.replaced):
        getattr(base.pipe, name).load_state_dict(base.replaced.pop(name))


def _below(values: "dict[str, Any] | dict[str, Tensor]", name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): v for key, v in values.items() if key.startswith(f"{name}.")}
