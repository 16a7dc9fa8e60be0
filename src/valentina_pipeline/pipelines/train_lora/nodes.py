"""Nodes of the stage `train_lora`."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common import atomic_files
from valentina_pipeline.common.code_fingerprint import fingerprint
from valentina_pipeline.config.base_model import BaseConfig
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
    from valentina_pipeline.image.train.encoding import EncodedDataset
    from valentina_pipeline.image.train.methods import Trainable
    from valentina_pipeline.image.train.samples import Sample
    from valentina_pipeline.image.train.trainer import TrainState
    from valentina_pipeline.training.checkpoints import Checkpoints
    from valentina_pipeline.training.distributed import Processes
    from valentina_pipeline.training.encoding_cache import Cache

    Outputs = tuple[
        dict[str, bytes],
        dict[str, bytes],
        pd.DataFrame,
        pd.DataFrame,
        pd.DataFrame,
        dict[str, float],
        dict[str, Image.Image],
    ]

logger = logging.getLogger(__name__)

LIBRARIES = ("diffusers", "peft", "torch", "transformers")
"""Libraries whose versions round differently: checkpoints are not resumed across their versions."""

CACHE = "data/04_feature/cache"
"""Cache of latents, embedded captions and class images; `rm -r` of it costs time and nothing else."""

KEPT = "kept"
"""Folder of the kept LoRAs beside the checkpoints, with a folder for each step, until the run ends."""

VALIDATION_COLUMNS = ["step", "val_loss", "train_loss_fixed_noise", "generalization_gap"]


@dataclass(frozen=True)
class _Job:
    """Settings of one training run.

    Attributes:
        concept: the character.
        cfg: the stage's effective parameters.
        model: the base model as configured.
        root: the project's folder.
        extra_training_data: data/05_model_input/<concept>.
        seed: seed of every random draw.
        num_threads: threads of torch.
        unsafe: returns why an image is unsafe, or None.
    """

    concept: Concept
    cfg: TrainConfig
    model: BaseConfig
    root: Path
    extra_training_data: Path
    seed: int
    num_threads: int
    unsafe: "Callable[[Image.Image], str | None]"


@dataclass(frozen=True)
class _Selection:
    """Samples of one training run.

    Attributes:
        own: the character's training images.
        held_out: the character's held-out images.
        extra: the images of the extra data.
        table: a row of TRAINING_IMAGE_COLUMNS for each of them.
    """

    own: "list[Sample]"
    held_out: "list[Sample]"
    extra: "list[Sample]"
    table: "pd.DataFrame"


def train_adapter(
    aligned: "Mapping[str, Image.Image]",
    aligned_masks: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
    manifest: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    project_root: Path,
    tiny_weights: Path,
    extra_training_data: Path,
    extra_images: "Mapping[str, Image.Image]",
    extra_masks: "Mapping[str, Image.Image]",
    extra_manifest: "pd.DataFrame",
    concept: dict[str, Any],
    base: dict[str, Any],
    train_lora: dict[str, Any],
    seed: int,
    num_threads: int,
) -> "Outputs":
    """Train by the configured method on a concept's training images; an interrupted run resumes.

    Args:
        aligned: images of accepted faces by sha256, all of one size.
        aligned_masks: masks of some of them, of the same size: only white areas are learned.
        faces: align's rows with the face boxes; accepted rows of the split "train" are trained on.
        captions: sha256, caption, rejected.
        manifest: see domain/manifest.py.
        rights: the concept's records.
        project_root: the project's folder, where relative paths of a base start.
        tiny_weights: an input so that DVC follows the models that those paths name.
        extra_training_data: data/05_model_input/<concept>, for LoRAs to start from.
        extra_images: images of the extra data by sha256.
        extra_masks: masks of some of them.
        extra_manifest: their rows; see domain/manifest.py.
        concept: see Concept.
        base: see BaseConfig.
        train_lora: see TrainConfig.
        seed: seed of every random draw.
        num_threads: threads of torch; part of the result.

    Returns:
        The files by name; those of the kept steps and of the last, as "<step>/<name>"; the
        images trained on or held out (sha256, source_name, rights_id, split); the
        loss curve [step, train_loss, learning_rate]; the validation curve [step, val_loss,
        train_loss_fixed_noise, generalization_gap, ...]; the run's metrics; and the class images.

    Raises:
        NoTrainingImagesError: no image is left, one has no caption, or its record does not allow training.
        InvalidExtraDataError: ingest accepted no image of a folder of extra data.
        MissingModelError: the base model is not on this machine.
    """
    character = parse_config(Concept, concept, "concept")
    cfg = parse_config(TrainConfig, train_lora, "train_lora")
    logger.info("%s of %s, %d steps", cfg.method, character.name, cfg.max_steps)
    with _log_duration("libraries are imported"):
        import valentina_pipeline.image.train.loop  # noqa: F401  # the slowest import
        from valentina_pipeline.image.safety.content_filter import ContentFilter
        from valentina_pipeline.training.distributed import Processes

    model = parse_config(BaseConfig, base, "base")
    processes, unsafe = Processes.joined(), ContentFilter().unsafe
    training_images.check_rights(manifest, rights, clock.today())
    faces = apply_review(faces, captions)
    job = _Job(character, cfg, model, project_root, extra_training_data, seed, num_threads, unsafe)
    own, held_out = _portrait_samples(aligned, aligned_masks, faces, captions)
    extra = training_images.extra_samples(
        extra_images, extra_masks, extra_manifest, cfg.extra_datasets, rights
    )
    selection = _select(character, own, held_out, extra, manifest, faces)
    return _train(job, selection, faces, rights, processes)


def _portrait_samples(
    aligned: "Mapping[str, Image.Image]",
    masks: "Mapping[str, Image.Image]",
    faces: "pd.DataFrame",
    captions: "pd.DataFrame",
) -> "tuple[list[Sample], list[Sample]]":
    """Return the character's training samples and held-out samples.

    Raises:
        NoTrainingImagesError: there are no training samples, or one has no caption.
    """
    own, held_out = (
        training_images.training_samples(aligned, masks, faces, captions, split)
        for split in (TRAIN, HELD_OUT)
    )
    if not own:
        raise training_images.NoTrainingImagesError(
            "no aligned image belongs to the training split: see faces.parquet and rejections.csv"
        )
    return own, held_out


def _select(
    character: Concept,
    own: "list[Sample]",
    held_out: "list[Sample]",
    extra: "tuple[list[Sample], list[dict[str, str]]]",
    manifest: "pd.DataFrame",
    faces: "pd.DataFrame",
) -> _Selection:
    """Add the extra data to the portraits, check all captions, and list the images.

    Raises:
        NoTrainingImagesError: the prompt filter refuses a caption.
    """
    import pandas as pd

    samples, rows = extra
    training_images.refuse_captions([*own, *held_out, *samples], character.name)
    accepted = manifest.merge(faces.loc[faces["accepted"], ["sha256", "split"]], on="sha256")
    own_rows = accepted[list(training_images.TRAINING_IMAGE_COLUMNS)].to_dict("records")
    table = pd.DataFrame([*own_rows, *rows], columns=list(training_images.TRAINING_IMAGE_COLUMNS))
    return _Selection(own, held_out, samples, table)


def _train(
    job: _Job,
    selection: _Selection,
    faces: "pd.DataFrame",
    rights: tuple[RightsRecord, ...],
    processes: "Processes",
) -> "Outputs":
    """Load the base model, encode the samples, train, and return the node's outputs."""
    from valentina_pipeline.common.threads import reproducible
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.image.train import loop
    from valentina_pipeline.image.train.methods import build_method
    from valentina_pipeline.training.encoding_cache import Cache

    character, cfg, side = job.concept, job.cfg, job.model.resolution
    start = _init_path(job.extra_training_data, cfg.init_from)
    with reproducible(job.num_threads):
        with _log_duration("the base is loaded"):
            base = load_base(job.model, job.root, cfg.precision, cfg.quantize)
            inputs = _numeric_inputs(base, cfg, job.num_threads)
            cache = Cache(job.root / CACHE, inputs)
        prior = training_images.class_images(base, cfg, character.class_word, side, job.unsafe, cache)
        trainable = build_method(base, cfg, character.trigger, character.class_word, job.seed, start)
        balanced = training_images.add_prior_preservation(
            [*selection.own, *selection.extra], prior, character.class_word, cfg.prior_loss_weight
        )
        samples = _fitted(balanced, side, trainable, cfg.flip_aug)
        records = [record for record in rights if record.id in set(selection.table["rights_id"])]
        metadata = _metadata(character, base, samples, records, inputs, cfg)
        checkpoints = _checkpoints(job.root, metadata, inputs, cfg, job.seed, processes.count, start)
        with _log_duration("pictures and captions are encoded"):
            data = _encoded(base, samples, selection, trainable, job, cache)
        shown = [sample.caption for sample in [*selection.held_out, *selection.own]]
        kept = checkpoints.folder / KEPT

        def keep(step: int) -> None:
            with atomic_files.replacing_folder(kept / str(step)) as folder:
                atomic_files.write(trainable.files(metadata), folder)

        callbacks = monitoring.watch(
            base, job.model, job.root, character, cfg, job.seed, data, shown, faces, keep
        )
        run = loop.train(base, trainable, data[0], cfg, job.seed, checkpoints, callbacks, processes)
        files = trainable.files(metadata)
    processes.leave()
    steps = (
        {f"{len(run.losses)}/{name}": content for name, content in files.items()} if cfg.keep_every else {}
    )
    steps |= {str(file.relative_to(kept)): file.read_bytes() for file in kept.rglob("*") if file.is_file()}
    checkpoints.remove()
    curves = _loss_curve(run, cfg), _validation_curve(run)
    return files, steps, selection.table, *curves, _train_metrics(run, trainable, files), prior


