"""Parts of a base model in diffusers' layout: files without which it loads with other words, or not at all.

Without a tokenizer's vocabulary transformers makes a tokenizer of two words and says nothing.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from valentina_pipeline.domain.base_files import base_files
from valentina_pipeline.image.models.families import TEXT_ENCODERS, Family

INDEX = "model_index.json"

UNUSED_PARTS = ("safety_checker",)
"""Parts that a pipeline is loaded without."""

VOCABULARY = ("vocab.json", "merges.txt")

MAX_LISTED = 20
"""Missing files that an error names."""


def find_missing_parts(folder: Path, family: Family, weights: bool = True) -> list[str]:
    """Return the missing files of a base model, relative to its folder; those of all parts at once.

    Args:
        folder: folder with a model_index.json.
        family: its networks, tokenizers and scheduler are needed, and each part that model_index.json names.
        weights: False where only configuration and tokenizers are used, as beside a single file.
    """
    networks = ("unet", "vae", *TEXT_ENCODERS[family])
    tokenizers = tuple(name.replace("text_encoder", "tokenizer") for name in TEXT_ENCODERS[family])
    needed = {f"{network}/config.json" for network in networks} | {"scheduler/scheduler_config.json"}
    missing = [name for name in sorted(needed) if not (folder / name).is_file()]
    missing += [name for tokenizer in tokenizers for name in _missing_words(folder, tokenizer)]
    known = {*networks, *tokenizers, "scheduler", *UNUSED_PARTS}
    missing += [
        f"{part}/*.json" for part in _named_parts(folder) - known if not any((folder / part).glob("*.json"))
    ]
    if weights:
        files = base_files(folder)
        missing += [
            f"{part}/*.safetensors"
            for part in networks
            if not any(file.parent.name == part for file in files)
        ]
        missing += [file.relative_to(folder).as_posix() for file in _missing_files(files)]
    return sorted(missing)


def list_missing_parts(folder: Path, missing: list[str]) -> str:
    """Return the missing files of a folder for an error."""
    more = len(missing) - MAX_LISTED
    listed = ", ".join(missing[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"{folder} lacks {listed}"


def read_config(file: Path) -> dict[str, Any]:
    """Return a configuration of diffusers.

    Raises:
        ValueError: the file is not a JSON object.
    """
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as err:
        raise ValueError(f"{file} is not valid JSON: download it again ({err})") from err
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object: download it again")
    return values


def _named_parts(folder: Path) -> set[str]:
    """Return the parts that model_index.json names with a class."""
    parts = read_config(folder / INDEX).items()
    return {name for name, value in parts if isinstance(value, list) and value and value[0] is not None}


def _missing_words(folder: Path, tokenizer: str) -> Iterator[str]:
    if (folder / tokenizer / "tokenizer.json").is_file():
        return
    for name in VOCABULARY:
        if not (folder / tokenizer / name).is_file():
            yield f"{tokenizer}/{name}"


def _missing_files(files: Iterable[Path]) -> set[Path]:
    """Return weights that are links to nothing, and shards and their list that are missing beside a shard."""
    missing = set()
    for file in files:
        if not file.exists():
            missing.add(file)
        if shard := re.fullmatch(r"(.+?)(\.[^.]+)?-(\d+)-of-(\d+)", file.stem):
            name, variant, number, last = shard.groups(default="")
            shards = {
                file.with_stem(f"{name}{variant}-{other:0{len(number)}d}-of-{last}")
                for other in range(1, min(int(last), MAX_LISTED * 100) + 1)
            }
            index = file.with_name(f"{name}.safetensors.index{variant}.json")
            missing |= {path for path in {*shards, index} if not path.exists()}
    return missing
