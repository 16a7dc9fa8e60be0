"""Pictures and settings of small training runs."""

import numpy as np
import yaml
from PIL import Image

import tiny_bases
from conftest import ROOT
from valentina_pipeline.config import TrainConfig
from valentina_pipeline.image.encoding import Sample


def config(**changes: object) -> TrainConfig:
    implied = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text())["tiny"]["train_lora"]
    small = {
        "rank": 2,
        "alpha": 4.0,
        "vectors": 2,
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "text_encoder_learning_rate": 1e-3,
        "targets": "attention",
        "min_snr_gamma": 5.0,
        "face_weight": 2.0,
        "warmup_steps": 2,
        "checkpoint_every": 2,
        "sample_every": 0,
        "look_every": 0,
    }
    return TrainConfig.model_validate({**implied, **small, **changes})


FACE = (8.0, 4.0, 24.0, 28.0)


def samples(count: int = 3) -> list[Sample]:
    rng = np.random.default_rng(0)
    size = (tiny_bases.SIZE, tiny_bases.SIZE, 3)
    pixels = [rng.integers(0, 255, size, dtype=np.uint8) for _ in range(count)]
    return [
        Sample(f"{i}", Image.fromarray(p), f"photo of v woman, dress {i}", FACE) for i, p in enumerate(pixels)
    ]
