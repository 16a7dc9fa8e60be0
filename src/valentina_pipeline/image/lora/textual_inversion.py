"""New tokens of a vocabulary, whose embeddings alone are learned (Gal et al. 2022, textual inversion)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.models.families import Family

FILE_KEYS: dict[Family, tuple[str, ...]] = {"sdxl": ("clip_l", "clip_g"), "sd15": ("emb_params",)}
"""Names of the text encoders' embeddings in a file, as ComfyUI and the WebUIs read them."""


class ExtendedEmbedding(nn.Module):
    """An embedding table with further rows at its end, which alone are trained."""

    def __init__(self, table: nn.Embedding, rows: Tensor) -> None:
        super().__init__()
        self.table = table
        self.rows = nn.Parameter(rows.float())

    @property
    def weight(self) -> Tensor:
        """The table's own weights, whose device and dtype the text encoder asks for."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., d) of token ids (...), of the table or behind it."""
        size = self.table.num_embeddings
        known = self.table(ids.clamp(max=size - 1))
        new = self.rows[(ids - size).clamp(min=0)].to(known.dtype)
        return torch.where(ids[..., None] >= size, new, known)


@dataclass(frozen=True)
class Tokens:
    """New tokens in a base's tokenizers and text encoders.

    Attributes:
        family: of the base.
        names: of the tokens: the trigger, trigger_1, ...: as diffusers names the vectors of one word.
        rows: their embeddings (n, d) by text encoder.
    """

    family: Family
    names: tuple[str, ...]
    rows: Mapping[str, nn.Parameter]

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name."""
        return {f"{encoder}.new_tokens": rows for encoder, rows in self.rows.items()}

    def expand_trigger(self, caption: str) -> str:
        """Return the caption with all of the tokens where the trigger stands."""
        return caption.replace(self.names[0], " ".join(self.names))

    def tensors(self) -> dict[str, Tensor]:
        """Return the embeddings as files name them, float32 (n, d) each."""
        keys = FILE_KEYS[self.family]
        return {key: rows.detach().cpu() for key, rows in zip(keys, self.rows.values(), strict=True)}


def add_tokens(base: BaseModel, trigger: str, like: str, count: int) -> Tokens:
    """Add tokens for `trigger` to a base, each beginning as the mean embedding of the words of `like`.

    Args:
        base: changed in place; its own embeddings stay frozen.
        trigger: becomes one token, and further ones behind it.
        like: what the concept is, such as "woman".
        count: of tokens.

    Raises:
        ValueError: the vocabulary has the trigger already.
    """
    names = (trigger, *(f"{trigger}_{index}" for index in range(1, count)))
    rows = {}
    for tokenizer, (name, encoder) in zip(base.tokenizers, base.text_encoders.items(), strict=True):
        start = tokenizer(like, add_special_tokens=False, return_tensors="pt").input_ids[0]
        if tokenizer.add_tokens(list(names)) != count:
            raise ValueError(f"the vocabulary of {name} knows {trigger!r} already: choose another trigger")
        end_at_its_own_token(encoder, tokenizer)
        table = encoder.get_input_embeddings()
        mean = table.weight.detach()[start.to(table.weight.device)].float().mean(dim=0)
        grown = ExtendedEmbedding(table, mean.expand(count, -1).clone())
        _text_model(encoder).embeddings.token_embedding = grown
        rows[name] = grown.rows
    return Tokens(base.family, names, rows)


def end_at_its_own_token(encoder: Any, tokenizer: Any) -> None:
    """Have a text encoder find the end of the text by its id.

    CLIPs configured before transformers 4.31 take the largest id for it, which a new token now has.
    """
    _text_model(encoder).eos_token_id = encoder.config.eos_token_id = tokenizer.eos_token_id


def _text_model(encoder: Any) -> Any:
    return getattr(encoder, "text_model", encoder)
