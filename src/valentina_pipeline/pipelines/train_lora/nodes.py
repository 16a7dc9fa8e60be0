"""Nodes of the stage `train_lora`."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import BaseConfig, TrainConfig, validated
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.encoding import Sample
    from valentina_pipeline.image.lora import Notes

LIBRARIES = ("diffusers", "peft", "torch", "transformers")
"""Whose versions round differently: a checkpoint of one is not gone on from with another."""

GRID_PROMPTS = 4
GRID_STEPS = 20
GRID_GUIDANCE = 5.0


class NothingToTrainOn(ValueError):
    """Pictures or captions are missing; the message says which."""


def train_adapter(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    manifest: "pd.DataFrame",
    weights: Path,
    concept: dict[str, Any],
    base: dict[str, Any],
    train_lora: dict[str, Any],
    seed: int,
    threads: int,
) -> "tuple[dict[str, bytes], pd.DataFrame, dict[str, float]]":
    """Train a LoRA of the concept on its training pictures; a killed run goes on where it was.

    Args:
        aligned: pictures of kept faces by sha256, all of one size.
        faces: align's rows: where the face is.
        captions: [sha256, caption].
        manifest: see domain/manifest.py; only rows of the split "train" are learned from.
        weights: tiny/weights; a base's relative path counts from two folders above.
        concept: domain/concept.py's Concept.
        base: config.py's BaseConfig.
        train_lora: config.py's TrainConfig.
        seed: of every random draw.
        threads: of torch; part of the result.

    Returns:
        The LoRA's files by name; the loss curve [step, loss, learning_rate]; and figures of the run.

    Raises:
        NothingToTrainOn: no picture is left to train on, or one has no caption.
        MissingModel: the base is not on this machine.
    """
    from valentina_pipeline.image import train as training
    from valentina_pipeline.image.base import load_base
    from valentina_pipeline.image.checkpoint import Checkpoints
    from valentina_pipeline.image.lora import adapter_files, inject
    from valentina_pipeline.integrations.tracking import active

    person, cfg = validated(Concept, concept, "concept"), validated(TrainConfig, train_lora, "train_lora")
    model, root = validated(BaseConfig, base, "base"), weights.parent.parent
    samples = _samples(aligned, faces, captions, manifest)
    with training.reproducible(threads):
        loaded = load_base(model, root, cfg.precision)
        rate = cfg.text_encoder_learning_rate
        adapter = inject(loaded, cfg.rank, cfg.alpha, cfg.targets, text=rate > 0, seed=seed)
        notes = _notes(person.trigger, loaded.folder, samples, loaded.prediction_type)
        inputs = {**vars(notes), "config": cfg.model_dump(), "seed": seed, "threads": threads}
        inputs |= {library: version(library) for library in LIBRARIES}
        checkpoints = Checkpoints.of(root / "data/06_models" / person.trigger / "checkpoints", inputs)
        tracker = active()
        prompts = _prompts(captions, manifest, samples)
        losses = training.train(
            loaded,
            adapter,
            samples,
            cfg,
            seed,
            checkpoints,
            log=tracker.log,
            sample=_grid(prompts, seed, notes.resolution, tracker.image),
        )
        files = adapter_files(adapter, notes, half=cfg.precision != "fp32")
    checkpoints.remove()
    trainable = sum(parameter.numel() for parameter in adapter.weights().values())
    return files, _curve(losses, cfg), _figures(losses, trainable, files)


def _samples(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    manifest: "pd.DataFrame",
) -> "list[Sample]":
    from valentina_pipeline.image.encoding import Sample

    chosen = set(manifest.loc[manifest["split"] == TRAIN, "sha256"])
    words = dict(zip(captions["sha256"], captions["caption"], strict=True))
    names = [name for name in sorted(aligned) if name in chosen]
    if not names:
        raise NothingToTrainOn("no aligned picture belongs to the training split: see faces and rejections")
    for name in names:
        if not words.get(name):
            raise NothingToTrainOn(f"picture {name} has no caption: run the stage caption again")
    sides = (faces[side].astype(float) for side in ("x0", "y0", "x1", "y1"))
    boxes = dict(zip(faces["sha256"], zip(*sides, strict=True), strict=True))
    return [Sample(name, aligned[name].convert("RGB"), words[name], boxes[name]) for name in names]


def _notes(trigger: str, folder: Path, samples: "list[Sample]", prediction_type: str) -> "Notes":
    from valentina_pipeline.image.base import base_hash
    from valentina_pipeline.image.encoding import data_hash
    from valentina_pipeline.image.lora import Notes, code_hash

    return Notes(
        trigger=trigger,
        base_sha256=base_hash(folder),
        data_sha256=data_hash(samples),
        code_sha256=code_hash(),
        resolution=samples[0].image.width,
        prediction_type=prediction_type,
    )


def _prompts(captions: "pd.DataFrame", manifest: "pd.DataFrame", samples: "list[Sample]") -> list[str]:
    """Return a few captions for the sample grids, of held-out pictures first: those were not learned."""
    held_out = set(manifest.loc[manifest["split"] == HELD_OUT, "sha256"])
    unseen = sorted(captions.loc[captions["sha256"].isin(held_out), "caption"])
    return [*unseen, *(sample.caption for sample in samples)][:GRID_PROMPTS]


def _grid(
    prompts: list[str], seed: int, size: int, show: "Callable[[str, Image.Image, int], None]"
) -> Callable[[int, Any], None]:
    from valentina_pipeline.image.generate import Request, draw
    from valentina_pipeline.image.sheet import contact_sheet

    requests = [Request(prompt, seed + index) for index, prompt in enumerate(prompts)]

    def sample(step: int, pipe: Any) -> None:
        images = draw(pipe, requests, GRID_STEPS, GRID_GUIDANCE, size)
        show("samples", contact_sheet(images, prompts, columns=2, cell=max(size, 256)), step)

    return sample


def _curve(losses: list[float], cfg: TrainConfig) -> "pd.DataFrame":
    import pandas as pd

    from valentina_pipeline.image.train import schedule

    rates = [cfg.learning_rate * schedule(step, cfg) for step in range(len(losses))]
    return pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses, "learning_rate": rates})


def _figures(losses: list[float], trainable: int, files: dict[str, bytes]) -> dict[str, float]:
    from valentina_pipeline.image.lora import DIFFUSERS_NAME

    last = losses[-50:]
    return {
        "steps": len(losses),
        "final_loss": losses[-1],
        "mean_loss_last_50": sum(last) / len(last),
        "trainable_parameters": trainable,
        "file_bytes": len(files[DIFFUSERS_NAME]),
    }
