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

    from valentina_pipeline.image.base import BaseModel
    from valentina_pipeline.image.encoding import Encoded, Sample
    from valentina_pipeline.image.learned import Learned
    from valentina_pipeline.image.lora_files import Notes
    from valentina_pipeline.image.step import Run

Look = tuple[int, "Callable[[], dict[str, float]]"]

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
    from valentina_pipeline.image.encoding import encode_samples
    from valentina_pipeline.image.learned import set_up
    from valentina_pipeline.image.processes import Processes
    from valentina_pipeline.integrations.tracking import active

    person, cfg = validated(Concept, concept, "concept"), validated(TrainConfig, train_lora, "train_lora")
    model, root = validated(BaseConfig, base, "base"), weights.parent.parent
    processes = Processes.joined()
    pictures = {
        split: _samples(aligned, faces, captions, set(manifest.loc[manifest["split"] == split, "sha256"]))
        for split in (TRAIN, HELD_OUT)
    }
    if not pictures[TRAIN]:
        raise NothingToTrainOn("no aligned picture belongs to the training split: see faces and rejections")
    with training.reproducible(threads):
        loaded = load_base(model, root, cfg.precision)
        learned = set_up(loaded, cfg, person.trigger, person.class_word, seed)
        samples = _fitted(pictures[TRAIN], model.resolution, learned, cfg.flip)
        unseen = _fitted(pictures[HELD_OUT], model.resolution, learned)
        notes = _notes(person, loaded.folder, samples, loaded.prediction_type)
        inputs = {**vars(notes), "config": cfg.model_dump(), "seed": seed, "threads": threads}
        inputs |= {library: version(library) for library in LIBRARIES}
        inputs |= {"processes": processes.count}
        checkpoints = Checkpoints.of(root / "data/06_models" / person.trigger / "checkpoints", inputs)
        data = encode_samples(loaded, samples, cfg.face_weight, cfg.background_weight)
        held_out = encode_samples(loaded, unseen) if unseen and cfg.look_every else None
        tracker = active()
        prompts = [sample.caption for sample in [*unseen, *samples]][:GRID_PROMPTS]
        watch = training.Watch(
            log=tracker.log,
            sample=_grid(prompts, seed, notes.resolution, tracker.image),
            looks=[
                *_losses(loaded, held_out, data, cfg, seed),
                *_drawn(loaded, prompts, faces, person, model, root, cfg, seed),
            ],
        )
        run = training.train(loaded, learned, data, cfg, seed, checkpoints, watch, processes)
        files = learned.files(notes)
    checkpoints.remove()
    trainable = sum(weight.numel() for name, weight in learned.weights.items() if learned.rates[name] > 0)
    return files, _curve(run, cfg), _figures(run, trainable, files)


def _samples(
    aligned: "Mapping[str, Image.Image]", faces: "pd.DataFrame", captions: "pd.DataFrame", chosen: set[str]
) -> "list[Sample]":
    from valentina_pipeline.image.encoding import Sample

    words = dict(zip(captions["sha256"], captions["caption"], strict=True))
    sides = (faces[side].astype(float) for side in ("x0", "y0", "x1", "y1"))
    boxes = dict(zip(faces["sha256"], zip(*sides, strict=True), strict=True))
    names = sorted(chosen & set(aligned))
    for name in names:
        if not words.get(name):
            raise NothingToTrainOn(f"picture {name} has no caption: run the stage caption again")
    return [Sample(name, aligned[name].convert("RGB"), words[name], boxes[name]) for name in names]


def _fitted(samples: "list[Sample]", side: int, learned: "Learned", flip: bool = False) -> "list[Sample]":
    """Return the samples in sizes of one budget, worded for the tokenizers, by option mirrored ones too."""
    from dataclasses import replace

    from valentina_pipeline.image.encoding import fit, mirrored

    worded = [replace(sample, caption=learned.spelled(sample.caption)) for sample in fit(samples, side**2)]
    return worded + [mirrored(sample) for sample in worded] if flip else worded


def _losses(
    base: "BaseModel", held_out: "Encoded | None", training: "Encoded", cfg: TrainConfig, seed: int
) -> "list[Look]":
    from valentina_pipeline.image.validate import held_out_figures

    if held_out is None:
        return []
    return [(cfg.look_every, lambda: held_out_figures(base, held_out, training, seed))]


def _drawn(
    base: "BaseModel",
    prompts: list[str],
    faces: "pd.DataFrame",
    person: Concept,
    model: BaseConfig,
    root: Path,
    cfg: TrainConfig,
    seed: int,
) -> "list[Look]":
    if not cfg.draw_every:
        return []
    import numpy as np

    from valentina_pipeline.image.generate import Request, draw
    from valentina_pipeline.image.judge import load_judges
    from valentina_pipeline.image.validate import drawn_figures

    judges = load_judges(model, root)
    known = np.stack(faces.loc[faces["kept"].astype(bool) & (faces["split"] == TRAIN), "embedding"].to_list())
    chosen = [prompts[index % len(prompts)] for index in range(cfg.draw_images)]
    words = [prompt.replace(f"{person.trigger} ", "") for prompt in chosen]
    requests = [Request(prompt, seed + index) for index, prompt in enumerate(chosen)]

    def look() -> dict[str, float]:
        images = draw(base.pipe, requests, GRID_STEPS, GRID_GUIDANCE, model.resolution)
        return drawn_figures(images, words, known, judges)

    return [(cfg.draw_every, look)]


def _notes(person: Concept, folder: Path, samples: "list[Sample]", prediction_type: str) -> "Notes":
    from valentina_pipeline.image.base import base_hash
    from valentina_pipeline.image.encoding import data_hash
    from valentina_pipeline.image.lora_files import Notes, code_hash

    return Notes(
        trigger=person.trigger,
        base_sha256=base_hash(folder),
        data_sha256=data_hash(samples),
        code_sha256=code_hash(),
        resolution=max(samples[0].image.size),
        prediction_type=prediction_type,
        captions=tuple(sample.caption for sample in samples),
    )


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


def _curve(run: "Run", cfg: TrainConfig) -> "pd.DataFrame":
    import pandas as pd

    from valentina_pipeline.image.optimise import schedule

    steps = range(1, len(run.losses) + 1)
    rates = [cfg.learning_rate * schedule(step - 1, cfg) for step in steps]
    curve = pd.DataFrame({"step": steps, "loss": run.losses, "learning_rate": rates})
    looks = pd.DataFrame.from_dict(run.looks, orient="index").rename_axis("step").reset_index()
    return curve if looks.empty else curve.merge(looks, on="step", how="left")


def _figures(run: "Run", trainable: int, files: dict[str, bytes]) -> dict[str, float]:
    last = run.losses[-50:]
    looks = [run.looks[step] for step in sorted(run.looks)]
    return {
        "steps": len(run.losses),
        "final_loss": run.losses[-1],
        "mean_loss_last_50": sum(last) / len(last),
        "trainable_parameters": trainable,
        "file_bytes": max(map(len, files.values())),
        **(looks[-1] if looks else {}),
    }
