"""Tracking of a Kedro run's stages in MLflow: in the stage's process, or in another one.

MLflow's imports and the hash of the inputs take five seconds of a core, as long as many a stage. A stage that
does not use MLflow itself sends what it logs to another process, which does all this meanwhile. That process
makes the calls in their order and ends with its input, so that a killed stage leaves none behind.
"""

import contextlib
import logging
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common.code_fingerprint import fingerprint, pipeline_module
from valentina_pipeline.integrations import mlflow, run_inputs
from valentina_pipeline.integrations.tracking import current_tracker, set_tracker

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
"""Format of conf/logging.yml, which the process does not read."""


class OwnTracking:
    """Tracking in this process."""

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call one of this module's functions; a failure is one warning and ends the tracking."""
        try:
            function(*arguments)
        except Exception as err:  # a tracking error must never stop training
            mlflow.forget()
            logger.warning("MLflow does not answer; this run is not tracked: %s", err)

    def end(self) -> None:
        """Forget the runs; the next process finds the parent run again."""
        mlflow.forget()


class TrackingProcess:
    """Tracking in another process, and the tracker of the stages in this one; calls return at once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"], stdin=subprocess.PIPE
        )
        set_tracker(self)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have one of this module's functions called; the arguments must be picklable."""
        if self._process is None or self._process.stdin is None:
            return
        try:
            pickle.dump((function, arguments), self._process.stdin)
            self._process.stdin.flush()
        except OSError as err:
            self._process = None
            logger.warning("the tracking process has ended; this run is not tracked further: %s", err)

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Log metrics with the present time."""
        self.call(log, {name: float(value) for name, value in metrics.items()}, step, time.time())

    def image(self, name: str, image: "Image.Image", step: int) -> None:
        """Log an image of a step."""
        self.call(log_image, name, image, step)

    def file(self, path: Path) -> None:
        """Log a file under its name."""
        self.call(log_file, path)

    def end(self) -> None:
        """Return when all calls are performed."""
        process, self._process = self._process, None
        set_tracker(None)
        if process is not None:
            process.communicate()


def open_run(root: Path, params: Mapping[str, Any]) -> None:
    """Open the parent run of the project's inputs."""
    inputs, commit = run_inputs.inputs_hash(root, params), run_inputs.commit(root)
    mlflow.open_parent(root, params["concept"]["trigger"], inputs, params, commit)


def open_stage(stage: str, dataset_modules: Iterable[str]) -> None:
    """Open the child run of a stage, whose code is its pipeline's and its datasets'."""
    if parent := mlflow.parent():
        parent.open_stage(stage, fingerprint(pipeline_module(stage), *dataset_modules))


def log(metrics: Mapping[str, float], step: int | None, seconds: float) -> None:
    """Log metrics of the time `seconds` after 1970 to the open child run."""
    if run := mlflow.live_run():
        run.log(metrics, step, seconds)


def log_image(name: str, image: "Image.Image", step: int) -> None:
    """Log an image to the open child run."""
    current_tracker().image(name, image, step)


def log_file(path: Path) -> None:
    """Log a file to the open child run."""
    current_tracker().file(path)


def log_training_images(table: "pd.DataFrame") -> None:
    """Log the training images to the parent run and the training's."""
    if parent := mlflow.parent():
        parent.log_training_images(table)


def close_stage(status: str) -> None:
    """End the open child run."""
    mlflow.close_stage(status)


def close_run(status: str) -> None:
    """End the parent run."""
    mlflow.close_parent(status)


def main() -> None:
    """Make the calls that a `TrackingProcess` sends to this process, until the stage ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the stage receives them, too, and reports its end
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format=LOG_FORMAT)
    tracking = OwnTracking()
    with contextlib.suppress(EOFError, pickle.UnpicklingError):  # the latter if it is killed within a call
        while True:
            function, arguments = pickle.load(sys.stdin.buffer)
            tracking.call(function, *arguments)
