"""The training loop: freeze the base, encode the pictures once, and move only the LoRA.

Every random draw is a function of (seed, step), so that a run which was killed and goes on from its
checkpoint ends in the same bytes as one that was not.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from valentina_pipeline.config import TrainConfig
from valentina_pipeline.image import objective
from valentina_pipeline.image.base import BaseModel
from valentina_pipeline.image.checkpoint import Checkpoints, State
from valentina_pipeline.image.encoding import Encoded, Sample, encode_samples, encode_text
from valentina_pipeline.image.lora import Adapter

logger = logging.getLogger(__name__)

LARGEST_GRADIENT = 1.0
"""Norm that gradients are clipped to."""

WEIGHT_DECAY = 0.01

Log = Callable[[dict[str, float], int], None]
Sampler = Callable[[int, Any], None]


class Stopped(KeyboardInterrupt):
    """Somebody stopped the run; a checkpoint was written first."""


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


def train(
    base: BaseModel,
    adapter: Adapter,
    samples: Sequence[Sample],
    cfg: TrainConfig,
    seed: int,
    checkpoints: Checkpoints,
    log: Log = lambda metrics, step: None,
    sample: Sampler = lambda step, pipe: None,
) -> list[float]:
    """Train `adapter` in place on `samples`, going on from the last checkpoint if there is one.

    Args:
        base: carries the adapter; the rest of it stays as it is.
        adapter: untrained.
        samples: pictures of one size, multiples of 8 pixels.
        cfg: see config.py.
        seed: of every draw.
        checkpoints: of exactly these inputs.
        log: gets loss, learning_rate and steps_per_second after each step.
        sample: gets the pipeline, LoRA included, every `cfg.sample_every` steps.

    Returns:
        The loss of each step.

    Raises:
        Stopped: Ctrl-C or SIGTERM came; the next run goes on from there.
        Diverged: the loss is not finite; the weights of that step are not kept.
        ValueError: no samples, or of several sizes.
    """
    weights = adapter.weights()
    frozen_text = not any(name.startswith("text") for name in adapter.modules)
    data = encode_samples(base, samples, cfg.face_weight, text=frozen_text)
    noise = _Noise.of(base)
    optimiser, rates = _optimiser(adapter, cfg)
    scaler = torch.amp.GradScaler(base.device.type, enabled=_amp_dtype(base, cfg) == torch.float16)
    done, losses = _resume(checkpoints, weights, optimiser, scaler)
    if base.device.type == "cuda":
        base.unet.enable_gradient_checkpointing()
    base.unet.train()  # for gradient checkpointing alone: there is no dropout
    with _progress(cfg.steps, done) as show, _stop_request() as stop:
        for step in range(done, cfg.steps):
            began = time.perf_counter()
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(step, cfg)
            with _autocast(base, cfg):
                loss = _step_loss(base, data, noise, cfg, seed, step)
            losses.append(loss.item())
            _check_finite(losses[-1], step, checkpoints)
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(weights.values(), LARGEST_GRADIENT)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            done = step + 1
            speed = 1 / (time.perf_counter() - began)
            rate_now = optimiser.param_groups[0]["lr"]
            log({"loss": losses[-1], "learning_rate": rate_now, "steps_per_second": speed}, done)
            show(done, f"loss {losses[-1]:.4f}, {speed:.2f} steps/s")
            if stop.is_set() or (done % cfg.checkpoint_every == 0 and done < cfg.steps):
                checkpoints.save(_state(done, losses, weights, optimiser, scaler))
            if stop.is_set():
                raise Stopped(f"stopped after step {done} of {cfg.steps}: `dvc repro` goes on from there")
            if cfg.sample_every and done % cfg.sample_every == 0:
                base.unet.eval()
                sample(done, base.pipe)
                base.unet.train()
    base.unet.eval()
    return losses


def schedule(step: int, cfg: TrainConfig) -> float:
    """Return the share of the learning rate at `step`: a linear warm-up, then a cosine towards 0."""
    if step < cfg.warmup_steps:
        return (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(1, cfg.steps - cfg.warmup_steps)
    return (1 + math.cos(math.pi * progress)) / 2


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Run torch on `threads` threads and only with deterministic kernels inside the block."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for to be deterministic
    filling: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filled, filling.fill_uninitialized_memory = filling.fill_uninitialized_memory, False  # 5 % of each step
    torch.set_num_threads(threads)
    # on GPUs some backward passes have no deterministic kernel: a warning there, not an error
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        filling.fill_uninitialized_memory = filled


@dataclass(frozen=True)
class _Noise:
    """The base's noise schedule: the cumulated alphas (timesteps,), and what the denoiser predicts."""

    kept: Tensor
    prediction_type: str

    @classmethod
    def of(cls, base: BaseModel) -> "_Noise":
        from diffusers import DDPMScheduler

        # whatever samples, training needs the plain schedule of the same configuration (zero-SNR rescale too)
        scheduler = DDPMScheduler.from_config(base.pipe.scheduler.config)
        return cls(scheduler.alphas_cumprod.float().to(base.device), base.prediction_type)


