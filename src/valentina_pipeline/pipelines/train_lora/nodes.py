"""Nodes of the stage `train_lora`."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import BaseConfig, IngestConfig, TrainConfig, validated
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN
from valentina_pipeline.pipelines.train_lora import pictures

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.base import BaseModel
    from valentina_pipeline.image.encoding import Encoded, Sample
    from valentina_pipeline.image.learned import Learned
    from valentina_pipeline.image.step import Run

logger = logging.getLogger(__name__)

Look = tuple[int, "Callable[[], dict[str, float]]"]

LIBRARIES = ("diffusers", "peft", "torch", "transformers")
"""Whose versions round differently: a checkpoint of one is not gone on from with another."""

CACHE = "data/04_feature/cache"
"""Of latents, embedded captions and class images; `rm -r` of it costs time and nothing else."""

GRID_PROMPTS = 4

LOOK_COLUMNS = ["step", "held_out_loss", "training_loss", "overfitting"]


def train_adapter(
    aligned: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    manifest: "pd.DataFrame",
    weights: Path,
    extras: Path,
    concept: dict[str, Any],
    base: dict[str, Any],
    ingest: dict[str, Any],
    train_lora: dict[str, Any],
    seed: int,
    threads: int,
) -> "tuple[dict[str, bytes], pd.DataFrame, pd.DataFrame, dict[str, float], dict[str, Image.Image]]":
    """Train what `method` says on a concept's training pictures; a killed run goes on where it was.

    Args:
        aligned: pictures of kept faces by sha256, all of one size.
        faces: align's rows: where the face is.
        captions: [sha256, caption].
        manifest: see domain/manifest.py; only rows of the split "train" are learned from.
        weights: tiny/weights; a base's relative path counts from two folders above.
        extras: data/05_model_input: what may train along.
        concept: domain/concept.py's Concept.
        base: config.py's BaseConfig.
        ingest: config.py's IngestConfig, the limits of pictures that train along.
        train_lora: config.py's TrainConfig.
        seed: of every random draw.
        threads: of torch; part of the result.

    Returns:
        The files by name; the loss curve [step, loss, learning_rate]; the looks [step, held_out_loss,
        training_loss, overfitting, ...]; figures of the run; and the class images.

    Raises:
        NothingToTrainOn: no picture is left to train on, or one has no caption.
        BadCompanion: what is to train along is missing or refused.
        MissingModel: the base is not on this machine.
    """
    person, cfg = validated(Concept, concept, "concept"), validated(TrainConfig, train_lora, "train_lora")
    logger.info("%s of %s, %d steps", cfg.method, person.name, cfg.steps)
    with _timed("libraries are imported"):
        from valentina_pipeline.image import train as training
        from valentina_pipeline.image.base import load_base
        from valentina_pipeline.image.cache import Cache
        from valentina_pipeline.image.checkpoint import Checkpoints
        from valentina_pipeline.image.encoding import data_hash, encode_samples
        from valentina_pipeline.image.learned import set_up
        from valentina_pipeline.image.lora_files import Notes
        from valentina_pipeline.image.processes import Processes
        from valentina_pipeline.image.safety import ContentFilter
        from valentina_pipeline.integrations.tracking import active

    model, root = validated(BaseConfig, base, "base"), weights.parent.parent
    processes, unsafe = Processes.joined(), ContentFilter().unsafe
    own = {
        split: pictures.own(aligned, faces, captions, manifest.loc[manifest["split"] == split, "sha256"])
        for split in (TRAIN, HELD_OUT)
    }
    if not own[TRAIN]:
        raise pictures.NothingToTrainOn(
            "no aligned picture belongs to the training split: see faces and rejections"
        )
    limits = validated(IngestConfig, ingest, "ingest")
    beside, records = pictures.companions(extras, cfg.also, limits, unsafe)
    start = _start(extras, cfg.start_from)
    with training.reproducible(threads):
        with _timed("the base is loaded"):
            loaded = load_base(model, root, cfg.precision, cfg.quantise)
            about = _about(loaded, cfg, threads)
            cache = Cache(root / CACHE, about)
        drawn = pictures.class_images(loaded, cfg, person.class_word, model.resolution, unsafe, cache)
        learned = set_up(loaded, cfg, person.trigger, person.class_word, seed, start)
        wanted = pictures.with_prior([*own[TRAIN], *beside], drawn, person.class_word, cfg.prior_weight)
        samples = _fitted(wanted, model.resolution, learned, cfg.flip)
        notes = Notes(
            trigger=person.trigger,
            base_sha256=about["base"],
            data_sha256=data_hash(samples),
            code_sha256=about["code"],
            resolution=max(samples[0].image.size),
            prediction_type=loaded.prediction_type,
            captions=tuple(sample.caption for sample in samples),
            rights=pictures.rights_lines(person.rights, manifest["rights_id"], records),
            private=cfg.private,
        )
        inputs = {**vars(notes), **about, "config": cfg.model_dump(), "seed": seed}
        inputs |= {"processes": processes.count, "start": start and _sha256(start)}
        checkpoints = Checkpoints.of(root / "data/06_models" / person.trigger / "checkpoints", inputs)
        with _timed("pictures and captions are encoded"):
            data = encode_samples(loaded, samples, cfg.face_weight, cfg.background_weight, cache)
            unseen = _fitted(own[HELD_OUT], model.resolution, learned)
            held_out = encode_samples(loaded, unseen, cache=cache) if unseen and cfg.look_every else None
        tracker = active()
        prompts = [sample.caption for sample in [*own[HELD_OUT], *own[TRAIN]]][:GRID_PROMPTS]
        watch = training.Watch(
            log=tracker.log,
            sample=_grid(prompts, cfg, seed, notes.resolution, tracker.image),
            looks=[
                *_losses(loaded, held_out, data, cfg, seed),
                *_drawn(loaded, prompts, faces, person, model, root, cfg, seed),
            ],
        )
        run = training.train(loaded, learned, data, cfg, seed, checkpoints, watch, processes)
        files = learned.files(notes)
    processes.leave()
    checkpoints.remove()
    trainable = sum(weight.numel() for name, weight in learned.weights.items() if learned.rates[name] > 0)
    return files, _curve(run, cfg), _looks(run), _figures(run, trainable, files), drawn


def _about(base: "BaseModel", cfg: TrainConfig, threads: int) -> dict[str, str]:
    """Return what decides, beside pictures and settings, on every bit that the networks compute."""
    from valentina_pipeline.image.base import base_hash
    from valentina_pipeline.image.lora_files import code_hash

    return {
        **{library: version(library) for library in LIBRARIES},
        "base": base_hash(base.folder),
        "code": code_hash(),
        "threads": str(threads),
        "device": str(base.device),
        "dtype": str(base.dtype),
        "quantise": cfg.quantise,
    }


def _start(extras: Path, name: str) -> Path | None:
    if not name:
        return None
    file = pictures.inside(extras, name)
    if not file.is_file() or file.suffix != ".safetensors":
        raise pictures.BadCompanion(f"train_lora.start_from: {file} has to be a .safetensors file")
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Log how long the block took: where the time before the first step goes."""
    began = time.perf_counter()
    yield
    logger.info("%s: %.1f s", what, time.perf_counter() - began)


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
        images = draw(base.pipe, requests, cfg.sample_steps, cfg.sample_guidance, model.resolution)
        return drawn_figures(images, words, known, judges)

    return [(cfg.draw_every, look)]