def _encoded(
    base: "BaseModel",
    samples: "list[Sample]",
    selection: _Selection,
    trainable: "Trainable",
    job: _Job,
    cache: "Cache",
) -> "tuple[EncodedDataset, EncodedDataset | None]":
    """Encode the samples, and the held-out ones where the run evaluates them."""
    from valentina_pipeline.image.train.encoding import encode_samples

    cfg = job.cfg
    data = encode_samples(base, samples, cfg.face_loss_weight, cfg.background_loss_weight, cache)
    if not (selection.held_out and cfg.eval_every):
        return data, None
    held_out = _fitted(selection.held_out, job.model.resolution, trainable)
    return data, encode_samples(base, held_out, cache=cache)


def _metadata(
    character: Concept,
    base: "BaseModel",
    samples: "list[Sample]",
    rights: Iterable[RightsRecord],
    inputs: Mapping[str, str],
    cfg: TrainConfig,
) -> "AdapterMetadata":
    from valentina_pipeline.image.lora.formats import AdapterMetadata
    from valentina_pipeline.image.train.samples import data_hash

    return AdapterMetadata(
        trigger=character.trigger,
        base_sha256=inputs["base"],
        data_sha256=data_hash(samples),
        resolution=max(samples[0].image.size),
        prediction_type=base.prediction_type,
        captions=tuple(sample.caption for sample in samples),
        rights=tuple(f"{record.id}: {record.holder}, {record.license}" for record in rights),
        private=cfg.strip_metadata,
    )


