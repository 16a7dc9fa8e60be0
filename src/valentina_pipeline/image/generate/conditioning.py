"""Texts of any length as the U-Net attends to them: in pieces that CLIP's encoders read, words weighted.

A text beyond the encoders' 75 tokens is read in pieces, whose embeddings follow each other, as A1111,
kohya's scripts and ComfyUI have it. Nothing is cut. SDXL's pooled embedding is that of the first piece.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from valentina_pipeline.image.generate.prompt_weights import BREAK, Words

PHRASE = 20
"""Tokens of the longest phrase that is kept in one piece, its comma included."""

Spelled = list[list[tuple[int, float]]]
"""The tokens of each piece with their weights, without those of its begin and its end."""


class Rows(NamedTuple):
    """Texts for one encoder.

    Attributes:
        ids: int64 (n, pieces, tokens): n texts, each piece with its begin, its end and padding.
        weights: float32 (n, pieces, tokens).
    """

    ids: Tensor
    weights: Tensor


def spell(tokenizer: Any, words: Words) -> Spelled:
    """Return the tokens of a text in pieces; phrases between commas stay together where they are short."""
    room = tokenizer.model_max_length - 2
    whole = [(token, w) for text, w in words if text != BREAK for token in _ids(tokenizer, text)]
    if len(whole) <= room and all(text != BREAK for text, _ in words):
        return [whole]
    pieces: Spelled = [[]]
    for phrase in _phrases(tokenizer, words):
        units = [phrase] if sum(map(len, phrase)) <= PHRASE else [[word] for word in phrase]
        if not phrase:
            pieces.append([])
        for unit in units:
            tokens = [token for word in unit for token in word]
            if len(pieces[-1]) + len(tokens) > room and pieces[-1]:
                pieces.append([])
            pieces[-1] += tokens[:room]
            pieces += [tokens[start : start + room] for start in range(room, len(tokens), room)]
    return [piece for piece in pieces if piece] or [[]]


def lay(tokenizer: Any, texts: Sequence[Spelled], pieces: int) -> Rows:
    """Return spelled texts as an encoder takes them, the shorter ones with empty pieces at their end."""
    room = tokenizer.model_max_length - 2
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids, weights = [], []
    for text in texts:
        for piece in [*text, *([[]] * (pieces - len(text)))]:
            blank = room - len(piece)
            ids.append([begin, *(token for token, _ in piece), end, *([pad] * blank)])
            weights.append([1.0, *(weight for _, weight in piece), *([1.0] * (blank + 1))])
    shape = len(texts), pieces, room + 2
    return Rows(torch.tensor(ids, dtype=torch.int64).view(shape), torch.tensor(weights).view(shape))


def encode(encoders: Sequence[Any], ids: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return what the U-Net attends to, as diffusers' pipelines make it of one piece.

    Args:
        encoders: one is SD 1.5's, two are SDXL's.
        ids: int64 (n, pieces, tokens) for each of them.

    Returns:
        (n, pieces * tokens, d), and for SDXL the pooled embedding (n, p) of the second encoder.
    """
    count, pieces, _ = ids[0].shape
    rows = [each.flatten(0, 1) for each in ids]
    if len(encoders) == 1:
        return _side_by_side(encoders[0](rows[0])[0], pieces), None
    outputs = [encoder(row, output_hidden_states=True) for encoder, row in zip(encoders, rows, strict=True)]
    context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return _side_by_side(context, pieces), outputs[1][0].view(count, pieces, -1)[:, 0]


def pad(contexts: Sequence[Tensor], blank: Tensor) -> Tensor:
    """Return contexts (1, tokens, d) as one (n, longest, d), the shorter ones with empty pieces behind.

    Args:
        contexts: of one text each.
        blank: (1, tokens of a piece, d) of the empty text.
    """
    longest = max(each.shape[1] for each in contexts)
    return torch.cat(
        [
            torch.cat([each, *([blank] * ((longest - each.shape[1]) // blank.shape[1]))], dim=1)
            for each in contexts
        ]
    )


def embed(pipe: Any, texts: Sequence[Sequence[Spelled]], pieces: int) -> tuple[Tensor, Tensor | None]:
    """Return what a pipeline's U-Net attends to for weighted texts; see `encode`.

    A weight moves a token's embedding away from that of the empty text, or, below 1, towards it.

    Args:
        pipe: its encoders may wait elsewhere, or be graphs of ONNX Runtime.
        texts: for each tokenizer, see `readings`.
        pieces: at least as many as the longest text has.
    """
    rows = [lay(tokenizer, each, pieces) for tokenizer, each in zip(_tokenizers(pipe), texts, strict=True)]
    blanks = [lay(tokenizer, [[[]]], pieces).ids for tokenizer in _tokenizers(pipe)]
    ids = [
        torch.cat([row.ids, blank]).to(pipe._execution_device)
        for row, blank in zip(rows, blanks, strict=True)
    ]
    context, pooled = encode(_encoders(pipe), ids)
    context, blank = context[:-1], context[-1:]
    weights = rows[0].weights.flatten(1)[..., None].to(context)
    weighted = torch.where(weights == 1, context, blank + (context - blank) * weights)
    return weighted, None if pooled is None else pooled[:-1]


def readings(pipe: Any, words: Words) -> list[Spelled]:
    """Return a text as each of a pipeline's tokenizers spells it, with all vectors of a learned word."""
    return [
        spell(each, [(pipe.maybe_convert_prompt(text, each), weight) for text, weight in words])
        for each in _tokenizers(pipe)
    ]


def _side_by_side(context: Tensor, pieces: int) -> Tensor:
    return context.reshape(-1, pieces * context.shape[1], context.shape[2])


def _phrases(tokenizer: Any, words: Words) -> Iterator[list[list[tuple[int, float]]]]:
    """Yield phrases with the tokens of each word: up to a comma or another weight; [] is a break.

    White space bounds tokens, so that words are spelled as in the whole text.
    """
    for text, weight in words:
        if text == BREAK:
            yield []
            continue
        phrase = []
        for word in text.split():
            phrase.append([(token, weight) for token in _ids(tokenizer, word)])
            if word.endswith(","):
                yield phrase
                phrase = []
        if phrase:
            yield phrase


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _tokenizers(pipe: Any) -> list[Any]:
    return [pipe.tokenizer, pipe.tokenizer_2] if hasattr(pipe, "tokenizer_2") else [pipe.tokenizer]


def _encoders(pipe: Any) -> list[Any]:
    return [pipe.text_encoder, pipe.text_encoder_2] if hasattr(pipe, "tokenizer_2") else [pipe.text_encoder]
