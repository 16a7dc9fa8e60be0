"""Text embeddings of prompts of any length, with weighted words.

As in A1111, kohya's scripts and ComfyUI, a text of more than 75 tokens is encoded in chunks and the
embeddings are concatenated. Nothing is truncated. SDXL's pooled embedding is that of the first chunk.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from valentina_pipeline.image.generate.prompt_weights import BREAK, Words

MAX_PHRASE_TOKENS = 20
"""Phrases of at most so many tokens, comma included, are not split between chunks."""

Spelled = list[list[tuple[int, float]]]
"""Tokens of each chunk with their weights, without the begin and end tokens."""


class Rows(NamedTuple):
    """Token ids of n texts for one text encoder.

    Attributes:
        ids: int64 (n, chunks, tokens), with begin token, end token and padding.
        weights: weights of the tokens, float32 (n, chunks, tokens).
    """

    ids: Tensor
    weights: Tensor


def spell(tokenizer: Any, words: Words) -> Spelled:
    """Return the tokens of a text in chunks; short phrases between commas stay in one chunk."""
    capacity = tokenizer.model_max_length - 2
    all_tokens = [(token, w) for text, w in words if text != BREAK for token in _ids(tokenizer, text)]
    if len(all_tokens) <= capacity and all(text != BREAK for text, _ in words):
        return [all_tokens]
    chunks: Spelled = [[]]
    for phrase in _phrases(tokenizer, words):
        units = [phrase] if sum(map(len, phrase)) <= MAX_PHRASE_TOKENS else [[word] for word in phrase]
        if not phrase:
            chunks.append([])
        for unit in units:
            tokens = [token for word in unit for token in word]
            if len(chunks[-1]) + len(tokens) > capacity and chunks[-1]:
                chunks.append([])
            chunks[-1] += tokens[:capacity]
            chunks += [tokens[start : start + capacity] for start in range(capacity, len(tokens), capacity)]
    return [chunk for chunk in chunks if chunk] or [[]]


def lay(tokenizer: Any, texts: Sequence[Spelled], chunks: int) -> Rows:
    """Return token ids for a text encoder; pad texts to `chunks` chunks with empty ones."""
    capacity = tokenizer.model_max_length - 2
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids, weights = [], []
    for text in texts:
        for chunk in [*text, *([[]] * (chunks - len(text)))]:
            blank = capacity - len(chunk)
            ids.append([begin, *(token for token, _ in chunk), end, *([pad] * blank)])
            weights.append([1.0, *(weight for _, weight in chunk), *([1.0] * (blank + 1))])
    shape = len(texts), chunks, capacity + 2
    return Rows(torch.tensor(ids, dtype=torch.int64).view(shape), torch.tensor(weights).view(shape))


def encode(encoders: Sequence[Any], ids: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return text embeddings as diffusers' pipelines compute them for one chunk.

    Args:
        encoders: text encoders: one for SD 1.5, two for SDXL.
        ids: int64 (n, chunks, tokens) for each text encoder.

    Returns:
        (n, chunks * tokens, d), and for SDXL the pooled embedding (n, p) of the second encoder.
    """
    count, chunks, _ = ids[0].shape
    rows = [encoder_ids.flatten(0, 1) for encoder_ids in ids]
    if len(encoders) == 1:
        return _side_by_side(encoders[0](rows[0])[0], chunks), None
    outputs = [encoder(row, output_hidden_states=True) for encoder, row in zip(encoders, rows, strict=True)]
    context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return _side_by_side(context, chunks), outputs[1][0].view(count, chunks, -1)[:, 0]


def pad(contexts: Sequence[Tensor], blank: Tensor) -> Tensor:
    """Return text embeddings (1, tokens, d) as one (n, most tokens, d), padded with empty chunks.

    Args:
        contexts: embeddings of one text each.
        blank: embedding of the empty text (1, tokens of a chunk, d).
    """
    length = max(context.shape[1] for context in contexts)
    return torch.cat(
        [
            torch.cat([context, *([blank] * ((length - context.shape[1]) // blank.shape[1]))], dim=1)
            for context in contexts
        ]
    )


def embed(pipe: Any, texts: Sequence[Sequence[Spelled]], chunks: int) -> tuple[Tensor, Tensor | None]:
    """Return text embeddings of weighted texts; see `encode`.

    A weight above 1 moves a token's embedding away from the empty text's, a weight below 1 towards it.

    Args:
        pipe: pipeline; its text encoders may be offloaded, or be graphs of ONNX Runtime.
        texts: texts for each tokenizer, see `readings`.
        chunks: number of chunks, at least as many as the longest text has.
    """
    tokenizers = _tokenizers(pipe)
    rows = [lay(tokenizer, spelled, chunks) for tokenizer, spelled in zip(tokenizers, texts, strict=True)]
    blanks = [lay(tokenizer, [[[]]], chunks).ids for tokenizer in tokenizers]
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
    """Return the tokens of a text for each of a pipeline's tokenizers, with all tokens of a trained word."""
    return [
        spell(tokenizer, [(pipe.maybe_convert_prompt(text, tokenizer), weight) for text, weight in words])
        for tokenizer in _tokenizers(pipe)
    ]


def _side_by_side(context: Tensor, chunks: int) -> Tensor:
    return context.reshape(-1, chunks * context.shape[1], context.shape[2])


def _phrases(tokenizer: Any, words: Words) -> Iterator[list[list[tuple[int, float]]]]:
    """Yield phrases as tokens by word; a phrase ends at a comma or a change of weight, and [] is a BREAK.

    No token spans white space, so that the tokens are the same as for the whole text.
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
