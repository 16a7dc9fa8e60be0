"""Layout of a package as a LoRA repository of the Hugging Face hub."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from valentina_pipeline.release.model_card import INTENDED_USE, USE

FRONT_MATTER = re.compile(r"---\n(?P<fields>.*?)\n---\n", re.DOTALL)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CARD, LICENSE, GRID = "MODEL_CARD.md", "LICENSE", "comparison_grid.png"


def hub_files(package: Mapping[str, Path], repository: str) -> dict[str, bytes | Path]:
    """Return the files of a LoRA repository: README.md is the model card, the LoRA's files are at the root.

    Args:
        package: the package's files by relative path.
        repository: OWNER/NAME, for the card's example.
    """
    lora = {Path(name).name: file for name, file in package.items() if name.startswith("lora/")}
    others = {name: package[name] for name in (LICENSE, GRID) if name in package}
    return {**lora, **others, "README.md": _card(package[CARD].read_text("utf-8"), repository).encode()}


def _card(text: str, repository: str) -> str:
    """Return the package's card for the hub: its fields, and how to load the LoRA from there."""
    found = FRONT_MATTER.match(text)
    if found is None or USE not in text or INTENDED_USE not in text:
        raise ValueError(f"{CARD} was written by another version of this project: run register again")
    fields = yaml.safe_load(found["fields"])
    base = fields.pop("base_model")
    fields |= {"base_model": base} if HUB_ID.fullmatch(base) else {}  # the hub refuses a path
    fields |= {"license_name": "see-license", "license_link": LICENSE}
    before, _, use = text[found.end() :].partition(USE)
    header = yaml.safe_dump(fields, sort_keys=True, allow_unicode=True)
    return f"---\n{header}---\n{before}{USE}{_example(base, repository)}{use[use.index(INTENDED_USE) :]}"


def _example(base: str, repository: str) -> str:
    return f"""
    from diffusers import AutoPipelineForText2Image

    pipe = AutoPipelineForText2Image.from_pretrained("{base}")
    pipe.load_lora_weights("{repository}")

diffusers alone neither checks prompts and images nor labels images as generated.

"""
