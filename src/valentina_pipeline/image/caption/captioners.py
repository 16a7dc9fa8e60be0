"""Captioning models behind one function. None is downloaded implicitly.

`attributes` uses the words of the renderer or of a sidecar file; `blip` (Li et al. 2022) writes a sentence;
`vlm`, any vision-language model that transformers can load, fills in the fields; `tagger` (SmilingWolf's WD
tagger) gives tags.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError, missing_hub_model
from valentina_pipeline.common.progress import track_progress
from valentina_pipeline.common.threads import one_thread
from valentina_pipeline.config.caption import CaptionConfig
from valentina_pipeline.image.caption.description import (
    FIELDS,
    MAX_FIELD_CHARS,
    Description,
    from_attributes,
    from_phrases,
    from_sentence,
)
from valentina_pipeline.image.models.vision_language import load_vision_language

DescribeImage = Callable[[Image.Image], Description]

MAX_SENTENCE_TOKENS = 40
MAX_ANSWER_TOKENS = 220

QUESTION = (
    "Describe this photograph as one JSON object with the keys "
    + ", ".join(FIELDS)
    + ". A few words each, and an empty text where nothing can be seen. Framing is close up, bust, half "
    "length or full body. Leave out hair, eyes, skin, age and the shape of the face."
)

GENERAL = "0"
"""Category of tags that describe the content; the others are characters and ratings."""


@dataclass(frozen=True)
class Captioner:
    """A kind of captioning model.

    Attributes:
        load: (model, class word, config) -> function that describes one image.
        model: default hub id.
        license: license of the default model.
    """

    load: Callable[[str, str, CaptionConfig], DescribeImage]
    model: str
    license: str


def missing_captioner(cfg: CaptionConfig) -> MissingModelError:
    """Return the error for a captioning model that is not on this machine, or is of another kind."""
    captioner = CAPTIONERS[cfg.captioner]
    license_name = "see its card" if cfg.model else captioner.license
    return missing_hub_model(
        f"the captioner {cfg.captioner},", cfg.model or captioner.model, license_name, "caption.model"
    )


def describe(
    images: Mapping[str, Image.Image],
    names: Sequence[str],
    attributes: Mapping[str, Mapping[str, str]],
    cfg: CaptionConfig,
    class_word: str,
) -> dict[str, Description]:
    """Describe images.

    Args:
        images: images by name; opened one at a time.
        names: names of the images to describe.
        attributes: name -> trait -> word, for the captioner `attributes`.
        cfg: captioner and model.
        class_word: class of the character, such as "woman".

    Returns:
        Descriptions by name. Models are reproducible: they decode greedily on one thread.

    Raises:
        MissingModelError: the model is not on this machine, or is of another kind.
    """
    if not names:
        return {}
    if cfg.captioner == "attributes":
        return {
            name: from_attributes(attributes[name]) for name in track_progress(names, "caption", len(names))
        }
    captioner = CAPTIONERS[cfg.captioner]
    model = cfg.model or captioner.model
    try:
        describe_image = captioner.load(model, class_word, cfg)
    except (
        OSError,
        ValueError,
        KeyError,
    ) as err:  # ValueError: transformers reads a path that is not a folder as a hub id
        raise missing_captioner(cfg) from err
    return dict(_describe_all(describe_image, images, names))


def _describe_all(
    describe_image: DescribeImage, images: Mapping[str, Image.Image], names: Sequence[str]
) -> Iterator[tuple[str, Description]]:
    import torch

    with one_thread(), torch.inference_mode():
        for name in track_progress(names, "caption", len(names)):
            yield name, describe_image(images[name].convert("RGB"))


def _blip(model: str, class_word: str, _cfg: CaptionConfig) -> DescribeImage:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(model, local_files_only=True)
    network = BlipForConditionalGeneration.from_pretrained(model, local_files_only=True, use_safetensors=True)
    network.eval()

    def describe_image(image: Image.Image) -> Description:
        inputs = processor(images=image, return_tensors="pt")
        tokens = network.generate(**inputs, max_new_tokens=MAX_SENTENCE_TOKENS, do_sample=False, num_beams=1)
        return from_sentence(processor.decode(tokens[0], skip_special_tokens=True), class_word)

    return describe_image


def _vlm(model: str, class_word: str, _cfg: CaptionConfig) -> DescribeImage:
    ask = load_vision_language(model)
    return lambda image: parse_answer(ask(image, QUESTION, MAX_ANSWER_TOKENS), class_word)


def _tagger(model: str, _class_word: str, cfg: CaptionConfig) -> DescribeImage:
    import timm
    import torch
    from huggingface_hub import snapshot_download

    folder = Path(model if Path(model).is_dir() else snapshot_download(model, local_files_only=True))
    with (folder / "selected_tags.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    size = network.pretrained_cfg["input_size"][-1]

    def describe_image(image: Image.Image) -> Description:
        scores = network(torch.from_numpy(_to_input(image, size))).sigmoid()[0].tolist()
        # captions list the most probable tags first
        ranked = sorted(zip(scores, rows, strict=True), key=lambda pair: -pair[0])
        selected = (
            row["name"].replace("_", " ")
            for score, row in ranked
            if score >= cfg.tag_threshold and row["category"] == GENERAL
        )
        return from_phrases(selected)

    return describe_image


def parse_answer(answer: str, class_word: str) -> Description:
    """Return a model's answer as fields; parse it as a sentence where it is not a JSON object."""
    start = answer.find("{")
    try:
        fields = json.JSONDecoder().raw_decode(answer[start:])[0] if start >= 0 else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return from_sentence(answer, class_word)
    words = {str(key).lower(): value for key, value in fields.items() if isinstance(value, str)}
    plain = {name: " ".join(words.get(name, "").lower().split()).strip(" .") for name in FIELDS}
    return Description(**{name: value[:MAX_FIELD_CHARS] for name, value in plain.items()})


def _to_input(image: Image.Image, size: int) -> np.ndarray:
    """Return the input of a WD tagger: float32 (1, 3, size, size) in [-1, 1], BGR, padded with white."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return np.ascontiguousarray((pixels / 127.5 - 1)[None, ..., ::-1].transpose(0, 3, 1, 2))


CAPTIONERS: Mapping[str, Captioner] = {
    "blip": Captioner(_blip, "Salesforce/blip-image-captioning-base", "BSD-3-Clause"),
    "vlm": Captioner(_vlm, "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "Apache-2.0"),
    "tagger": Captioner(_tagger, "SmilingWolf/wd-vit-tagger-v3", "Apache-2.0"),
}
