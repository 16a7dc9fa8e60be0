"""Pictures that several tests look at: rendered once, small."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image

from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import random_identity, random_scene

WOMEN = (11, 12)


@lru_cache(maxsize=32)
def picture(index: int, woman: int = 0, size: int = 256, roll: float = 0.0) -> Image.Image:
    """Return woman number `woman` in scene `index`, her face to the camera."""
    identity = random_identity(np.random.default_rng(WOMEN[woman]))
    scene = random_scene(np.random.default_rng([5, index]))
    facing = replace(scene, yaw=scene.yaw / 3, pitch=0.0, roll=roll)
    return Image.fromarray(render(identity, facing, index, size))


def noise(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Return a picture of coarse noise, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


CONCEPT = {
    "kind": "character",
    "name": "Test Woman",
    "trigger": "test_woman",
    "class_word": "woman",
    "adult": True,
    "source": "renderer",
    "caption_excluded_words": ["eyes", "hair"],
    "asymmetric": True,
    "description": "oval face, green eyes",
    "renderer_parameters": {
        "eye_color": "green",
        "hair_color": "black",
        "skin_tone": "tan",
        "parting": "middle",
    },
    "overrides": {
        stage: {} for stage in ("ingest", "align", "caption", "train_lora", "evaluate", "register", "publish")
    },
}

RIGHTS = (
    RightsRecord(
        id="test",
        holder="the tests",
        covers="*",
        uses=("training",),
        license="Apache-2.0",
        synthetic=True,
        evidence="made by a test",
    ),
)
