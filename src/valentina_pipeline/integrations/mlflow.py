"""Tracked runs in MLflow, and the store that they are in.

A set of inputs has one parent run, found again by its tag `inputs` from any process; each stage has one
child under it. State of this process: the runs that the hook has opened, which `current_tracker` speaks for.
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

from valentina_pipeline.integrations.tracking import set_tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from PIL import Image

logger = logging.getLogger(__name__)

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

PARENT = "mlflow.parentRunId"

SECONDS_BETWEEN_WRITES = 2.0
"""Live metrics are written together: one write a training step would cost more than it shows."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A tracking server that is away must not hold a training for the minutes that MLflow retries by default."""

LONGEST_PARAM, PARAMS_AT_ONCE, METRICS_AT_ONCE = 6000, 100, 1000
"""MLflow's limits."""

EXPERIMENT_COPIES = ".dvc/tmp/exps"
"""Where DVC runs queued experiments: in copies, whose tracking belongs to the project itself."""


@dataclass
class _Live:
    """Logs to one run; a failure is told once and switches it off, for no work may die of it."""

    client: "MlflowClient"
    run_id: str
    broken: bool = False
    _waiting: list[Any] = field(default_factory=list)
    _once: dict[str, float] = field(default_factory=dict)
    _written: float = 0.0

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Log figures; they are written with the next ones, at latest when the run ends."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        if step is None:  # the same figure from the stage and from the hook is one figure
            metrics = {name: value for name, value in metrics.items() if self._once.get(name) != value}
            self._once.update(metrics)
        self._waiting += [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush()

    def image(self, name: str, image: "Image.Image", step: int) -> None:
        """Log an image of a step: MLflow's charts show it beside that step of other runs."""
        self._try(lambda: self.client.log_image(self.run_id, image, key=name, step=step))

    def file(self, path: Path) -> None:
        """Log a file under its name."""
        self._try(lambda: self.client.log_artifact(self.run_id, str(path)))

    def flush(self) -> None:
        """Write what waits."""
        self._written = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), METRICS_AT_ONCE):
            part = waiting[start : start + METRICS_AT_ONCE]
            self._try(partial(self.client.log_batch, self.run_id, metrics=part))

    def _try(self, work: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            work()
        except Exception as err:  # whatever is wrong with tracking, the work goes on
            self.broken = True
            logger.warning("MLflow does not answer, this stage is tracked no further: %s", err)


@dataclass
class Parent:
    """The tracked run of one set of inputs, and the stage that runs under it in this process.

    Attributes:
        client: MLflow's.
        run_id: of the parent.
        params: the effective parameters.
        commit: git's, "" if unknown.
    """

    client: "MlflowClient"
    run_id: str
    experiment_id: str
    params: Mapping[str, Any]
    commit: str = ""

    def open_stage(self, stage: str, code: str) -> None:
        """Open the stage's child; one that did not finish is gone on with, one that did is superseded.

        `code`, the fingerprint of the stage's code, is a tag of it.
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
            run_id = self._create(stage, "run")
        self.client.set_tag(run_id, "code_sha256", code)
        _stage = _Live(self.client, run_id)
        set_tracker(_stage)

    def children(self) -> "dict[str, Run]":
        """Return the latest child of each stage."""
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{PARENT}` = '{self.run_id}'", order_by=["attributes.start_time ASC"]
        )
        return {r.data.tags["stage"]: r for r in found if "superseded" not in r.data.tags}

    def add_cached(self, stage: str) -> None:
        """Add the child of a stage that did not run: its outputs came from DVC's cache."""
        run_id = self._create(stage, "cache")
        self.client.set_terminated(run_id, FINISHED)

    def log(self, stage: str | None, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log figures and tags to a stage's child, or to the parent itself (None); again changes nothing."""
        run = self.client.get_run(self.run_id) if stage is None else self.children()[stage]
        now = int(time.time() * 1000)
        known = run.data.metrics
        entities = _entities(
            {name: value for name, value in metrics.items() if known.get(name) != value}, tags, now
        )
        self.client.log_batch(run.info.run_id, metrics=entities[0], tags=entities[1])

    def files(self, paths: Sequence[Path]) -> None:
        """Log files to the parent; PNGs as images, which MLflow's charts set side by side, once each."""
        from PIL import Image

        known = {
            Path(each.path).name.split("+")[0] for each in self.client.list_artifacts(self.run_id, "images")
        }
        for path in paths:
            if path.suffix != ".png":
                self.client.log_artifact(self.run_id, str(path))
            elif path.stem not in known:  # their artifacts' names are new each time
                with Image.open(path) as image:
                    self.client.log_image(self.run_id, image, key=path.stem, step=0)

    def end(self, status: str) -> None:
        """End the parent."""
        self.client.set_terminated(self.run_id, status)

    def _create(self, stage: str, source: str) -> str:
        tags = {PARENT: self.run_id, "stage": stage, "source": source, "git_commit": self.commit}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=stage)
        chosen = {name: self.params[name] for name in (stage, "seed", "threads") if name in self.params}
        _log_params(self.client, run.info.run_id, flatten(chosen))
        return run.info.run_id


_parent: Parent | None = None
_stage: _Live | None = None


def stage_run() -> str | None:
    """Return the id of the run of the stage that this process tracks."""
    return None if _stage is None else _stage.run_id


def parent() -> Parent | None:
    """Return the parent that this process has opened."""
    return _parent


def open_parent(root: Path, concept: str, inputs: str, params: Mapping[str, Any], commit: str = "") -> Parent:
    """Open the run of these inputs: the one that is there, else a new one.

    Args:
        root: the project.
        concept: the experiment's name.
        inputs: hash of everything that the result follows from.
        params: the effective parameters; logged to a new run.
        commit: git's; a tag.

    Raises:
        mlflow.exceptions.MlflowException: the store does not answer.
    """
    global _parent
    store = client(root)
    place = experiment(store, root, concept)
    found = store.search_runs([place], f"tags.inputs = '{inputs}'", max_results=1)
    if found:
        run = found[0]
        store.update_run(run.info.run_id, status=RUNNING)
    else:
        tags = {"inputs": inputs, "concept": concept}
        run = store.create_run(place, tags=tags, run_name=_name(inputs))
        _log_params(store, run.info.run_id, flatten(params))
    for name, value in {"git_commit": commit, "dvc_experiment": os.environ.get("DVC_EXP_NAME", "")}.items():
        if value:
            store.set_tag(run.info.run_id, name, value)
    _parent = Parent(store, run.info.run_id, place, params, commit)
    return _parent


def close_stage(status: str) -> None:
    """End the child of the stage that was running, if any."""
    global _stage
    closing, _stage = _stage, None
    set_tracker(None)
    if closing is None:
        return
    closing.flush()
    closing._try(lambda: closing.client.set_terminated(closing.run_id, status))


def close_parent(status: str) -> None:
    """End the open parent, if any."""
    closing = _parent
    forget()
    if closing is not None:
        closing.end(status)


def forget() -> None:
    """Track no further in this process; the next one finds the parent again."""
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
    """Return MLFLOW_TRACKING_URI, else the project's own sqlite file as an absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_home(root) / 'mlflow.db'}"


def _home(root: Path) -> Path:
    """Return the project, also from one of the copies in which DVC runs experiments."""
    before, inside, _ = root.resolve().as_posix().partition(f"/{EXPERIMENT_COPIES}/")
    return Path(before) if inside else root.resolve()


def client(root: Path) -> "MlflowClient":
    """Return a client of the project's store, or of the server that MLFLOW_TRACKING_URI names."""
    configure_mlflow()
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    return MlflowClient(uri, uri)


def configure_mlflow() -> None:
    """Import MLflow without telemetry and impatient, and silence what tells a user nothing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow.store.db.utils  # noqa: F401  its import sets the level that is set below

    for name in ("alembic", "mlflow.store.db.utils"):  # the tables of a new database, one by one
        logging.getLogger(name).setLevel(logging.WARNING)


def experiment(store: "MlflowClient", root: Path, name: str) -> str:
    """Return the id of the experiment of this name, made where it is missing."""
    found = store.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    place = (_home(root) / "mlruns" / name).as_uri() if local else None  # else the server decides
    return store.create_experiment(name, artifact_location=place)


def _name(inputs: str) -> str:
    return os.environ.get("DVC_EXP_NAME") or inputs[:8]


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entities = [Param(name, _text(value)) for name, value in params.items()]
    for start in range(0, len(entities), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=entities[start : start + PARAMS_AT_ONCE])


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - 1]}…"


def _entities(metrics: Mapping[str, float], tags: Mapping[str, str], now: int) -> tuple[list[Any], list[Any]]:
    from mlflow.entities import Metric, RunTag

    return (
        [Metric(name, float(value), now, 0) for name, value in metrics.items()],
        [RunTag(name, value) for name, value in tags.items()],
    )
