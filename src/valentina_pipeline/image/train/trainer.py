"""Trainer: gradients of a batch in micro-batches, and the optimizer step."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from valentina_pipeline.common.threads import DeterministicKernels
from valentina_pipeline.config.train_lora import TrainConfig
from valentina_pipeline.image.models.base_model import BaseModel
from valentina_pipeline.image.train.bucketing import batch_indices
from valentina_pipeline.image.train.loss import DiffusionLoss
from valentina_pipeline.training.checkpoints import State
from valentina_pipeline.training.distributed import Processes
from valentina_pipeline.training.finite import NotFiniteError
from valentina_pipeline.training.lr_schedules import lr_multiplier
from valentina_pipeline.training.memory import find_executable_batch_size
from valentina_pipeline.training.optimizers import (
    Span,
    create_optimizer,
    optimizer_state,
    parameter_groups,
    restore_optimizer,
)


@dataclass
class TrainState:
    """Results of the steps so far, as JSON values.

    Attributes:
        losses: loss of each step.
        eval_metrics: evaluation metrics by step.
        micro: micro-batch size in images; smaller than the batch after the memory was full. 0 is unset.
    """

    losses: list[float] = field(default_factory=list)
    eval_metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    micro: int = 0


@dataclass
class Trainer:
    """Trainable parameters, their optimizer and their gradient step.

    Attributes:
        peaks: peak learning rate of each parameter group.
        mean: exponential moving average of each weight; empty without EMA.
    """

    base: BaseModel
    weights: Mapping[str, nn.Parameter]
    loss: DiffusionLoss
    processes: Processes
    optimizer: torch.optim.Optimizer
    peaks: list[float]
    mean: dict[str, Tensor]
    scaler: torch.amp.GradScaler
    kernels: DeterministicKernels = field(default_factory=DeterministicKernels)

    @classmethod
    def of(
        cls,
        weights: Mapping[str, nn.Parameter],
        rates: Mapping[str, float],
        spans: Mapping[str, Span],
        loss: DiffusionLoss,
        processes: Processes,
    ) -> "Trainer":
        """Return a trainer at step 0; weights with learning rate 0 are frozen and left out."""
        base, cfg = loss.base, loss.cfg
        groups = parameter_groups(weights, rates, spans)
        trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
        optimizer = create_optimizer(groups, cfg)
        if hasattr(optimizer, "train"):
            optimizer.train()
        return cls(
            base,
            trained,
            loss,
            processes,
            optimizer,
            [group["lr"] for group in groups],
            {name: weight.detach().clone() for name, weight in trained.items()} if cfg.ema_decay else {},
            torch.amp.GradScaler(base.device.type, enabled=_amp_dtype(base, cfg) == torch.float16),
        )

    def step(self, step: int, run: TrainState) -> Tensor:
        """Do one step and return its loss; reduce the micro-batch (`run.micro`) if the memory is full.

        Raises:
            NotFiniteError: the gradient is not finite although the loss is; no weight was changed.
        """
        cfg = self.loss.cfg
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            share = lr_multiplier(step, cfg, group["span"])
            group["lr"] = peak * share
            for weight in group["params"]:
                weight.requires_grad_(share > 0)
        total = torch.zeros((), device=self.base.device)

        def gradients(micro: int) -> None:
            self.optimizer.zero_grad(set_to_none=True)
            total.zero_()
            for rows, slots in self._micro_batches(step, micro):
                share = len(rows) / (cfg.batch_size * cfg.gradient_accumulation_steps)
                with _autocast(self.base, cfg):
                    loss = self.loss(step, rows, slots) * share
                self.scaler.scale(loss).backward()
                total.add_(loss.detach())

        networks = {"unet": self.base.unet, "vae": self.base.vae, **self.base.text_encoders}

        def fit(micro: int) -> int:
            return find_executable_batch_size(gradients, micro, networks, self._save_memory)

        run.micro = self.kernels.run(partial(fit, run.micro or cfg.batch_size))
        self.processes.average(w.grad for w in self.weights.values() if w.grad is not None)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.weights.values(), cfg.max_grad_norm)
        if norm.isfinite():
            self.scaler.step(self.optimizer)
        elif total.isfinite() and (not self.scaler.is_enabled() or self.scaler.get_scale() < 1):
            raise NotFiniteError("the gradient is not finite")
        self.scaler.update()  # float16: too large a scale skips the step and is halved
        if self.mean:
            # early steps: average over no more steps than there were
            decay = min(cfg.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(
                list(self.mean.values()), [w.detach() for w in self.weights.values()], 1 - decay
            )
        return total

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Switch to evaluation mode inside the block, with the weights that the run would return now."""
        self.base.unet.eval()
        before = self.settle()
        yield
        with torch.no_grad():
            for name, weight in before.items():
                self.weights[name].copy_(weight)
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()
        self.base.unet.train()

    def settle(self) -> dict[str, Tensor]:
        """Replace the weights by their average, if there is one; return the weights to restore."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        if hasattr(self.optimizer, "eval"):  # schedule-free: switches to its average
            self.optimizer.eval()
            return {}
        with torch.no_grad():
            for name, average in self.mean.items():
                self.weights[name].copy_(average)
        return before if self.mean else {}

    def state(self, done: int, run: TrainState) -> State:
        """Return everything that the next step depends on."""
        tensors: dict[str, Tensor] = {f"weight/{name}": w for name, w in self.weights.items()}
        tensors |= {f"mean/{name}": average for name, average in self.mean.items()}
        moments, facts = optimizer_state(self.optimizer, self._names())
        tensors |= {f"optimizer/{label}": tensor for label, tensor in moments.items()}
        return State(
            done, tensors, {"run": asdict(run), "optimizer": facts, "scaler": self.scaler.state_dict()}
        )

    def restore(self, state: State) -> TrainState:
        """Restore the weights, the optimizer and the run from a checkpoint."""
        moments = {}
        with torch.no_grad():
            for label, tensor in state.tensors.items():
                kind, name = label.split("/", 1)
                if kind == "optimizer":
                    moments[name] = tensor
                else:
                    (self.weights if kind == "weight" else self.mean)[name].copy_(tensor)
        restore_optimizer(self.optimizer, self._names(), moments, state.facts["optimizer"])
        self.scaler.load_state_dict(state.facts["scaler"])
        saved = state.facts["run"]
        return TrainState(
            list(saved["losses"]), {int(k): v for k, v in saved["eval_metrics"].items()}, saved["micro"]
        )

    def _save_memory(self) -> bool:
        """Turn gradient checkpointing on where the parameters leave it open; return False if it stays."""
        unet = self.base.unet
        if self.loss.cfg.gradient_checkpointing != "auto" or unet.is_gradient_checkpointing:
            return False
        unet.enable_gradient_checkpointing()
        return True

    def _names(self) -> list[str]:
        """Return the names of the optimizer's parameters, in its order."""
        names = {id(weight): name for name, weight in self.weights.items()}
        return [names[id(p)] for group in self.optimizer.param_groups for p in group["params"]]

    def _micro_batches(self, step: int, micro: int) -> Iterator[tuple[list[int], range]]:
        """Yield the rows and slots of this process's micro-batches, at most `micro` samples each."""
        cfg, data, processes = self.loss.cfg, self.loss.data, self.processes
        size, parts = cfg.batch_size, cfg.gradient_accumulation_steps * processes.count
        for part in range(processes.rank, parts, processes.count):
            rows = batch_indices(self.loss.seed, step * parts + part, data.groups, size)
            for start in range(0, size, micro):
                end = min(start + micro, size)
                yield rows[start:end], range(part * size + start, part * size + end)


def _amp_dtype(base: BaseModel, cfg: TrainConfig) -> torch.dtype:
    if base.device.type == "cpu" and cfg.precision == "fp16":
        return torch.float32  # float16 brings no gain on a CPU
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[cfg.precision]


def _autocast(base: BaseModel, cfg: TrainConfig) -> AbstractContextManager[Any]:
    dtype = _amp_dtype(base, cfg)
    return nullcontext() if dtype == torch.float32 else torch.autocast(base.device.type, dtype)
