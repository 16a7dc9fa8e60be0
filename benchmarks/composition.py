"""Does the character stay herself, and a style itself, when both LoRAs draw together?

    uv run python benchmarks/composition.py         # after `uv run dvc repro`; some five minutes on two cores

Trains a LoRA for one backdrop, violet, on rendered women who are all somebody else, with the project's own
trainer, and draws the same prompts and seeds with neither LoRA, each alone, and both. Prints for each the
mean identity (cosine to the character's held-out portraits) and how violet the picture's upper corners are
(1: wholly; 0: as without any LoRA), and the ratios of both together to each alone.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml
from PIL import Image

from valentina_pipeline.common.threads import reproducible
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.lora.formats import AdapterMetadata
from valentina_pipeline.image.models.base_model import load_base
from valentina_pipeline.image.models.weights import base_hash
from valentina_pipeline.image.renderer.render import render
from valentina_pipeline.image.renderer.traits import attributes, random_identity, random_scene
from valentina_pipeline.image.renderer.wording import VARIABLE_TRAITS, caption_from_traits
from valentina_pipeline.image.train.encoding import encode_samples
from valentina_pipeline.image.train.loop import train
from valentina_pipeline.image.train.methods import build_method
from valentina_pipeline.image.train.samples import Sample, data_hash
from valentina_pipeline.serving.inference.adapters import Adapter
from valentina_pipeline.serving.inference.engine import GenerationResult, InferenceEngine
from valentina_pipeline.serving.inference.package import PackageInfo, read
from valentina_pipeline.serving.inference.request import GenerationRequest
from valentina_pipeline.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "data/06_models/valentina_moreau/package"
TRIGGER, VIOLET = "violet backdrop", np.array([120, 40, 180])
PICTURES, STEPS, SEEDS = 24, 200, 2
WEIGHTS = {"neither": (0, 0), "the character": (1, 0), "the style": (0, 1), "both": (1, 1)}


def main() -> None:
    about = read(PACKAGE)
    with tempfile.TemporaryDirectory() as folder, reproducible(2):
        file = Path(folder) / "violet.safetensors"
        file.write_bytes(style(about, Path(folder)))
        shelf = {"violet": Adapter(file=file, kind="background", license="Apache-2.0", trigger=TRIGGER)}
        studio = InferenceEngine(about, root=ROOT, shelf=shelf)
        drawn = {name: draw(studio, about, weights) for name, weights in WEIGHTS.items()}
    bare = fmean(distance(each.image) for each in drawn["neither"] if each.image)
    identity = {n: fmean(d.identity for d in each if d.identity is not None) for n, each in drawn.items()}
    violet = {n: 1 - fmean(distance(d.image) for d in each if d.image) / bare for n, each in drawn.items()}
    print("| LoRAs | identity | violet | images |\n|---|---|---|---|")
    for name, each in drawn.items():
        shown = sum(one.image is not None for one in each)
        print(f"| {name} | {identity[name]:.3f} | {violet[name]:.3f} | {shown} |")
    print(
        f"identity together is {identity['both'] / identity['the character']:.2f} of the character's alone,"
    )
    print(f"violet together is {violet['both'] / violet['the style']:.2f} of the style's alone")


def style(about: PackageInfo, folder: Path) -> bytes:
    """Return a LoRA of the backdrop, which touches the U-Net alone."""
    tiny = yaml.safe_load((ROOT / "conf/base/bases.yml").read_text("utf-8"))["tiny"]["train_lora"]
    chosen = {"max_steps": STEPS, "rank": 8, "alpha": 16, "text_encoder_lr": 0.0, "sample_every": 0}
    cfg = TrainConfig.model_validate({**tiny, **chosen, "eval_every": 0})
    base = load_base(about.base.model_copy(update={"path": "base"}), about.folder)
    learned = build_method(base, cfg, "violet", "backdrop", 0)
    samples = [picture(number, about.base.resolution) for number in range(PICTURES)]
    train(base, learned, encode_samples(base, samples), cfg, 0, Checkpoints(folder / "checkpoints"))
    notes = AdapterMetadata(
        TRIGGER,
        base_hash(base.path),
        data_hash(samples),
        about.base.resolution,
        base.prediction_type,
    )
    return learned.files(notes)["pytorch_lora_weights.safetensors"]


def picture(number: int, size: int) -> Sample:
    """Return a woman of her own before the backdrop; what two backgrounds do not share is background."""
    who = random_identity(np.random.default_rng([7, number]))
    scene = random_scene(np.random.default_rng([8, number]))
    one, other = (
        render(who, replace(scene, background=name), number, size).astype(int)
        for name in ("grey studio", "green garden")
    )
    behind = np.abs(one - other).max(axis=2, keepdims=True) > 8
    shown = Image.fromarray(np.where(behind, VIOLET, one).astype(np.uint8))
    words = {k: v for k, v in attributes(who, scene).items() if k != "background"}
    caption = f"{caption_from_traits(words, 'woman', VARIABLE_TRAITS)}, {TRIGGER}"
    return Sample(f"{number}", shown, caption, (size / 4, size / 4, size * 3 / 4, size * 3 / 4))


def draw(studio: InferenceEngine, about: PackageInfo, weights: tuple[float, float]) -> list[GenerationResult]:
    named = zip((about.trigger, "violet"), weights, strict=True)
    uses = tuple({"name": name, "weight": float(weight)} for name, weight in named)
    scenes = [scene.words.split(", ") for scene in about.scenes.values()]
    prompts = [", ".join(words[:3]) for words in scenes]  # expression, pose, clothes
    requests = [GenerationRequest(prompt=prompt, seed=1, num_images=SEEDS, loras=uses) for prompt in prompts]
    return [each for request in requests for each in studio.generate(request)]


def distance(image: Image.Image) -> float:
    """Return how far the upper corners are from the backdrop's colour, in levels."""
    pixels = np.asarray(image.convert("RGB"), float)
    side = image.width // 8
    corners = np.concatenate([pixels[:side, :side].reshape(-1, 3), pixels[:side, -side:].reshape(-1, 3)])
    return float(np.linalg.norm(corners - VIOLET, axis=1).mean())


if __name__ == "__main__":
    main()
