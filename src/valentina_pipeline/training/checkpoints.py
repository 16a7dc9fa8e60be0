"""Checkpoints of a training run, written atomically and verified when read."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common import atomic_files
from valentina_pipeline.training.finite import NotFiniteError, refuse_not_finite

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

MAX_CHECKPOINTS = 2


@dataclass(frozen=True)
class State:
    """State of a run after `step` steps.

    Attributes:
        tensors: trainable parameters and optimizer state by name.
        facts: all other state, as JSON values.
    """

    step: int
    tensors: "Mapping[str, Tensor]"
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of one run, in a folder named by a hash of the run's inputs.

    Each checkpoint is `step-<n>.safetensors` and `step-<n>.json`. The JSON file is written last and marks
    the checkpoint as complete.
    """

    folder: Path

    @classmethod
    def of(cls, parent: Path, inputs: Mapping[str, Any]) -> "Checkpoints":
        """Return the checkpoints of the run with exactly these inputs."""
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        return cls(parent / key[:32])

    def save(self, state: State, keep: int | None = None) -> None:
        """Write a checkpoint that survives a power cut, then remove all but the last two and `keep`.

        Raises:
            NotFiniteError: a tensor is not finite; nothing is written and the older checkpoints stay.
        """
        from safetensors.torch import save

        refuse_not_finite(state.tensors, f"step {state.step}")
        for leftover in self.folder.glob(".*.partial"):  # of a killed run
            leftover.unlink()
        content = save({name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors.items()})
        facts = {"step": state.step, "sha256": hashlib.sha256(content).hexdigest(), "facts": state.facts}
        path = self._path(state.step)
        atomic_files.replace(path, content, durable=True)
        atomic_files.replace(path.with_suffix(".json"), json.dumps(facts).encode(), durable=True)
        for old in self._steps()[MAX_CHECKPOINTS:]:
            if old != keep:
                self._remove(old)

    def latest(self) -> State | None:
        """Return the last valid checkpoint, or None; remove damaged ones with a warning."""
        for step in self._steps():
            try:
                return self.read(step)
            except (OSError, ValueError, KeyError, NotFiniteError) as err:
                logger.warning("checkpoint %s is damaged (%s): using the previous one", self._path(step), err)
                self._remove(step)
        return None

    def read(self, step: int) -> State:
        """Return the checkpoint of a step.

        Raises:
            OSError: the checkpoint does not exist.
            ValueError: the checkpoint is damaged.
            NotFiniteError: a tensor is not finite; an older version that did not check wrote it.
        """
        from safetensors.torch import load

        path = self._path(step)
        facts = json.loads(path.with_suffix(".json").read_bytes())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ValueError("its sha256 differs from the one in its JSON file")
        tensors = load(content)
        refuse_not_finite(tensors, "the checkpoint")
        return State(facts["step"], tensors, facts["facts"])

    def last_path(self) -> Path | None:
        """Return the file of the last checkpoint, for messages."""
        return next((self._path(step) for step in self._steps()), None)

    def remove(self) -> None:
        """Remove this run's checkpoints, and the folder around them when it is empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _steps(self) -> list[int]:
        files = self.folder.glob("step-*.json")
        return sorted((int(file.stem.removeprefix("step-")) for file in files), reverse=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}.safetensors"

    def _remove(self, step: int) -> None:
        for suffix in (".json", ".safetensors"):  # the JSON file marks it as complete: remove it first
            self._path(step).with_suffix(suffix).unlink(missing_ok=True)
