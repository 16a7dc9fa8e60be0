"""One step of training: gradients of a batch, however it is cut, and what moves by them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.config import TrainConfig
from valentina_pipeline.image import objective
from valentina_pipeline.image.base import BaseModel
from valentina_pipeline.image.batches import batch_rows
from valentina_pipeline.image.checkpoint import State
from valentina_pipeline.image.encoding import Encoded, Texts, encode_text, tokenise, vary
from valentina_pipeline.image.finite import NotFiniteError
from valentina_pipeline.image.memory import halve_when_full
from valentina_pipeline.image.optimise import (
    Span,
    make_optimiser,
    optimiser_state,
    parameter_groups,
    restore_optimiser,
    schedule,
)
from valentina_pipeline.image.processes import Processes


@dataclass
class Run:
    """What came of the steps so far; all of it JSON.

    Attributes:
        losses: of each step.
        looks: figures by step.
        micro: pictures that go through the networks at once; fewer than a batch where memory was short.
    """

    losses: list[float] = field(default_factory=list)
    looks: dict[int, dict[str, float]] = field(default_factory=dict)
    micro: int = 0


@dataclass(frozen=True)
class Noise:
    """The base's noise schedule: the cumulated alphas (timesteps,), and what the denoiser predicts."""

    kept: Tensor
    prediction_type: str

    @classmethod
    def of(cls, base: BaseModel) -> "Noise":
        """Return the schedule that training needs of a base, whatever it samples with."""
        from diffusers import DDPMScheduler

        # the plain schedule of the same configuration (zero-SNR rescale too)
        scheduler = DDPMScheduler.from_config(base.pipe.scheduler.config)
        return cls(scheduler.alphas_cumprod.float().to(base.device), base.prediction_type)


Text = tuple[Tensor, Tensor | None]
"""What the U-Net attends to (n, 77, d), and SDXL's pooled embeddings (n, p)."""