def _step_loss(
    base: BaseModel, data: Encoded, noise: _Noise, cfg: TrainConfig, seed: int, step: int
) -> Tensor:
    images, *shape = data.latents.shape
    drawn = objective.draw(seed, step, cfg.batch_size, images, tuple(shape), len(noise.kept))
    rows, timesteps = drawn.rows.to(base.device), drawn.timesteps.to(base.device)
    eps, dropped = drawn.noise.to(base.device), drawn.dropped.to(base.device)
    clean, kept = data.latents[rows], noise.kept[timesteps]
    context, conditions = _conditions(base, data, torch.where(dropped, images, rows), dropped)
    noisy = objective.corrupt(clean, eps, kept).contiguous(memory_format=torch.channels_last)
    dtype = base.unet.dtype
    predicted = base.unet(noisy.to(dtype), timesteps, context.to(dtype), added_cond_kwargs=conditions).sample
    wanted = objective.target(clean, eps, kept, noise.prediction_type)
    weight = objective.weights(kept, cfg.min_snr_gamma, noise.prediction_type)
    return objective.loss(predicted, wanted, weight, data.places[rows])


def _conditions(
    base: BaseModel, data: Encoded, rows: Tensor, dropped: Tensor
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Return what the U-Net attends to (n, 77, d), and SDXL's further conditions."""
    if data.text is None:
        context, pooled = encode_text(base, [ids[rows] for ids in data.tokens])
    else:
        context, pooled = data.text[0][rows], None if data.text[1] is None else data.text[1][rows]
    if pooled is None:
        return context, None
    if base.pipe.config.force_zeros_for_empty_prompt:  # SDXL's own unconditional side is zeros, not ""
        context = context.masked_fill(dropped[:, None, None], 0)
        pooled = pooled.masked_fill(dropped[:, None], 0)
    dtype = base.unet.dtype
    return context, {"text_embeds": pooled.to(dtype), "time_ids": data.sizes.to(dtype).expand(len(rows), -1)}


def _optimiser(adapter: Adapter, cfg: TrainConfig) -> tuple[torch.optim.AdamW, list[float]]:
    groups, rates = [], []
    for module in adapter.modules:
        groups.append({"params": list(adapter.parameters(module).values())})
        rates.append(cfg.learning_rate if module == "unet" else cfg.text_encoder_learning_rate)
    return torch.optim.AdamW(groups, lr=rates[0], weight_decay=WEIGHT_DECAY, fused=True), rates


def _amp_dtype(base: BaseModel, cfg: TrainConfig) -> torch.dtype:
    if base.device.type == "cpu" and cfg.precision == "fp16":
        return torch.float32  # CPUs have no float16 arithmetic to gain from
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[cfg.precision]


def _autocast(base: BaseModel, cfg: TrainConfig) -> AbstractContextManager[Any]:
    dtype = _amp_dtype(base, cfg)
    return nullcontext() if dtype == torch.float32 else torch.autocast(base.device.type, dtype)


def _check_finite(loss: float, step: int, checkpoints: Checkpoints) -> None:
    if not math.isfinite(loss):
        last = checkpoints.last_path()
        good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise Diverged(f"the loss of step {step + 1} is {loss}: lower train_lora.learning_rate; {good}")


def _state(
    done: int,
    losses: list[float],
    weights: dict[str, nn.Parameter],
    optimiser: torch.optim.AdamW,
    scaler: torch.amp.GradScaler,
) -> State:
    tensors: dict[str, Tensor] = {f"weight/{name}": p for name, p in weights.items()}
    for name, parameter in weights.items():
        for key, value in optimiser.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    return State(done, tensors, {"losses": losses, "scaler": scaler.state_dict()})


def _resume(
    checkpoints: Checkpoints,
    weights: dict[str, nn.Parameter],
    optimiser: torch.optim.AdamW,
    scaler: torch.amp.GradScaler,
) -> tuple[int, list[float]]:
    """Restore the last checkpoint; return how many steps are done and their losses."""
    state = checkpoints.latest()
    if state is None:
        return 0, []
    for label, saved in state.tensors.items():
        key, name = label.split("/", 1)
        parameter = weights[name]
        if key == "weight":
            parameter.data.copy_(saved)
        elif key == "step":
            optimiser.state[parameter][key] = saved.to(parameter.device)
        else:  # in the parameter's own memory layout, as AdamW makes it
            optimiser.state[parameter][key] = torch.empty_like(parameter).copy_(saved).detach()
    scaler.load_state_dict(state.facts["scaler"])
    logger.info("going on from step %d: %s", state.step, checkpoints.last_path())
    return state.step, list(state.facts["losses"])


@contextmanager
def _progress(steps: int, done: int) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("train_lora"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=steps, completed=done)
        yield lambda completed, words: progress.update(bar, completed=completed, description=words)


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so that no step is cut in half; a second one ends."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals belong to the main thread
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        asked.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
