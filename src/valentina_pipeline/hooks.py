"""Kedro hooks: give nodes the project's folder, end a stage with DVC, check its inputs, track runs in MLflow.

All stages with the same inputs share a parent run. Tracking errors never stop a stage: if MLflow does not
answer, one warning is logged and the stage continues untracked; `record` can complete the run later.
"""

import atexit
import ctypes
import logging
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from click import ClickException
from kedro.framework.hooks import hook_impl
from kedro.io import MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from valentina_pipeline.common.code_fingerprint import pipeline_module
from valentina_pipeline.domain.concept import STAGE_NAMES
from valentina_pipeline.domain.manifest import StaleInputError, check_same_run
from valentina_pipeline.integrations import mlflow, stage_tracking
from valentina_pipeline.integrations.tracking import current_tracker

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl(2): the signal that this process receives when its parent ends."""

MLFLOW_STAGES = {"register", "record"}
"""Stages whose work uses MLflow; the others leave its slow import to another process."""

ARTIFACT_FOLDER = "data/08_reporting"
"""Files that stages write to this folder become artifacts of their runs."""


PROJECT_ROOT = "project_root"
"""Dataset of the project's folder, which is not in the catalog: its value differs by machine."""


class ProjectHooks:
    """Gives nodes the project's folder."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: Any) -> None:
        """Fill the dataset PROJECT_ROOT."""
        catalog[PROJECT_ROOT] = MemoryDataset(Path(run_params["project_path"]), copy_mode="assign")


class ProcessHooks:
    """Ends a stage together with the `dvc repro` that started it."""

    @hook_impl
    def before_pipeline_run(self) -> None:
        """End with DVC, even if it is killed: else the stage would write at the same time as its rerun."""
        if "DVC_STAGE" not in os.environ or sys.platform != "linux":
            return
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getpgid(os.getppid()) != os.getpgrp():  # DVC ended before the line above
            sys.exit("the `dvc repro` of this stage has ended")


class InputHooks:
    """Stops a run before its first stage if a model is missing, and a stage with stale inputs."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Raise ClickException with all missing models if the run contains a stage of the project."""
        if not {node.name for node in pipeline.nodes} & set(STAGE_NAMES):
            return
        from valentina_pipeline.image.models.requirements import find_missing_models
        from valentina_pipeline.image.models.vocabulary import warn_of_word

        params = catalog.load("parameters")
        if warning := warn_of_word(params["concept"]["trigger"]):
            logger.warning(warning)
        missing = find_missing_models(params, Path(run_params["project_path"]))
        if missing:
            lines = (f"- {err}" for err in missing)
            raise ClickException("\n".join(["models are missing; nothing was run:", *lines]))

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Raise ClickException if a stage, run by hand, has inputs from different runs."""
        try:
            check_same_run(inputs)
        except StaleInputError as err:
            raise ClickException(f"{node.name}: {err}") from err


class TrackingHooks:
    """Opens and closes MLflow runs around Kedro's nodes, which are named after the stages."""

    def __init__(self) -> None:
        self._tracking: stage_tracking.OwnTracking | stage_tracking.TrackingProcess | None = None
        self._catalog: Any = None
        self._root = Path()
        self._began = 0.0

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Open the parent run of these inputs if the run contains a stage of the project."""
        stages = {node.name for node in pipeline.nodes} & {*STAGE_NAMES, "record"}
        if not stages:
            return
        if os.environ.get("RANK", "0") != "0":
            return  # in distributed training only the first process logs
        self._catalog, self._root = catalog, Path(run_params["project_path"])
        own = stages & MLFLOW_STAGES
        self._tracking = stage_tracking.OwnTracking() if own else stage_tracking.TrackingProcess()
        atexit.register(self._fail, mlflow.KILLED)  # Ctrl-C raises no Exception, so Kedro calls no hook
        self._tracking.call(stage_tracking.open_run, self._root, catalog.load("parameters"))

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Open the stage's child run; `record` has none, since it completes the parent run."""
        self._began = time.monotonic()
        if self._tracking and node.name in STAGE_NAMES:
            self._tracking.call(stage_tracking.open_stage, node.name, self._dataset_modules(node.name))

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Log the stage's duration, which is stored only here because outputs do not depend on time."""
        if node.name in STAGE_NAMES:  # not of a node that follows it, such as `dataset_card`
            current_tracker().log({"seconds": time.monotonic() - self._began}, None)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log metrics files as metrics, files in ARTIFACT_FOLDER as artifacts, and the training images."""
        if self._tracking is None:
            return
        dataset = self._catalog.get(dataset_name)
        metadata = getattr(dataset, "metadata", None) or {}
        if metadata.get("dvc", {}).get("kind") == "metrics":
            current_tracker().log(mlflow.flatten_metrics(data), None)
        path = Path(str(dataset._describe().get("filepath", "")))
        if path.is_file() and path.is_relative_to(self._root / ARTIFACT_FOLDER):
            current_tracker().file(path)
        if dataset_name == "training_images":
            self._tracking.call(stage_tracking.log_training_images, data)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Close the last stage's child run; the parent run stays open until `record` ends it."""
        if self._tracking:
            self._tracking.call(stage_tracking.close_stage, mlflow.FINISHED)
            self._end()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the child run and the parent run as failed."""
        self._fail(mlflow.FAILED)

    def _dataset_modules(self, stage: str) -> set[str]:
        """Return the modules of a stage's dataset classes, which count as its code in DVC, too."""
        names = import_module(pipeline_module(stage)).create_pipeline().datasets()
        return {type(self._catalog.get(name)).__module__ for name in names}

    def _fail(self, status: str) -> None:
        """Close the open child run and the open parent run, if any."""
        if self._tracking:
            self._tracking.call(stage_tracking.close_stage, status)
            self._tracking.call(stage_tracking.close_run, status)
            self._end()

    def _end(self) -> None:
        ending, self._tracking = self._tracking, None
        if ending:
            ending.end()
