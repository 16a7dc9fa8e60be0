"""Textual inversion (Gal et al. 2022): new tokens whose embeddings alone are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.families import Family

FILE_KEYS: dict[Family, tuple[str, ...]] = {"sdxl": ("clip_l", "clip_g"), "sd15": ("emb_params",)}
"""Keys of the text encoders' embeddings in a file, as ComfyUI and the WebUIs read them."""


class ExtendedEmbedding(nn.Module):
    """Embedding table with additional rows at its end, the only ones that are trained."""

    def __init__(self, table: nn.Embedding, rows: Tensor) -> None:
        super().__init__()
        self.table = table
        self.rows = nn.Parameter(rows.float())

    @property
    def weight(self) -> Tensor:
        """Weights of the original table; the text encoder reads their device and dtype."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return embeddings (..., d) of token ids (...), old or new."""
        size = self.table.num_embeddings
        old = self.table(ids.clamp(max=size - 1))
        new = self.rows[(ids - size).clamp(min=0)].to(old.dtype)
        return torch.where(ids[..., None] >= size, new, old)


@dataclass(frozen=True)
class Tokens:
    """New tokens in a base model's tokenizers and text encoders.

    Attributes:
        family: family of the base model.
        names: names of the tokens, in diffusers' convention: trigger, trigger_1, ...
        rows: embeddings (n, d) by text encoder.
    """

    family: Family
    names: tuple[str, ...]
    rows: Mapping[str, nn.Parameter]

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name."""
        return {f"{encoder}.new_tokens": rows for encoder, rows in self.rows.items()}

    def expand_trigger(self, caption: str) -> str:
        """Replace the trigger word of the caption by its tokens."""
        return caption.replace(self.names[0], " ".join(self.names))

    def tensors(self) -> dict[str, Tensor]:
        """Return the embeddings by their keys in files, float32 (n, d) each."""
        keys = FILE_KEYS[self.family]
        return {key: rows.detach().cpu() for key, rows in zip(keys, self.rows.values(), strict=True)}


def add_tokens(base: BaseModel, trigger: str, like: str, count: int) -> Tokens:
    """Add tokens for `trigger` to a base model, initialized with the mean embedding of the words of `like`.

    Args:
        base: base model, changed in place; its own embeddings stay frozen.
        trigger: trigger word; the first token, followed by trigger_1, ...
        like: class word of the concept, such as "woman".
        count: number of tokens.

    Raises:
        ValueError: the vocabulary already contains the trigger word.
    """
    names = (trigger, *(f"{trigger}_{index}" for index in range(1, count)))
    rows = {}
    for tokenizer, (name, encoder) in zip(base.tokenizers, base.text_encoders.items(), strict=True):
        start = tokenizer(like, add_special_tokens=False, return_tensors="pt").input_ids[0]
        if tokenizer.add_tokens(list(names)) != count:
            raise ValueError(f"the vocabulary of {name} already contains {trigger!r}: choose another trigger")
        end_at_its_own_token(encoder, tokenizer)
        table = encoder.get_input_embeddings()
        mean = table.weight.detach()[start.to(table.weight.device)].float().mean(dim=0)
        extended = ExtendedEmbedding(table, mean.expand(count, -1).clone())
        _text_model(encoder).embeddings.token_embedding = extended
        rows[name] = extended.rows
    return Tokens(base.family, names, rows)


def end_at_its_own_token(encoder: Any, tokenizer: Any) -> None:
    """Make a text encoder find the end of the text by the tokenizer's end token.

    CLIP models configured before transformers 4.31 use the largest id instead, which is now a new token.
    """
    _text_model(encoder).eos_token_id = encoder.config.eos_token_id = tokenizer.eos_token_id


def _text_model(encoder: Any) -> Any:
    return getattr(encoder, "text_model", encoder)
