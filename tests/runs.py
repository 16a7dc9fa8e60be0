"""Pictures and settings of small training runs."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import tiny_bases
from valentina_pipeline.common.threads import reproducible
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.lora.formats import AdapterMetadata
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.train.encoding import encode_samples
from valentina_pipeline.image.train.loop import SINGLE_PROCESS, train
from valentina_pipeline.image.train.methods import Trainable, build_method
from valentina_pipeline.image.train.samples import Sample
from valentina_pipeline.image.train.validation import validation_losses
from valentina_pipeline.training.callbacks import TrainingCallbacks
from valentina_pipeline.training.checkpoints import Checkpoints
from valentina_pipeline.training.distributed import Processes

ROOT = Path(__file__).parents[1]


def config(**changes: object) -> TrainConfig:
    implied = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text())["tiny"]["train_lora"]
    small = {
        "rank": 2,
        "alpha": 4.0,
        "num_vectors": 2,
        "max_steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "text_encoder_lr": 1e-3,
        "target_modules": "attention",
        "loss_weighting": "min_snr",
        "face_loss_weight": 2.0,
        "lr_warmup_steps": 2,
        "save_every": 2,
        "sample_every": 0,
        "eval_every": 0,
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


NOTES = AdapterMetadata("v", "b", "d", tiny_bases.SIZE, "v_prediction")


def made(cfg: TrainConfig, family: str = "sdxl") -> tuple[BaseModel, Trainable]:
    new_words = cfg.method in ("textual_inversion", "pivotal")
    base = tiny_bases.loaded(family, own_tokenizers=new_words)
    return base, build_method(base, cfg, "v", "woman", seed=1)


def run(
    folder: Path,
    cfg: TrainConfig,
    family: str = "sdxl",
    processes: Processes = SINGLE_PROCESS,
    **watch: object,
) -> dict[str, bytes]:
    """Train in `folder` and return the files that came of it, and the run as a file of its own."""
    with reproducible(1):
        base, learned = made(cfg, family)
        worded = [replace(sample, caption=learned.expand_trigger(sample.caption)) for sample in samples()]
        data = encode_samples(base, worded, cfg.face_loss_weight, cfg.background_loss_weight)
        evaluators = [(cfg.eval_every, lambda: validation_losses(base, data, data, 9))]
        seen = TrainingCallbacks(evaluators=evaluators, **watch)  # type: ignore[arg-type]
        came = train(base, learned, data, cfg, 9, Checkpoints(folder), seen, processes)
    return {**learned.files(NOTES), "run": json.dumps(asdict(came)).encode()}