def _grid(
    prompts: list[str],
    cfg: TrainConfig,
    seed: int,
    size: int,
    show: "Callable[[str, Image.Image, int], None]",
) -> Callable[[int, Any], None]:
    from valentina_pipeline.image.generate import Request, draw
    from valentina_pipeline.image.sheet import contact_sheet

    requests = [Request(prompt, seed + index) for index, prompt in enumerate(prompts)]

    def sample(step: int, pipe: Any) -> None:
        images = draw(pipe, requests, cfg.sample_steps, cfg.sample_guidance, size)
        show("samples", contact_sheet(images, prompts, columns=2, cell=max(size, 256)), step)

    return sample


def _curve(run: "Run", cfg: TrainConfig) -> "pd.DataFrame":
    import pandas as pd

    from valentina_pipeline.image.optimise import schedule

    steps = range(1, len(run.losses) + 1)
    rates = [cfg.learning_rate * schedule(step - 1, cfg) for step in steps]
    return pd.DataFrame({"step": steps, "loss": run.losses, "learning_rate": rates})


def _looks(run: "Run") -> "pd.DataFrame":
    import pandas as pd

    rows = [{"step": step, **run.looks[step]} for step in sorted(run.looks)]
    further = {column for row in rows for column in row} - set(LOOK_COLUMNS)
    return pd.DataFrame(rows, columns=[*LOOK_COLUMNS, *sorted(further)])


def _figures(run: "Run", trainable: int, files: dict[str, bytes]) -> dict[str, float]:
    last = run.losses[-50:]
    losses = {"final_loss": last[-1], "mean_loss_last_50": sum(last) / len(last)} if last else {}
    return {
        "steps": len(run.losses),
        **losses,
        "trainable_parameters": trainable,
        "file_bytes": max(map(len, files.values())),
        **(run.looks[max(run.looks)] if run.looks else {}),
    }
