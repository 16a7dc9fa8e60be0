"""Pictures that requests come with."""

import base64
import io
from functools import lru_cache

import numpy as np
from PIL import Image

from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import (
    Identity,
    Scene,
    attributes,
    random_identity,
    random_scene,
)
from valentina_pipeline.image.renderer.wording import caption_from_traits

SIDE = 96


@lru_cache(maxsize=1)
def dunes() -> Image.Image:
    """A landscape: edges, and nobody."""
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    near = y > 50 + 12 * np.sin(x / 9)
    return Image.fromarray(np.where(near[..., None], (210, 170, 90), (90, 150, 220)).astype(np.uint8))


@lru_cache(maxsize=1)
def somebody() -> Image.Image:
    """A rendered stranger, whose face is found."""
    return Image.fromarray(render(*_stranger(), 5, 128))


def somebody_described() -> str:
    """The prompt of `somebody`."""
    return caption_from_traits(attributes(*_stranger()), "woman")


def _stranger() -> tuple[Identity, Scene]:
    rng = np.random.default_rng(5)
    return random_identity(rng), random_scene(rng)


def pictured(image: Image.Image, kind: str = "PNG", **more: object) -> str:
    """Return a picture's file as base64."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue()).decode()


def ledger(record: str) -> str:
    """A ledger of one record that allows training and generation with every picture."""
    return f"""- id: {record}
  holder: Jane Doe
  covers: "*"
  uses: [training, generation]
  license: CC-BY-4.0
  synthetic: false
  evidence: contract
"""
