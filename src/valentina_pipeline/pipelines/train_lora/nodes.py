"""Nodes of the stage `train_lora`."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common.code_fingerprint import fingerprint
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.domain import clock
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN, apply_review
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.pipelines.train_lora import monitoring, training_images

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.lora.formats import AdapterMetadata
    from valentina_pipeline.image.models.base_model import BaseModel
    from valentina_pipeline.image.train.methods import Trainable
    from valentina_pipeline.image.train.samples import Sample
    from valentina_pipeline.image.train.trainer import TrainState
    from valentina_pipeline.training.checkpoints import Checkpoints

    Outputs = tuple[
        dict[str, bytes], pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, float], dict[str, Image.Image]
    ]

logger = logging.getLogger(__name__)

LIBRARIES = ("diffusers", "peft", "torch", "transformers")
"""Whose versions round differently: a checkpoint of one is not gone on from with another."""

CACHE = "data/04_feature/cache"
"""Of latents, embedded captions and class images; `rm -r` of it costs time and nothing else."""

LOOK_COLUMNS = ["step", "held_out_loss", "training_loss", "overfitting"]


def train_adapter(
    aligned: "Mapping[str, Image.Image]",
    aligned_masks: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    manifest: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    weights: Path,
    extras: Path,
    concept: dict[str, Any],
    base: dict[str, Any],
    ingest: dict[str, Any],
    train_lora: dict[str, Any],
    seed: int,
    threads: int,
) -> "Outputs":
    """Train what `method` says on a concept's training pictures; a killed run goes on where it was.

    Args:
        aligned: pictures of kept faces by sha256, all of one size.
        aligned_masks: of some of them, as large: only what is white is learned from.
        faces: align's rows: where the face is; only those kept of the split "train" are learned from.
        captions: sha256, caption, rejected.
        manifest: see domain/manifest.py.
        rights: the concept's records.
        weights: tiny/weights; a base's relative path counts from two folders above.
        extras: data/05_model_input/<concept>: extra training data and LoRAs to start from.
        concept: see Concept.
        base: see BaseConfig.
        ingest: see IngestConfig, the limits of pictures that train along.
        train_lora: see TrainConfig.
        seed: of every random draw.
        threads: of torch; part of the result.

    Returns:
        The files by name; the pictures that they stand on, those held out to judge them included (sha256,
        source_name, rights_id, split); the loss curve [step, loss, learning_rate]; the looks [step,
        held_out_loss, training_loss, overfitting, ...]; figures of the run; and the class images.

    Raises:
        NothingToTrainOn: no picture is left to train on, one has no caption, or its record has ended.
        BadCompanion: what is to train along is missing or refused.
        MissingModel: the base is not on this machine.
    """
    person, cfg = (
        parse_config(Concept, concept, "concept"),
        parse_config(TrainConfig, train_lora, "train_lora"),
    )
    logger.info("%s of %s, %d steps", cfg.method, person.name, cfg.steps)
    with _timed("libraries are imported"):
        import pandas as pd

        from valentina_pipeline.common.threads import reproducible
        from valentina_pipeline.image.models.base_model import load_base
        from valentina_pipeline.image.safety.content_filter import ContentFilter
        from valentina_pipeline.image.train import loop
        from valentina_pipeline.image.train.encoding import encode_samples
        from valentina_pipeline.image.train.methods import build_method
        from valentina_pipeline.training.distributed import Processes
        from valentina_pipeline.training.encoding_cache import Cache

    model, root = parse_config(BaseConfig, base, "base"), weights.parent.parent
    processes, unsafe = Processes.joined(), ContentFilter().unsafe
    training_images.check_rights(manifest, rights, clock.today())
    faces = apply_review(faces, captions)
    own, held_out = (
        training_images.training_samples(aligned, aligned_masks, faces, captions, split)
        for split in (TRAIN, HELD_OUT)
    )
    if not own:
        raise training_images.NoTrainingImagesError(
            "no aligned picture belongs to the training split: see faces and rejections"
        )
    limits = parse_config(IngestConfig, ingest, "ingest")
    beside, rows = training_images.extra_samples(extras, cfg.also, limits, rights, unsafe)
    training_images.refuse_captions([*own, *held_out, *beside], person.name)
    learned_from = manifest.merge(faces.loc[faces["kept"], ["sha256", "split"]], on="sha256")
    own_rows = learned_from[list(training_images.TRAINING_IMAGE_COLUMNS)].to_dict("records")
    used = pd.DataFrame([*own_rows, *rows], columns=list(training_images.TRAINING_IMAGE_COLUMNS))
    start = _start(extras, cfg.start_from)
    with reproducible(threads):
        with _timed("the base is loaded"):
            loaded = load_base(model, root, cfg.precision, cfg.quantise)
            about = _about(loaded, cfg, threads)
            cache = Cache(root / CACHE, about)
        drawn = training_images.class_images(loaded, cfg, person.class_word, model.resolution, unsafe, cache)
        learned = build_method(loaded, cfg, person.trigger, person.class_word, seed, start)
        wanted = training_images.add_prior_preservation(
            [*own, *beside], drawn, person.class_word, cfg.prior_weight
        )
        samples = _fitted(wanted, model.resolution, learned, cfg.flip)
        records = [record for record in rights if record.id in set(used["rights_id"])]
        notes = _notes(person, loaded, samples, records, about, cfg)
        checkpoints = _checkpoints(root, notes, about, cfg, seed, processes.count, start)
        with _timed("pictures and captions are encoded"):
            data = encode_samples(loaded, samples, cfg.face_weight, cfg.background_weight, cache)
            unseen = None
            if held_out and cfg.look_every:
                unseen = encode_samples(loaded, _fitted(held_out, model.resolution, learned), cache=cache)
        shown = [sample.caption for sample in [*held_out, *own]]
        watched = monitoring.watch(loaded, model, root, person, cfg, seed, (data, unseen), shown, faces)
        run = loop.train(loaded, learned, data, cfg, seed, checkpoints, watched, processes)
        files = learned.files(notes)
    processes.leave()
    checkpoints.remove()
    trainable = sum(weight.numel() for name, weight in learned.weights.items() if learned.rates[name] > 0)
    return files, used, _curve(run, cfg), _looks(run), _figures(run, trainable, files), drawn


def _notes(
    person: Concept,
    base: "BaseModel",
    samples: "list[Sample]",
    rights: Iterable[RightsRecord],
    about: Mapping[str, str],
    cfg: TrainConfig,
) -> "AdapterMetadata":
    from valentina_pipeline.image.lora.formats import AdapterMetadata
    from valentina_pipeline.image.train.samples import data_hash

    return AdapterMetadata(
        trigger=person.trigger,
        base_sha256=about["base"],
        data_sha256=data_hash(samples),
        resolution=max(samples[0].image.size),
        prediction_type=base.prediction_type,
        captions=tuple(sample.caption for sample in samples),
        rights=tuple(f"{record.id}: {record.holder}, {record.licence}" for record in rights),
        private=cfg.private,
    )


def _checkpoints(
    root: Path,
    notes: "AdapterMetadata",
    about: Mapping[str, str],
    cfg: TrainConfig,
    seed: int,
    processes: int,
    start: Path | None,
) -> "Checkpoints":
    """Return the checkpoints of exactly these inputs, all that a run's bits depend on."""
    from valentina_pipeline.image.lora.loading import parts
    from valentina_pipeline.training.checkpoints import Checkpoints

    inputs = {**vars(notes), **about, "config": cfg.model_dump(), "seed": seed, "processes": processes}
    inputs["start"] = [sha256(file) for file in parts(start)] if start else []
    return Checkpoints.of(root / "data/06_models" / notes.trigger / "checkpoints", inputs)