def _checkpoints(
    root: Path,
    metadata: "AdapterMetadata",
    numeric_inputs: Mapping[str, str],
    cfg: TrainConfig,
    seed: int,
    processes: int,
    start: Path | None,
) -> "Checkpoints":
    """Return the checkpoints of exactly these inputs: everything that the run's result depends on."""
    from valentina_pipeline.image.lora.loading import parts
    from valentina_pipeline.training.checkpoints import Checkpoints

    inputs = {
        **vars(metadata),
        **numeric_inputs,
        "config": cfg.model_dump(),
        "seed": seed,
        "processes": processes,
    }
    inputs["start"] = [sha256(file) for file in parts(start)] if start else []
    return Checkpoints.of(root / "data/06_models" / metadata.trigger / "checkpoints", inputs)


def _numeric_inputs(base: "BaseModel", cfg: TrainConfig, num_threads: int) -> dict[str, str]:
    """Return the inputs, besides images and settings, that change how the networks' outputs round."""
    from valentina_pipeline.common.threads import processor_kind
    from valentina_pipeline.image.models.weights import base_hash
    from valentina_pipeline.image.train import loop, validation

    return {
        **{library: version(library) for library in LIBRARIES},
        "base": base_hash(base.path),
        "code": fingerprint(loop.__name__, validation.__name__),
        "threads": str(num_threads),
        "device": str(base.device),
        "processor": processor_kind(str(base.device)),
        "dtype": str(base.dtype),
        "quantize": cfg.quantize,
    }


