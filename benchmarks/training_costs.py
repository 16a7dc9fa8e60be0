"""What do live metrics cost a run, and how fast are pictures and captions encoded, and read from the cache?

    uv run python benchmarks/training_costs.py

On the tiny base: 24 pictures and captions through the VAE and the text encoders, then from the cache; and 60
steps whose figures go to an MLflow store in a temporary folder, as the stage sends them. Prints the ratio of
encoding to reading, and the share of the run that was spent in sending.
"""

import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from valentina_pipeline.common.threads import reproducible
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.models.base_model import load_base
from valentina_pipeline.image.train.encoding import PromptEmbedCache, encode_samples
from valentina_pipeline.image.train.loop import train
from valentina_pipeline.image.train.methods import build_method
from valentina_pipeline.image.train.samples import Sample
from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.tracking import current_tracker
from valentina_pipeline.training.callbacks import TrainingCallbacks
from valentina_pipeline.training.checkpoints import Checkpoints
from valentina_pipeline.training.encoding_cache import Cache

ROOT = Path(__file__).resolve().parents[1]
STEPS, PICTURES = 60, 24


def main() -> None:
    logging.disable(logging.INFO)
    tiny = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text("utf-8"))["tiny"]
    chosen = {"max_steps": STEPS, "sample_every": 0, "text_encoder_lr": 0.0}
    cfg = TrainConfig.model_validate({**tiny["train_lora"], **chosen})
    base = load_base(BaseConfig.model_validate(tiny["model"]), ROOT)
    with tempfile.TemporaryDirectory() as folder, reproducible(2):
        cache = Cache(Path(folder) / "cache")
        encoded, read = (seconds_to_encode(base, cache) for _ in range(2))
        print(f"{PICTURES / encoded:.0f} pictures with captions a second encoded, {PICTURES / read:.0f} read")
        print(f"reading is {encoded / read:.1f} times as fast as encoding")
        whole, sending = seconds_to_train(base, cfg, cache, Path(folder))
        share = f"{sending:.3f} s for live metrics: {sending / whole:.2%}"
        print(f"{STEPS} steps in {whole:.1f} s, of which {share}")


def samples() -> list[Sample]:
    pixels = np.random.default_rng(0).integers(0, 255, (PICTURES, 128, 128, 3), np.uint8)
    face = (32.0, 32.0, 96.0, 96.0)
    return [Sample(f"{i}", Image.fromarray(p), f"photo of v woman, {i}", face) for i, p in enumerate(pixels)]


def seconds_to_encode(base: object, cache: Cache) -> float:
    began = time.perf_counter()
    data = encode_samples(base, samples(), cache=cache)
    for caption in data.captions:
        PromptEmbedCache(base, cache)([caption])
    return time.perf_counter() - began


def seconds_to_train(base: object, cfg: TrainConfig, cache: Cache, folder: Path) -> tuple[float, float]:
    """Return the seconds of the run, and of them those in which figures were sent."""
    sending = 0.0

    def log(metrics: dict[str, float], step: int) -> None:
        nonlocal sending
        began = time.perf_counter()
        current_tracker().log(metrics, step)
        sending += time.perf_counter() - began

    (folder / "project").mkdir()
    mlflow.open_parent(folder / "project", "v", "inputs", {}).open_stage("train_lora")
    data = encode_samples(base, samples(), cache=cache)
    learned = build_method(base, cfg, "v", "woman", 0)
    began = time.perf_counter()
    train(base, learned, data, cfg, 0, Checkpoints(folder / "checkpoints"), TrainingCallbacks(log=log))
    whole = time.perf_counter() - began
    mlflow.close_stage(mlflow.FINISHED)
    mlflow.close_parent(mlflow.FINISHED)
    return whole, sending


if __name__ == "__main__":
    main()
