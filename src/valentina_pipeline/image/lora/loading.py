"""Load the trained files of any method into a base model."""

from pathlib import Path
from typing import Any

from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.image.lora.formats import read_metadata
from valentina_pipeline.image.lora.injection import load_lora
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.offload import fully_loaded

EMBEDDINGS = "*.embeddings.safetensors"


def load_pipeline(base: BaseModel, learned: Path | None = None) -> Any:
    """Return the base model's pipeline, ready to generate, with the trained weights of `learned` if given.

    Weights that were loaded before are unloaded first. `learned` is one LoRA file, or train_lora's folder.
    """
    with fully_loaded(base.pipe, base.placement):
        _unload(base)
        if learned is not None:
            _load(base, learned)
    return base.pipe


def parts(adapter: Path) -> list[Path]:
    """Return the files of an adapter: the file itself, or all files of a folder in peft's layout, sorted."""
    return [adapter] if adapter.is_file() else sorted(file for file in adapter.rglob("*") if file.is_file())


def load_adapter(base: BaseModel, file: Path, name: str = "default") -> None:
    """Load a LoRA, DoRA, LoHa or LoKr into a base model, in addition to the adapters that it already has.

    Args:
        base: base model, changed in place; unchanged if it lacks a layer of the file.
        file: file of any tool that lora/layer_names.py supports; or a folder in peft's layout, of the U-Net
            or with a folder for each network.
        name: adapter name in peft.

    Raises:
        ValueError: the file is not an adapter, or belongs to another base model; the message names the file
            and its layers.
    """
    with fully_loaded(base.pipe, base.placement):
        load_lora(base, file, name)


def unload_adapter(base: BaseModel, name: str) -> None:
    """Remove an adapter from a base model, even if it was only partly loaded."""
    with fully_loaded(base.pipe, base.placement):
        base.pipe.delete_adapters(name)


def _load(base: BaseModel, learned: Path) -> None:
    if learned.is_file():
        load_lora(base, learned, "default")
        return
    for name in ("unet", *base.text_encoders):
        if (learned / f"{name}.safetensors").is_file():
            _replace(base, name, learned / f"{name}.safetensors")
    for file in learned.glob(EMBEDDINGS):
        _load_tokens(base, file)
    if (learned / LORA_FILE).is_file():
        load_lora(base, learned / LORA_FILE, "default")


def _load_tokens(base: BaseModel, file: Path) -> None:
    from safetensors.torch import load_file

    from valentina_pipeline.image.lora.textual_inversion import FILE_KEYS, end_at_its_own_token

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
