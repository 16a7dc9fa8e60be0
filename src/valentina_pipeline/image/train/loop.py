"""Training loop: freeze the base model, encode the images once, update only the trainable weights.

Every random draw is a function of (seed, step, slot). A run that resumes from its checkpoint therefore ends
in the same bytes as an uninterrupted one, and two processes draw the same numbers as one.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.lora.fused_linear import use_fused_linear
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.train.encoding import EncodedDataset, PromptEmbedCache
from valentina_pipeline.image.train.loss import DiffusionLoss, NoiseSchedule
from valentina_pipeline.image.train.methods import Trainable
from valentina_pipeline.image.train.trainer import Trainer, TrainState
from valentina_pipeline.training.callbacks import Metrics, TrainingCallbacks
from valentina_pipeline.training.checkpoints import Checkpoints
from valentina_pipeline.training.distributed import Processes
from valentina_pipeline.training.early_stopping import best_step, should_stop
from valentina_pipeline.training.encoding_cache import NO_CACHE
from valentina_pipeline.training.finite import NotFiniteError, refuse_not_finite
from valentina_pipeline.training.interrupts import TrainingInterrupted, stop_on_signal

logger = logging.getLogger(__name__)

NUM_FIRST_LOSSES, DIVERGENCE_FACTOR = 20, 100.0
"""A loss of 100 times the largest of the first 20 has diverged; timesteps alone make smaller differences."""


class LossDivergedError(ArithmeticError):
    """Loss, gradient or weights are not finite, or the loss is far above its first values."""


NO_CALLBACKS, SINGLE_PROCESS = TrainingCallbacks(), Processes()


def train(
    base: BaseModel,
    trainable: Trainable,
    data: EncodedDataset,
    cfg: TrainConfig,
    seed: int,
    checkpoints: Checkpoints,
    watch: TrainingCallbacks = NO_CALLBACKS,
    processes: Processes = SINGLE_PROCESS,
) -> TrainState:
    """Train the weights of `trainable` in place, from the last checkpoint if one exists.

    Args:
        base: base model that contains the trainable weights; its other weights stay frozen.
        trainable: trainable weights and their learning rates, see methods.py.
        data: encoded training set, see encoding.py.
        cfg: effective parameters.
        seed: seed of every random draw.
        checkpoints: checkpoints of exactly these inputs.
        watch: callbacks for logs, sample images and evaluations.
        processes: processes that share the batches of each step.

    Returns:
        State of the run. The weights are the last ones or their average, or those of the best evaluation.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM stopped the run; the next run resumes from its checkpoint.
        LossDivergedError: loss, gradient, weights or optimizer state are not finite, or the loss diverged;
            nothing of that step is saved.
        OutOfMemoryError: the memory does not hold a step on one image.
    """
    loss_fn = DiffusionLoss(base, data, NoiseSchedule.of(base), cfg, seed, _texts(base, trainable, data, cfg))
    trainer = Trainer.of(trainable.weights, trainable.rates, trainable.spans, loss_fn, processes)
    configure_for_training(base, cfg)
    state = checkpoints.latest()
    run = TrainState() if state is None else trainer.restore(state)
    step = len(run.losses)
    if step:
        logger.info("resuming from step %d: %s", step, checkpoints.last_path())
    with _progress(cfg.max_steps, step, processes.first) as show, stop_on_signal() as stop:
        while step < cfg.max_steps and not should_stop(
            run.eval_metrics, cfg.best_metric, cfg.early_stopping_patience
        ):
            began = time.perf_counter()
            with _refuse_divergence(step + 1, checkpoints):
                loss, stop_requested = processes.agree(trainer.step(step, run), stop.is_set())
            _check_divergence(loss, run.losses, checkpoints)
            run.losses.append(loss)
            step += 1
            seconds = time.perf_counter() - began
            metrics = _run_evaluations(trainer, watch, step, run, cfg)
            if processes.first:
                rate = max(group["lr"] for group in trainer.optimizer.param_groups)
                progress = {"train_loss": loss, "learning_rate": rate, "steps_per_second": 1 / seconds}
                watch.log({**progress, **metrics}, step)
            show(step, f"loss {loss:.4f}, {1 / seconds:.2f} steps/s")
            best = best_step(run.eval_metrics, cfg.best_metric)
            due = step % cfg.save_every == 0 and step < cfg.max_steps
            if processes.first and (stop_requested or due or best == step):
                with _refuse_divergence(step, checkpoints):
                    checkpoints.save(trainer.state(step, run), keep=best)
            if stop_requested:
                raise TrainingInterrupted(
                    f"stopped after step {step} of {cfg.max_steps}: `dvc repro` resumes it"
                )
    best = best_step(run.eval_metrics, cfg.best_metric)
    if best is not None:
        processes.wait()  # until the main process has written it
        trainer.restore(checkpoints.read(best))
    trainer.settle()
    with _refuse_divergence(step, checkpoints):
        refuse_not_finite(trainer.weights, "the trained weights")
    base.unet.eval()
    return run


def _texts(
    base: BaseModel, trainable: Trainable, data: EncodedDataset, cfg: TrainConfig
) -> PromptEmbedCache | None:
    """Return the cache of text embeddings, or None if a text encoder is trained.

    Only unaugmented captions are cached on disk; augmented ones rarely repeat.
    """
    if any(rate > 0 and name.startswith("text") for name, rate in trainable.rates.items()):
        return None
    return PromptEmbedCache(
        base, NO_CACHE if cfg.keep_tokens >= 0 or cfg.caption_tag_dropout_rate > 0 else data.cache
    )


def _run_evaluations(
    trainer: Trainer, watch: TrainingCallbacks, step: int, run: TrainState, cfg: TrainConfig
) -> Metrics:
    evaluations = [evaluation for every, evaluation in watch.evaluators if every and step % every == 0]
    sample_due = bool(cfg.sample_every) and step % cfg.sample_every == 0
    keep_due = bool(cfg.keep_every) and step % cfg.keep_every == 0 and step < cfg.max_steps
    if not (evaluations or sample_due or keep_due):
        return {}

    def evaluate() -> Metrics:
        if sample_due:
            watch.sample(step, trainer.base.pipe)
        if keep_due:
            watch.keep(step)
        return {name: value for evaluation in evaluations for name, value in evaluation().items()}

    with trainer.eval_mode():
        metrics = trainer.processes.broadcast(evaluate)
    if metrics:
        run.eval_metrics[step] = metrics
    return metrics


def configure_for_training(base: BaseModel, cfg: TrainConfig) -> None:
    """Set gradient checkpointing, fused LoRA layers and compilation, and switch to training mode."""
    if cfg.gradient_checkpointing is True:  # "auto" turns it on when the memory is full
        base.unet.enable_gradient_checkpointing()
    for network in (base.unet, *base.text_encoders.values()):
        use_fused_linear(network)
    if cfg.compile:
        base.compile()
    base.unet.train()  # gradient checkpointing needs it; the networks have no dropout


def _check_divergence(loss: float, before: Sequence[float], checkpoints: Checkpoints) -> None:
    first = before[:NUM_FIRST_LOSSES]
    if math.isfinite(loss) and (len(first) < NUM_FIRST_LOSSES or loss < DIVERGENCE_FACTOR * max(first)):
        return
    raise _diverged(f"the loss of step {len(before) + 1} is {loss:g}", checkpoints)


def _diverged(reason: str, checkpoints: Checkpoints) -> LossDivergedError:
    last = checkpoints.last_path()
    good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return LossDivergedError(f"{reason}: lower train_lora.learning_rate; {good}")


@contextmanager
def _refuse_divergence(step: int, checkpoints: Checkpoints) -> Iterator[None]:
    """Raise LossDivergedError for numbers that are not finite, before they are saved."""
    try:
        yield
    except NotFiniteError as err:
        raise _diverged(f"step {step}: {err}", checkpoints) from err


@contextmanager
def _progress(steps: int, done: int, visible: bool) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("train_lora"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not visible) as progress:
        bar = progress.add_task("", total=steps, completed=done)
        yield lambda completed, text: progress.update(bar, completed=completed, description=text)
