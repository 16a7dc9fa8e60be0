"""Captioners on small networks of true architecture with random weights."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from portraits import noise
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.config.caption import CaptionConfig
from valentina_pipeline.image.caption.captioners import describe, parse_answer
from valentina_pipeline.image.caption.description import Description

WORDS = ("a", "woman", "with", "long", "hair", "red", "dress", "on", "the", "beach", "smiling", "photo", "of")
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def vocabulary(folder: Path, special: list[str]) -> Path:
    file = folder / "vocab.txt"
    file.write_text("\n".join([*special, *dict.fromkeys(WORDS)]) + "\n")
    return file


def blip(folder: Path) -> None:
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = BertTokenizer(
        str(vocabulary(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]))
    )
    text = {
        **SMALL, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "bos_token_id": 5,
        "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3,
    }  # fmt: skip
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)


def vlm(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["<pad>", "<unk>", "<s>", "</s>", "<image>", *dict.fromkeys(WORDS)]
    plain = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}",
    )
    processor.save_pretrained(folder)
    config = LlavaConfig(
        vision_config={**SMALL, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 8},
        text_config={**SMALL, "model_type": "llama", "vocab_size": len(words), "num_key_value_heads": 2},
        image_token_index=4,
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)


TAGS = ("1girl", "smile", "red_dress", "beach", "long_hair", "sitting")


def tagger(folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=len(TAGS) + 1, embed_dim=48, depth=2
    )
    save_file(network.state_dict(), folder / "model.safetensors")
    about = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": len(TAGS) + 1,
        "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2},
        "pretrained_cfg": {"input_size": [3, 32, 32], "num_classes": len(TAGS) + 1},
    }
    (folder / "config.json").write_text(json.dumps(about))
    with (folder / "selected_tags.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerow([0, "general", 9, 1])  # a rating: never a word of a caption
        rows.writerows([index + 1, tag, 0, 1] for index, tag in enumerate(TAGS))


MAKERS: dict[str, Callable[[Path], None]] = {"blip": blip, "vlm": vlm, "tagger": tagger}


def config(captioner: str, model: str | Path, threshold: float = 0.35) -> CaptionConfig:
    return CaptionConfig(captioner=captioner, model=str(model), tag_threshold=threshold)


@pytest.mark.parametrize("kind", MAKERS)
def test_each_looks_at_each_picture_and_says_the_same_again(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    MAKERS[kind](tmp_path)
    images = {name: noise(seed, 48, 40) for seed, name in enumerate("ab")}
    cfg = config(kind, tmp_path)
    first = describe(images, ["a", "b"], {}, cfg, "woman")
    assert list(first) == ["a", "b"] and all(isinstance(said, Description) for said in first.values())
    assert any(said != Description() for said in first.values())
    assert describe(images, ["b"], {}, cfg, "woman") == {"b": first["b"]}


def test_a_tagger_says_what_is_surer_than_the_threshold_the_surest_first(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tagger(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["head.weight"].zero_()
    # logits of: rating, 1girl, smile, red dress, beach, long hair, sitting
    weights["head.bias"] = torch.tensor([9.0, -9, 1, 3, 2, -9, 0])
    save_file(weights, tmp_path / "model.safetensors")
    seen = describe({"a": noise(1)}, ["a"], {}, config("tagger", tmp_path, 0.6), "woman")
    assert seen["a"] == Description(expression="smile", clothes="red dress", place="beach")


def test_the_tagger_is_shown_what_it_was_made_for() -> None:
    from PIL import Image

    from valentina_pipeline.image.caption.captioners import _to_input

    pixels = _to_input(Image.new("RGB", (32, 16), (255, 0, 0)), 32)
    assert pixels.shape == (1, 3, 32, 32) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, :, 16, 16], [-1, -1, 1])  # blue first
    np.testing.assert_allclose(pixels[0, :, 0, 0], [1, 1, 1])  # white above


def test_an_answer_in_json_fills_the_fields_and_any_other_is_read_as_a_sentence() -> None:
    said = (
        'Sure! {"Clothes": "A red dress.", "place": "on a beach", "mood": "blue", "light": 3} I hope it helps'
    )
    assert parse_answer(said, "woman") == Description(clothes="a red dress", place="on a beach")
    assert parse_answer("A woman on a beach {", "woman") == Description(subject="woman", place="on a beach {")
    assert parse_answer("[1, 2]", "woman").subject == ""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("blip", r"BSD-3-Clause.*hf download Salesforce"),
        ("vlm", r"Apache-2\.0.*hf download HuggingFaceTB"),
        ("tagger", r"Apache-2\.0.*hf download SmilingWolf"),
    ],
)
def test_without_the_model_nothing_is_downloaded_and_the_error_says_how_to_get_it(
    kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingModelError, match=said):
        describe({"a": noise(1)}, ["a"], {}, config(kind, ""), "woman")
    with pytest.raises(MissingModelError, match="nobody/no-such-captioner"):
        describe({"a": noise(1)}, ["a"], {}, config(kind, "nobody/no-such-captioner"), "woman")
