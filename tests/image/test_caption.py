from collections.abc import Callable
from pathlib import Path

import pytest

from portraits import noise
from valentina_pipeline.image.caption import by_blip, description_words, from_attributes, rewriter
from valentina_pipeline.image.missing import MissingModel
from valentina_pipeline.image.wording import FIXED_TRAITS, VARIABLE_TRAITS

WORDS = ("a", "woman", "with", "long", "hair", "red", "dress", "on", "the", "beach", "smiling", "photo", "of")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP of true architecture, small and with random weights, in a folder."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *dict.fromkeys(WORDS)]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={
            **small,
            "vocab_size": len(tokens),
            "encoder_hidden_size": 32,
            "bos_token_id": 5,
            "pad_token_id": 0,
            "eos_token_id": 3,
            "sep_token_id": 3,
        },
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(3)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def rewrite() -> Callable[[str], str]:
    return rewriter(
        "her_token", "woman", FIXED_TRAITS, description_words("oval face, tan skin, a small scar")
    )


def test_attributes_name_only_what_varies() -> None:
    known = {"a": {"eyes": "brown", "hair_color": "black", "expression": "smiling", "background": "beach"}}
    assert from_attributes(known, "her_token woman", VARIABLE_TRAITS) == {
        "a": "photo of a her_token woman, smiling, beach background"
    }


def test_a_picture_of_which_nothing_is_known_is_just_her() -> None:
    assert from_attributes({"a": {}}, "her_token woman", VARIABLE_TRAITS) == {
        "a": "photo of a her_token woman"
    }


@pytest.mark.parametrize(
    ("said", "caption"),
    [
        (
            "a woman with long brown hair and blue eyes wearing a brown dress",
            "photo of a her_token woman wearing a brown dress",
        ),
        ("a close up of a brown haired lady in a red shirt", "close up of a her_token woman in a red shirt"),
        (
            "araffe woman with long hair and a yellow shirt smiling at the camera",
            "photo of a her_token woman with a yellow shirt smiling at the camera",
        ),
        ("a black and white photo of a woman", "black and white photo of a her_token woman"),
        (
            "there is a girl standing on a beach, laughing",
            "photo of a her_token woman standing on a beach, laughing",
        ),
        ("a woman with a scar on her chin in a garden", "photo of a her_token woman in a garden"),
        ("a woman and another woman in a park", "photo of a her_token woman in a park"),
        ("a her_token woman with a her_token in a park", "photo of a her_token woman in a park"),
        ("a sunset over the sea", "photo of a her_token woman, a sunset over the sea"),
        ("", "photo of a her_token woman"),
    ],
)
def test_blips_words_become_hers(rewrite: Callable[[str], str], said: str, caption: str) -> None:
    assert rewrite(said) == caption
    assert caption.count("her_token") == caption.count("woman") == 1


def test_traits_that_vary_stay_in_the_caption() -> None:
    rewrite = rewriter("her_token", "woman", ["eyes"])
    assert rewrite("a woman with red hair and green eyes") == "photo of a her_token woman with red hair"


def test_blip_looks_at_each_picture_and_says_the_same_again(
    blip: Path, rewrite: Callable[[str], str]
) -> None:
    images = {name: noise(seed, 48, 40) for seed, name in enumerate("ab")}
    heard: list[str] = []

    def keep(said: str) -> str:
        heard.append(said)
        return rewrite(said)

    first = by_blip(images, ["a", "b"], keep, blip)

    assert list(first) == ["a", "b"] and all("her_token woman" in caption for caption in first.values())
    assert any(set(said.split()) & set(WORDS) for said in heard)
    assert by_blip(images, ["b"], rewrite, blip) == {"b": first["b"]}


def test_without_blip_the_error_says_how_to_get_it(tmp_path: Path, rewrite: Callable[[str], str]) -> None:
    with pytest.raises(MissingModel, match=r"BSD-3-Clause.*hf download Salesforce"):
        by_blip({"a": noise(1)}, ["a"], rewrite, tmp_path / "nothing")
    with pytest.raises(MissingModel, match="nobody/no-such-captioner"):
        by_blip({"a": noise(1)}, ["a"], rewrite, "nobody/no-such-captioner")
