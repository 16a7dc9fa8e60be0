"""The training loop: freeze the base, encode the pictures once, and move only what is to learn.

Every random draw is a function of (seed, step, slot), so that a run which was killed and goes on from its
checkpoint ends in the same bytes as one that was not, and two processes draw what one would have drawn.
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

FIRST, DIVERGED = 20, 100.0
"""A loss so many times the largest of so many first ones has diverged: timesteps alone differ by less."""


class LossDivergedError(ArithmeticError):
    """Loss, gradient or weights are no longer numbers, or the loss is far from where it began."""


SILENT, ALONE = TrainingCallbacks(), Processes()


def train(
    base: BaseModel,
    learned: Trainable,
    data: EncodedDataset,
    cfg: TrainConfig,
    seed: int,
    checkpoints: Checkpoints,
    watch: TrainingCallbacks = SILENT,
    processes: Processes = ALONE,
) -> TrainState:
    """Move what is `learned` in place on `data`, going on from the last checkpoint if there is one.

    Args:
        base: carries it; the rest of the base stays as it is.
        learned: see learned.py.
        data: see encoding.py.
        cfg: the effective parameters.
        seed: of every draw.
        checkpoints: of exactly these inputs.
        watch: see there.
        processes: that share each step's batches.

    Returns:
        The run. The weights are the last ones or their average, or those of the best look.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM came; the next run goes on from there.
        LossDivergedError: loss, gradient, weights or optimizer are not finite, or the loss has run away;
            nothing of that step is kept.
        OutOfMemory: one picture at a time is too much.
    """
    loss_of = DiffusionLoss(base, data, NoiseSchedule.of(base), cfg, seed, _texts(base, learned, data, cfg))
    mover = Trainer.of(learned.weights, learned.rates, learned.spans, loss_of, processes)
    configure_for_training(base, cfg)
    state = checkpoints.latest()
    run = TrainState() if state is None else mover.restore(state)
    done = len(run.losses)
    if done:
        logger.info("going on from step %d: %s", done, checkpoints.last_path())
    with _progress(cfg.steps, done, processes.first) as show, stop_on_signal() as stop:
        while done < cfg.steps and not should_stop(run.looks, cfg.keep, cfg.patience):
            began = time.perf_counter()
            with _kept_good(done + 1, checkpoints):
                loss, asked = processes.agree(mover.step(done, run), stop.is_set())
            _check_divergence(loss, run.losses, checkpoints)
            run.losses.append(loss)
            done += 1
            seconds = time.perf_counter() - began
            found = _run_evaluations(mover, watch, done, run, cfg)
            if processes.first:
                rate = max(group["lr"] for group in mover.optimiser.param_groups)
                figures = {"loss": loss, "learning_rate": rate, "steps_per_second": 1 / seconds}
                watch.log({**figures, **found}, done)
            show(done, f"loss {loss:.4f}, {1 / seconds:.2f} steps/s")
            best = best_step(run.looks, cfg.keep)
            due = done % cfg.checkpoint_every == 0 and done < cfg.steps
            if processes.first and (asked or due or best == done):
                with _kept_good(done, checkpoints):
                    checkpoints.save(mover.state(done, run), keep=best)
            if asked:
                raise TrainingInterrupted(
                    f"stopped after step {done} of {cfg.steps}: `dvc repro` goes on from there"
                )
    best = best_step(run.looks, cfg.keep)
    if best is not None:
        processes.wait()  # for the first to have written it
        mover.restore(checkpoints.read(best))
    mover.settle()
    with _kept_good(done, checkpoints):
        refuse_not_finite(mover.weights, "what was learned")
    base.unet.eval()
    return run


def _texts(
    base: BaseModel, learned: Trainable, data: EncodedDataset, cfg: TrainConfig
) -> PromptEmbedCache | None:
    """Return the embedded captions, where no text encoder moves; on disk only those that come again."""
    if any(rate > 0 and name.startswith("text") for name, rate in learned.rates.items()):
        return None
    return PromptEmbedCache(base, NO_CACHE if cfg.keep_tags >= 0 or cfg.tag_dropout > 0 else data.cache)


def _run_evaluations(
    mover: Trainer, watch: TrainingCallbacks, done: int, run: TrainState, cfg: TrainConfig
) -> Metrics:
    looks = [look for every, look in watch.looks if every and done % every == 0]
    sampled = bool(cfg.sample_every) and done % cfg.sample_every == 0
    if not looks and not sampled:
        return {}

    def evaluate() -> Metrics:
        if sampled:
            watch.sample(done, mover.base.pipe)
        return {name: value for look in looks for name, value in look().items()}

    with mover.eval_mode():
        found = mover.processes.broadcast(evaluate)
    if found:
        run.looks[done] = found
    return found


def configure_for_training(base: BaseModel, cfg: TrainConfig) -> None:
    """Set the networks up as the run wants them: checkpointed, compiled, fast, in training mode."""
    wanted = cfg.gradient_checkpointing
    if base.device.type == "cuda" if wanted == "auto" else wanted:
        base.unet.enable_gradient_checkpointing()
    for network in (base.unet, *base.text_encoders.values()):
        use_fused_linear(network)
    if cfg.compile:
        base.compile()
    base.unet.train()  # for gradient checkpointing alone: there is no dropout


def _check_divergence(loss: float, before: Sequence[float], checkpoints: Checkpoints) -> None:
    first = before[:FIRST]
    if math.isfinite(loss) and (len(first) < FIRST or loss < DIVERGED * max(first)):
        return
    raise _diverged(f"the loss of step {len(before) + 1} is {loss:g}", checkpoints)


def _diverged(why: str, checkpoints: Checkpoints) -> LossDivergedError:
    last = checkpoints.last_path()
    good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return LossDivergedError(f"{why}: lower train_lora.learning_rate; {good}")


@contextmanager
def _kept_good(step: int, checkpoints: Checkpoints) -> Iterator[None]:
    """Have what is not finite end the run before anything of it is kept."""
    try:
        yield
    except NotFiniteError as err:
        raise _diverged(f"step {step}: {err}", checkpoints) from err


@contextmanager
def _progress(steps: int, done: int, shown: bool) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("train_lora"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not shown) as progress:
        bar = progress.add_task("", total=steps, completed=done)
        yield lambda completed, words: progress.update(bar, completed=completed, description=words)
