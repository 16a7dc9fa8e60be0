"""Who looks at pictures to caption them: all behind one function, none of them downloaded silently.

`attributes` knows what the renderer or a sidecar file says; `blip` (Li et al. 2022) says a sentence; `vlm`,
any vision-language model that transformers loads, fills in the fields; `tagger` (SmilingWolf's WD tagger)
gives tags.
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
    LONGEST,
    Description,
    from_attributes,
    from_phrases,
    from_sentence,
)

Look = Callable[[Image.Image], Description]

SENTENCE_TOKENS = 40
ANSWER_TOKENS = 220

QUESTION = (
    "Describe this photograph as one JSON object with the keys "
    + ", ".join(FIELDS)
    + ". A few words each, and an empty text where nothing can be seen. Framing is close up, bust, half "
    "length or full body. Leave out hair, eyes, skin, age and the shape of the face."
)

GENERAL = "0"
"""Category of tags that say what is seen; the others are characters and ratings."""


@dataclass(frozen=True)
class Captioner:
    """A kind of model that looks at pictures.

    Attributes:
        load: (model, class word, config) -> what looks at one picture.
        model: hub id where none is chosen.
        licence: of that one.
    """

    load: Callable[[str, str, CaptionConfig], Look]
    model: str
    licence: str


def missing_captioner(cfg: CaptionConfig) -> MissingModelError:
    """Return the error for a captioning model that is not on this machine, or is not of its kind."""
    captioner = CAPTIONERS[cfg.captioner]
    licence = "see its card" if cfg.model else captioner.licence
    return missing_hub_model(
        f"the captioner {cfg.captioner},", cfg.model or captioner.model, licence, "caption.model"
    )


def describe(
    images: Mapping[str, Image.Image],
    names: Sequence[str],
    attributes: Mapping[str, Mapping[str, str]],
    cfg: CaptionConfig,
    class_word: str,
) -> dict[str, Description]:
    """Say what is seen in pictures.

    Args:
        images: by name; opened one at a time.
        names: which of them.
        attributes: name -> trait -> word, for the captioner that does not look.
        cfg: which captioner and model.
        class_word: what the character is, such as "woman".

    Returns:
        By name; of a model the same words everywhere, for it is greedy and runs on one thread.

    Raises:
        MissingModelError: the model is not on this machine, or is none of its kind.
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
        look = captioner.load(model, class_word, cfg)
    except (
        OSError,
        ValueError,
        KeyError,
    ) as err:  # ValueError: a path that is no folder is taken for a hub id
        raise missing_captioner(cfg) from err
    return dict(_looked(look, images, names))


def _looked(
    look: Look, images: Mapping[str, Image.Image], names: Sequence[str]
) -> Iterator[tuple[str, Description]]:
    import torch

    with one_thread(), torch.inference_mode():
        for name in track_progress(names, "caption", len(names)):
            yield name, look(images[name].convert("RGB"))


def _blip(model: str, class_word: str, _cfg: CaptionConfig) -> Look:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(model, local_files_only=True)
    network = BlipForConditionalGeneration.from_pretrained(model, local_files_only=True, use_safetensors=True)
    network.eval()

    def look(image: Image.Image) -> Description:
        inputs = processor(images=image, return_tensors="pt")
        tokens = network.generate(**inputs, max_new_tokens=SENTENCE_TOKENS, do_sample=False, num_beams=1)
        return from_sentence(processor.decode(tokens[0], skip_special_tokens=True), class_word)

    return look


def _vlm(model: str, class_word: str, _cfg: CaptionConfig) -> Look:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(model, local_files_only=True)
    network = AutoModelForImageTextToText.from_pretrained(model, local_files_only=True, use_safetensors=True)
    network.eval()

    def look(image: Image.Image) -> Description:
        asked = [
            {
                "role": "user",
                "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}],
            }
        ]
        inputs = processor.apply_chat_template(
            asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        tokens = network.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False, num_beams=1)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return parse_answer(processor.decode(answer, skip_special_tokens=True), class_word)

    return look


def _tagger(model: str, _class_word: str, cfg: CaptionConfig) -> Look:
    import timm
    import torch
    from huggingface_hub import snapshot_download

    folder = Path(model if Path(model).is_dir() else snapshot_download(model, local_files_only=True))
    with (folder / "selected_tags.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    size = network.pretrained_cfg["input_size"][-1]

    def look(image: Image.Image) -> Description:
        scores = network(torch.from_numpy(_padded(image, size))).sigmoid()[0].tolist()
        # the surest first, as captions name them
        ranked = sorted(zip(scores, rows, strict=True), key=lambda pair: -pair[0])
        sure = (
            row["name"].replace("_", " ")
            for score, row in ranked
            if score >= cfg.threshold and row["category"] == GENERAL
        )
        return from_phrases(sure)

    return look


def parse_answer(said: str, class_word: str) -> Description:
    """Return a model's answer as fields; one that is no JSON object is read as a sentence."""
    start = said.find("{")
    try:
        found = json.JSONDecoder().raw_decode(said[start:])[0] if start >= 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return from_sentence(said, class_word)
    words = {str(key).lower(): value for key, value in found.items() if isinstance(value, str)}
    plain = {name: " ".join(words.get(name, "").lower().split()).strip(" .") for name in FIELDS}
    return Description(**{name: value[:LONGEST] for name, value in plain.items()})


def _padded(image: Image.Image, size: int) -> np.ndarray:
    """Return float32 (1, 3, size, size) in [-1, 1], blue first, on a white square, as WD taggers take it."""
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
