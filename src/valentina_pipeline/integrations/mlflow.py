"""MLflow tracking: runs, their metrics and files, and the tracking store.

A set of inputs has one parent run, which any process finds by its tag `inputs`; each stage has one child run.
The process keeps the runs that the hook opened as module state; `current_tracker` logs to them.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.integrations.run_description import (
    CACHE_SOURCE,
    PARENT_SOURCE,
    name_run,
    name_stage,
    source_tags,
    stage_source,
    training_dataset,
)
from valentina_pipeline.integrations.tracking import set_tracker

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from PIL import Image

    from valentina_pipeline.integrations.run_inputs import Commit

logger = logging.getLogger(__name__)

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

PARENT = "mlflow.parentRunId"

SECONDS_BETWEEN_WRITES = 2.0
"""Live metrics are written in batches: one write per training step would be too slow."""

HTTP_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""An unreachable tracking server must not block training for the minutes of MLflow's default retries."""

MAX_PARAM_CHARS, PARAMS_PER_BATCH, METRICS_PER_BATCH = 6000, 100, 1000
"""MLflow's limits."""

EXPERIMENT_COPIES = ".dvc/tmp/exps"
"""Folder of the copies in which DVC runs queued experiments; they are tracked in the project itself."""


@dataclass
class _LiveRun:
    """Logs to one run. The first failure is logged and disables it: tracking never stops a stage."""

    client: "MlflowClient"
    run_id: str
    broken: bool = False
    _pending: list[Any] = field(default_factory=list)
    _once: dict[str, float] = field(default_factory=dict)
    _written: float = 0.0

    def log(self, metrics: Mapping[str, float], step: int | None, seconds: float | None = None) -> None:
        """Log metrics; they are written with later ones, at the latest when the run ends.

        `seconds` is their time, since 1970; None is now.
        """
        from mlflow.entities import Metric

        now = int((time.time() if seconds is None else seconds) * 1000)
        if step is None:  # stage and hook may log the same metric: write it once
            metrics = {name: value for name, value in metrics.items() if self._once.get(name) != value}
            self._once.update(metrics)
        self._pending += [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush()

    def image(self, name: str, image: "Image.Image", step: int) -> None:
        """Log an image of a step; MLflow's charts compare it with the same step of other runs."""
        self._try(lambda: self.client.log_image(self.run_id, image, key=name, step=step))

    def file(self, path: Path) -> None:
        """Log a file under its name."""
        self._try(lambda: self.client.log_artifact(self.run_id, str(path)))

    def flush(self) -> None:
        """Write the pending metrics."""
        self._written = time.monotonic()
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), METRICS_PER_BATCH):
            part = pending[start : start + METRICS_PER_BATCH]
            self._try(partial(self.client.log_batch, self.run_id, metrics=part))

    def _try(self, work: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            work()
        except Exception as err:  # a tracking error never stops the stage
            self.broken = True
            logger.warning("MLflow does not respond, tracking of this stage stops: %s", err)


@dataclass
class Parent:
    """Parent run of one set of inputs; it opens the child runs of the stages.

    Attributes:
        client: of MLflow.
        run_id: of the parent.
        inputs: hash of everything that the result depends on.
        params: the effective parameters.
        commit: of git, None if unknown.
    """

    client: "MlflowClient"
    run_id: str
    experiment_id: str
    inputs: str
    params: Mapping[str, Any]
    commit: "Commit | None" = None

    def open_stage(self, stage: str, code: str) -> None:
        """Open the child run of a stage. An unfinished one is resumed, a finished one is superseded.

        `code` is the fingerprint of the stage's code, stored as a tag.
        """
        global _stage
        close_stage(FINISHED)
        former = self.children().get(stage)
        if former is not None and former.info.status != FINISHED:
            run_id = former.info.run_id
            self.client.update_run(run_id, status=RUNNING)
        else:
            if former is not None:
                self.client.set_tag(former.info.run_id, "superseded", "true")
            run_id = self._create(stage, stage_source(stage))
        self.client.set_tag(run_id, "code_sha256", code)
        _stage = _LiveRun(self.client, run_id)
        set_tracker(_stage)

    def children(self) -> "dict[str, Run]":
        """Return the latest child run of each stage."""
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{PARENT}` = '{self.run_id}'", order_by=["attributes.start_time ASC"]
        )
        return {r.data.tags["stage"]: r for r in found if "superseded" not in r.data.tags}

    def add_cached(self, stage: str) -> None:
        """Add the child run of a stage that did not run because DVC's cache had its outputs."""
        run_id = self._create(stage, CACHE_SOURCE)
        self.client.set_terminated(run_id, FINISHED)

    def log(self, stage: str | None, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log metrics and tags to a stage's child run, or to the parent (None). It is idempotent."""
        run = self.client.get_run(self.run_id) if stage is None else self.children()[stage]
        now = int(time.time() * 1000)
        known = run.data.metrics
        entities = _entities(
            {name: value for name, value in metrics.items() if known.get(name) != value}, tags, now
        )
        self.client.log_batch(run.info.run_id, metrics=entities[0], tags=entities[1])

    def log_training_images(self, table: "pd.DataFrame") -> None:
        """Log the training images as the dataset of this run and of its training. It is idempotent.

        Args:
            table: see `training_dataset`.
        """
        dataset = training_dataset(self.params["concept"]["trigger"], table)
        training = self.children().get("train_lora")
        for run_id in [self.run_id, *([training.info.run_id] if training else [])]:
            self.client.log_inputs(run_id, [dataset])

    def files(self, paths: Sequence[Path]) -> None:
        """Log files to the parent; PNGs as images, once each, so that MLflow's charts compare them."""
        from PIL import Image

        known = {
            Path(artifact.path).name.split("+")[0]
            for artifact in self.client.list_artifacts(self.run_id, "images")
        }
        for path in paths:
            if path.suffix != ".png":
                self.client.log_artifact(self.run_id, str(path))
            elif path.stem not in known:  # each upload gets a new artifact name
                with Image.open(path) as image:
                    self.client.log_image(self.run_id, image, key=path.stem, step=0)

    def end(self, status: str) -> None:
        """End the parent run."""
        self.client.set_terminated(self.run_id, status)

    def _create(self, stage: str, source: str) -> str:
        tags = {PARENT: self.run_id, "stage": stage, **source_tags(source, self.commit)}
        name = name_stage(stage, self.inputs)
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        stage_params = {
            name: self.params[name] for name in (stage, "seed", "num_threads") if name in self.params
        }
        _log_params(self.client, run.info.run_id, flatten(stage_params))
        return run.info.run_id


_parent: Parent | None = None
_stage: _LiveRun | None = None


def stage_run() -> str | None:
    """Return the run id of the stage that this process tracks."""
    return None if _stage is None else _stage.run_id


def live_run() -> _LiveRun | None:
    """Return the child run that this process tracks."""
    return _stage


def parent() -> Parent | None:
    """Return the parent run that this process has opened."""
    return _parent


def open_parent(
    root: Path, concept: str, inputs: str, params: Mapping[str, Any], commit: "Commit | None" = None
) -> Parent:
    """Open the run of these inputs: the existing one, else a new one.

    Args:
        root: the project.
        concept: the experiment's name.
        inputs: hash of everything that the result depends on.
        params: the effective parameters; logged to a new run.
        commit: of git; stored in MLflow's tags.

    Raises:
        mlflow.exceptions.MlflowException: the store does not respond.
    """
    global _parent
    store = client(root)
    experiment_id = experiment(store, root, concept)
    found = store.search_runs([experiment_id], f"tags.inputs = '{inputs}'", max_results=1)
    if found:
        run = found[0]
        store.update_run(run.info.run_id, status=RUNNING)
    else:
        tags = {"inputs": inputs, "concept": concept}
        run = store.create_run(experiment_id, tags=tags, run_name=name_run(params, inputs))
        _log_params(store, run.info.run_id, flatten(params))
    tags = source_tags(PARENT_SOURCE, commit)
    if dvc_experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = dvc_experiment
    store.log_batch(run.info.run_id, tags=_entities({}, tags, 0)[1])
    _parent = Parent(store, run.info.run_id, experiment_id, inputs, params, commit)
    return _parent


def close_stage(status: str) -> None:
    """End the child run of the running stage, if any."""
    global _stage
    closing, _stage = _stage, None
    set_tracker(None)
    if closing is None:
        return
    closing.flush()
    closing._try(lambda: closing.client.set_terminated(closing.run_id, status))


def close_parent(status: str) -> None:
    """End the open parent run, if any."""
    closing = _parent
    forget()
    if closing is not None:
        closing.end(status)


def forget() -> None:
    """Stop tracking in this process; the next process finds the parent run again."""
    global _parent, _stage
    _parent = _stage = None
    set_tracker(None)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values with dotted names: {"identity.lora.mean": 0.7, ...}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def flatten_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among nested values, with dotted names."""
    return {
        name: float(value)
        for name, value in flatten(values).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def tracking_uri(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else the absolute URI of the project's sqlite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_home(root) / 'mlflow.db'}"


def _home(root: Path) -> Path:
    """Return the project's root, also from a copy in which DVC runs an experiment."""
    before, inside, _ = root.resolve().as_posix().partition(f"/{EXPERIMENT_COPIES}/")
    return Path(before) if inside else root.resolve()


def client(root: Path) -> "MlflowClient":
    """Return a client of the project's store, or of the server in MLFLOW_TRACKING_URI."""
    configure_mlflow()
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    return MlflowClient(uri, uri)


def configure_mlflow() -> None:
    """Import MLflow without telemetry and with short timeouts, and silence irrelevant log lines."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in HTTP_LIMITS.items():
        os.environ.setdefault(name, value)
    import mlflow.store.db.utils  # noqa: F401  sets the log level that is overridden below

    for name in ("alembic", "mlflow.store.db.utils"):  # they log each table of a new database
        logging.getLogger(name).setLevel(logging.WARNING)


def experiment(store: "MlflowClient", root: Path, name: str) -> str:
    """Return the id of the experiment with this name, created where missing."""
    found = store.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    location = (_home(root) / "mlruns" / name).as_uri() if local else None  # else the server decides
    return store.create_experiment(name, artifact_location=location)


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entities = [Param(name, _param_text(value)) for name, value in params.items()]
    for start in range(0, len(entities), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=entities[start : start + PARAMS_PER_BATCH])


def _param_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_PARAM_CHARS else f"{text[: MAX_PARAM_CHARS - 1]}…"


def _entities(metrics: Mapping[str, float], tags: Mapping[str, str], now: int) -> tuple[list[Any], list[Any]]:
    from mlflow.entities import Metric, RunTag

    return (
        [Metric(name, float(value), now, 0) for name, value in metrics.items()],
        [RunTag(name, value) for name, value in tags.items()],
    )