def _init_path(extra_training_data: Path, name: str) -> Path | None:
    if not name:
        return None
    path = training_images.inside(extra_training_data, name)
    if not path.is_dir() and (not path.is_file() or path.suffix != ".safetensors"):
        raise training_images.InvalidExtraDataError(
            f"train_lora.init_from: {path} must be a .safetensors file, or a folder in peft's layout"
        )
    return path


@contextmanager
def _log_duration(step: str) -> Iterator[None]:
    """Log how long the block took, to show what delays the first training step."""
    began = time.perf_counter()
    yield
    logger.info("%s: %.1f s", step, time.perf_counter() - began)


def _fitted(samples: "list[Sample]", side: int, trainable: "Trainable", flip: bool = False) -> "list[Sample]":
    """Fit the samples to buckets of side**2 pixels and expand their triggers; `flip` adds mirrored ones."""
    from dataclasses import replace

    from valentina_pipeline.image.train.samples import fit, flip_sample

    worded = [
        replace(sample, caption=trainable.expand_trigger(sample.caption)) for sample in fit(samples, side**2)
    ]
    return worded + [flip_sample(sample) for sample in worded] if flip else worded


def _loss_curve(run: "TrainState", cfg: TrainConfig) -> "pd.DataFrame":
    import pandas as pd

    from valentina_pipeline.training.lr_schedules import lr_multiplier

    steps = range(1, len(run.losses) + 1)
    rates = [cfg.learning_rate * lr_multiplier(step - 1, cfg) for step in steps]
    return pd.DataFrame({"step": steps, "train_loss": run.losses, "learning_rate": rates})


def _validation_curve(run: "TrainState") -> "pd.DataFrame":
    import pandas as pd

    rows = [{"step": step, **run.eval_metrics[step]} for step in sorted(run.eval_metrics)]
    further = {column for row in rows for column in row} - set(VALIDATION_COLUMNS)
    return pd.DataFrame(rows, columns=[*VALIDATION_COLUMNS, *sorted(further)])


def _train_metrics(run: "TrainState", trainable: "Trainable", files: dict[str, bytes]) -> dict[str, float]:
    names = [name for name in trainable.weights if trainable.rates[name] > 0]
    last = run.losses[-50:]
    losses = {"train_loss_last": last[-1], "train_loss_mean_last_50": sum(last) / len(last)} if last else {}
    return {
        "steps": len(run.losses),
        **losses,
        "trainable_parameters": sum(trainable.weights[name].numel() for name in names),
        "adapter_bytes": max(map(len, files.values())),
        **(run.eval_metrics[max(run.eval_metrics)] if run.eval_metrics else {}),
    }