def denoised(
    base: BaseModel, noise: Noise, clean: Tensor, eps: Tensor, timesteps: Tensor, text: Text, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the U-Net makes of noised latents and what it should, both (n, c, h, w).

    Args:
        base: see base.py.
        noise: the schedule.
        clean: latents.
        eps: the noise, of the same shape.
        timesteps: int64 (n,).
        text: of n captions.
        sizes: SDXL's conditions (n, 6).
    """
    context, pooled = text
    kept, dtype = noise.kept[timesteps], base.dtype
    noisy = objective.corrupt(clean, eps, kept).contiguous(memory_format=torch.channels_last)
    extra = None if pooled is None else {"text_embeds": pooled.to(dtype), "time_ids": sizes.to(dtype)}
    predicted = base.unet(noisy.to(dtype), timesteps, context.to(dtype), added_cond_kwargs=extra).sample
    return predicted, objective.target(clean, eps, kept, noise.prediction_type)


@dataclass(frozen=True)
class Objective:
    """The loss of some samples of a step.

    Attributes:
        texts: what the U-Net attends to where the text encoders stand still; None: computed each time.
    """

    base: BaseModel
    data: Encoded
    noise: Noise
    cfg: TrainConfig
    seed: int
    texts: Texts | None

    def __call__(self, step: int, rows: Sequence[int], slots: Sequence[int]) -> Tensor:
        """Return the mean loss of `rows`, drawn for the places `slots` of the step's whole batch."""
        cfg, device, ptype = self.cfg, self.base.device, self.noise.prediction_type
        clean = torch.stack([self.data.latents[row] for row in rows])
        first, end = cfg.timesteps
        span = first, min(end, len(self.noise.kept))
        drawn = objective.draw(self.seed, step, slots, tuple(clean.shape[1:]), span, cfg.noise_offset)
        timesteps, eps = drawn.timesteps.to(device), drawn.noise.to(device)
        text, sizes = self._text(rows, drawn), self.data.conditions[list(rows)]
        predicted, wanted = denoised(self.base, self.noise, clean, eps, timesteps, text, sizes)
        kept = self.noise.kept[timesteps]
        if cfg.debiased:
            weight = objective.debiased_weights(kept, ptype)
        else:
            weight = objective.weights(kept, cfg.min_snr_gamma, ptype)
        weight = weight * self.data.weight[list(rows)]
        places = torch.stack([self.data.places[row] for row in rows])
        return objective.loss(predicted, wanted, weight, places)

    def _text(self, rows: Sequence[int], drawn: objective.Draw) -> Text:
        """Return the embedded captions as this step shows them: varied, and some left out."""
        cfg = self.cfg
        dropped = drawn.dropout < cfg.caption_dropout
        captions = [self.data.captions[row] for row in rows]
        if cfg.keep_tags >= 0 or cfg.tag_dropout > 0:
            captions = [
                vary(caption, order, cfg.keep_tags, cfg.tag_dropout)
                for caption, order in zip(captions, drawn.order.tolist(), strict=True)
            ]
        captions = ["" if left_out else caption for left_out, caption in zip(dropped, captions, strict=True)]
        if self.texts is not None:
            context, pooled = self.texts(captions)
        else:
            context, pooled = encode_text(self.base, tokenise(self.base, captions))
        if pooled is None:
            return context, None
        if self.base.pipe.config.force_zeros_for_empty_prompt:  # SDXL's unconditional side is zeros, not ""
            left_out = dropped.to(context.device)
            context = context.masked_fill(left_out[:, None, None], 0)
            pooled = pooled.masked_fill(left_out[:, None], 0)
        return context, pooled


@dataclass
class Mover:
    """What learns, and what moves it."""

    base: BaseModel
    weights: Mapping[str, nn.Parameter]
    loss: Objective
    processes: Processes
    optimiser: torch.optim.Optimizer
    peaks: list[float]
    mean: dict[str, Tensor]
    scaler: torch.amp.GradScaler

    @classmethod
    def of(
        cls,
        weights: Mapping[str, nn.Parameter],
        rates: Mapping[str, float],
        spans: Mapping[str, Span],
        loss: Objective,
        processes: Processes,
    ) -> "Mover":
        """Return a mover at the start; weights of rate 0 are frozen and left out."""
        base, cfg = loss.base, loss.cfg
        groups = parameter_groups(weights, rates, spans)
        learning = {name: weight for name, weight in weights.items() if weight.requires_grad}
        optimiser = make_optimiser(groups, cfg)
        if hasattr(optimiser, "train"):
            optimiser.train()
        return cls(
            base,
            learning,
            loss,
            processes,
            optimiser,
            [group["lr"] for group in groups],
            {name: weight.detach().clone() for name, weight in learning.items()} if cfg.ema else {},
            torch.amp.GradScaler(base.device.type, enabled=_amp_dtype(base, cfg) == torch.float16),
        )

    def step(self, step: int, run: Run) -> Tensor:
        """Do one step and return its loss; where memory is short, in smaller pieces (`run.micro`).

        Raises:
            NotFiniteError: the gradient is not finite, though the loss is; nothing was moved by it.
        """
        cfg = self.loss.cfg
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            share = schedule(step, cfg, group["span"])
            group["lr"] = peak * share
            for weight in group["params"]:
                weight.requires_grad_(share > 0)
        total = torch.zeros((), device=self.base.device)

        def gradients(micro: int) -> None:
            self.optimiser.zero_grad(set_to_none=True)
            total.zero_()
            for rows, slots in self._pieces(step, micro):
                share = len(rows) / (cfg.batch_size * cfg.accumulate)
                with _autocast(self.base, cfg):
                    loss = self.loss(step, rows, slots) * share
                self.scaler.scale(loss).backward()
                total.add_(loss.detach())

        networks = {"unet": self.base.unet, "vae": self.base.vae, **self.base.text_encoders}
        run.micro = halve_when_full(gradients, run.micro or cfg.batch_size, networks)
        self.processes.average(w.grad for w in self.weights.values() if w.grad is not None)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.weights.values(), cfg.max_gradient)
        if norm.isfinite():
            self.scaler.step(self.optimiser)
        elif total.isfinite() and (not self.scaler.is_enabled() or self.scaler.get_scale() < 1):
            raise NotFiniteError("the gradient is not finite")
        self.scaler.update()  # half precision: a scale that was too large is halved, and the step left out
        if self.mean:
            # short runs: an average over no more than what there was
            keep = min(cfg.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(
                list(self.mean.values()), [w.detach() for w in self.weights.values()], 1 - keep
            )
        return total

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Have the networks stand still, at the weights that the run would end with now."""
        self.base.unet.eval()
        before = self.settle()
        yield
        with torch.no_grad():
            for name, weight in before.items():
                self.weights[name].copy_(weight)
        if hasattr(self.optimiser, "train"):
            self.optimiser.train()
        self.base.unet.train()

    def settle(self) -> dict[str, Tensor]:
        """Put the weights to what the run ends with; return what they were."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        if hasattr(self.optimiser, "eval"):  # schedule-free: from where gradients are taken to the average
            self.optimiser.eval()
            return {}
        with torch.no_grad():
            for name, average in self.mean.items():
                self.weights[name].copy_(average)
        return before if self.mean else {}

    def state(self, done: int, run: Run) -> State:
        """Return all that the next step depends on."""
        tensors: dict[str, Tensor] = {f"weight/{name}": w for name, w in self.weights.items()}
        tensors |= {f"mean/{name}": average for name, average in self.mean.items()}
        moments, facts = optimiser_state(self.optimiser, self._names())
        tensors |= {f"optimiser/{label}": tensor for label, tensor in moments.items()}
        return State(
            done, tensors, {"run": asdict(run), "optimiser": facts, "scaler": self.scaler.state_dict()}
        )

    def restore(self, state: State) -> Run:
        """Go back to where `state` was."""
        moments = {}
        with torch.no_grad():
            for label, tensor in state.tensors.items():
                kind, name = label.split("/", 1)
                if kind == "optimiser":
                    moments[name] = tensor
                else:
                    (self.weights if kind == "weight" else self.mean)[name].copy_(tensor)
        restore_optimiser(self.optimiser, self._names(), moments, state.facts["optimiser"])
        self.scaler.load_state_dict(state.facts["scaler"])
        saved = state.facts["run"]
        return Run(list(saved["losses"]), {int(k): v for k, v in saved["looks"].items()}, saved["micro"])

    def _names(self) -> list[str]:
        """Return the names of the optimiser's parameters, in its order."""
        names = {id(weight): name for name, weight in self.weights.items()}
        return [names[id(p)] for group in self.optimiser.param_groups for p in group["params"]]

    def _pieces(self, step: int, micro: int) -> Iterator[tuple[list[int], range]]:
        """Yield rows and slots of this process's share of a step, at most `micro` at a time."""
        cfg, data, processes = self.loss.cfg, self.loss.data, self.processes
        size, parts = cfg.batch_size, cfg.accumulate * processes.count
        for part in range(processes.rank, parts, processes.count):
            rows = batch_rows(self.loss.seed, step * parts + part, data.groups, size)
            for start in range(0, size, micro):
                end = min(start + micro, size)
                yield rows[start:end], range(part * size + start, part * size + end)


def _amp_dtype(base: BaseModel, cfg: TrainConfig) -> torch.dtype:
    if base.device.type == "cpu" and cfg.precision == "fp16":
        return torch.float32  # CPUs have no float16 arithmetic to gain from
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[cfg.precision]


def _autocast(base: BaseModel, cfg: TrainConfig) -> AbstractContextManager[Any]:
    dtype = _amp_dtype(base, cfg)
    return nullcontext() if dtype == torch.float32 else torch.autocast(base.device.type, dtype)
