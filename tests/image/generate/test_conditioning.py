"""PromptEmbedCache beyond the encoders' 75 tokens, and weighted words: in training as in drawing."""

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_bases
from valentina_pipeline.image.generate.conditioning import embed, readings, spell
from valentina_pipeline.image.generate.generate import ImageSpec, generate_images
from valentina_pipeline.image.generate.prompt_weights import parse
from valentina_pipeline.image.lora.textual_inversion import add_tokens
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.train.encoding import PromptEmbedCache, encode_prompt, tokenize

LONG = ", ".join(["a sunny beach at the sea", "a red dress", "soft light", "a straw hat", "two boats"] * 6)
"""Some 130 tokens."""

FAMILIES = pytest.mark.parametrize("family", ["sdxl", "sd15"])


def drawn(base: BaseModel, *requests: ImageSpec) -> list[np.ndarray]:
    images: list[Image.Image] = generate_images(
        base.pipe, requests, steps=2, guidance=4.0, size=tiny_bases.SIZE
    )
    return [np.asarray(image).astype(int) for image in images]


@FAMILIES
def test_what_fits_is_read_as_the_pipeline_reads_it(family: str) -> None:
    base = tiny_bases.loaded(family)
    captions = ["a woman", "", "photo of (a woman:1.3), what's 12 \n x", ", ".join(["sea"] * 37)]
    (ids, *_), (tokenizer, *_) = tokenize(base, captions), base.tokenizers
    own = tokenizer(
        captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids
    assert ids.shape == (4, 1, 77)
    torch.testing.assert_close(ids[:, 0], own, rtol=0, atol=0)


def test_a_long_text_is_read_to_its_end_and_phrases_stay_whole() -> None:
    tokenizer = tiny_bases.tokenizer()
    pieces = spell(tokenizer, [(f"{LONG}, valentina_moreau woman smiling", 1.0)])
    texts = [tokenizer.decode([token for token, _ in piece]) for piece in pieces]
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 75
    assert all(text.rstrip().endswith(",") for text in texts[:-1])
    assert texts[-1].replace(" ", "").endswith("valentina_moreauwomansmiling")
    assert [len(piece) for piece in spell(tokenizer, [("😀" * 300, 1.0)])][:2] == [75, 75]


@FAMILIES
def test_words_behind_the_77th_token_change_the_picture(family: str) -> None:
    base = tiny_bases.loaded(family)
    one, other, again = drawn(
        base,
        ImageSpec(f"{LONG}, one", 1),
        ImageSpec(f"{LONG}, other", 1),
        ImageSpec(f"{LONG}, one", 1, negative="x"),
    )
    assert np.abs(one - other).max() > 1
    assert np.abs(one - again).max() > 1
    assert (
        np.abs(
            drawn(base, ImageSpec("a", 1, LONG))[0] - drawn(base, ImageSpec("a", 1, f"{LONG}, b"))[0]
        ).max()
        > 0
    )


@FAMILIES
def test_weights_move_embeddings_away_from_the_empty_text_s(family: str) -> None:
    pipe = tiny_bases.loaded(family).pipe

    def embedded(text: str) -> torch.Tensor:
        with torch.no_grad():
            return embed(pipe, list(zip(readings(pipe, parse(text)), strict=True)), 1)[0]

    plain, one, more, none, empty = map(
        embedded, ("smiling, sea", "(smiling:1.0), sea", "(smiling:1.5), sea", "(smiling:0), sea", "")
    )
    torch.testing.assert_close(one, plain, rtol=0, atol=0)
    torch.testing.assert_close(none[:, 1], empty[:, 1])  # the word's own place, behind the begin
    torch.testing.assert_close(
        more[:, 1] - plain[:, 1], (plain[:, 1] - empty[:, 1]) / 2, rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(more[:, 2:], plain[:, 2:], rtol=0, atol=0)
    assert not torch.allclose(more[:, 1], plain[:, 1])


def test_brackets_are_plain_where_no_weights_are_asked_for() -> None:
    assert ImageSpec("(smiling:1.3)", 1).words()[0] == [("(smiling:1.3)", 1.0)]
    base = tiny_bases.loaded("sdxl")
    weighted, literal = ImageSpec("smiling, beach", 5, weighted=True), ImageSpec("smiling, beach", 5)
    assert np.array_equal(drawn(base, weighted)[0], drawn(base, literal)[0])


@FAMILIES
def test_long_and_short_requests_do_not_change_each_other(family: str) -> None:
    base = tiny_bases.loaded(family)
    requests = [
        ImageSpec("a woman", 1),
        ImageSpec(LONG, 2),
        ImageSpec("(a:1.2)", 3, "b", True),
        ImageSpec("sky", 4, LONG),
    ]
    for request, image in zip(requests, drawn(base, *requests), strict=True):
        assert np.abs(image - drawn(base, request)[0]).max() <= 1


@FAMILIES
def test_training_embeds_a_long_caption_as_drawing_does(family: str) -> None:
    base = tiny_bases.loaded(family)
    texts = PromptEmbedCache(base)
    (context, pooled), (short, _) = texts([LONG, "a"]), texts(["a"])
    assert context.shape[1] == 77 * tokenize(base, [LONG])[0].shape[1]
    torch.testing.assert_close(context[1:, :77], short, rtol=0, atol=0)
    with torch.no_grad():
        both = encode_prompt(base, tokenize(base, [LONG, "a"]))
    torch.testing.assert_close(context, both[0], rtol=1e-4, atol=1e-5)
    if pooled is not None and both[1] is not None:
        torch.testing.assert_close(pooled, both[1], rtol=1e-4, atol=1e-5)


def test_learned_words_and_what_trains_encoders_are_reached_behind_the_77th_token() -> None:
    base = tiny_bases.loaded("sdxl", own_tokenizers=True)
    tokens = add_tokens(base, "zwx", "woman", 3)
    context, _ = encode_prompt(base, tokenize(base, [tokens.expand_trigger(f"{LONG}, zwx woman")]))
    context.square().sum().backward()
    assert all(rows.grad is not None and rows.grad.abs().min() > 0 for rows in tokens.rows.values())