def _about(base: "BaseModel", cfg: TrainConfig, threads: int) -> dict[str, str]:
    """Return what decides, beside pictures and settings, on every bit that the networks compute."""
    from valentina_pipeline.common.threads import processor_kind
    from valentina_pipeline.image.models.weights import base_hash
    from valentina_pipeline.image.train import loop, validation

    return {
        **{library: version(library) for library in LIBRARIES},
        "base": base_hash(base.folder),
        "code": fingerprint(loop.__name__, validation.__name__),
        "threads": str(threads),
        "device": str(base.device),
        "processor": processor_kind(str(base.device)),
        "dtype": str(base.dtype),
        "quantise": cfg.quantise,
    }


def _start(extras: Path, name: str) -> Path | None:
    if not name:
        return None
    path = training_images.inside(extras, name)
    if not path.is_dir() and (not path.is_file() or path.suffix != ".safetensors"):
        raise training_images.InvalidExtraDataError(
            f"train_lora.start_from: {path} has to be a .safetensors file, or a folder in peft's layout"
        )
    return path


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Log how long the block took: where the time before the first step goes."""
    began = time.perf_counter()
    yield
    logger.info("%s: %.1f s", what, time.perf_counter() - began)


def _fitted(samples: "list[Sample]", side: int, learned: "Trainable", flip: bool = False) -> "list[Sample]":
    """Return the samples in sizes of one budget, worded for the tokenizers, by option mirrored ones too."""
    from dataclasses import replace

    from valentina_pipeline.image.train.samples import fit, flip_sample

    worded = [
        replace(sample, caption=learned.expand_trigger(sample.caption)) for sample in fit(samples, side**2)
    ]
    return worded + [flip_sample(sample) for sample in worded] if flip else worded


def _curve(run: "TrainState", cfg: TrainConfig) -> "pd.DataFrame":
    import pandas as pd

    from valentina_pipeline.training.lr_schedules import lr_multiplier

    steps = range(1, len(run.losses) + 1)
    rates = [cfg.learning_rate * lr_multiplier(step - 1, cfg) for step in steps]
    return pd.DataFrame({"step": steps, "loss": run.losses, "learning_rate": rates})


def _looks(run: "TrainState") -> "pd.DataFrame":
    import pandas as pd

    rows = [{"step": step, **run.looks[step]} for step in sorted(run.looks)]
    further = {column for row in rows for column in row} - set(LOOK_COLUMNS)
    return pd.DataFrame(rows, columns=[*LOOK_COLUMNS, *sorted(further)])


def _figures(run: "TrainState", trainable: int, files: dict[str, bytes]) -> dict[str, float]:
    last = run.losses[-50:]
    losses = {"final_loss": last[-1], "mean_loss_last_50": sum(last) / len(last)} if last else {}
    return {
        "steps": len(run.losses),
        **losses,
        "trainable_parameters": trainable,
        "file_bytes": max(map(len, files.values())),
        **(run.looks[max(run.looks)] if run.looks else {}),
    }
