"""Kedro's hooks: a stage ends with its DVC; a tracked run for each stage, one parent a set of inputs.

Tracking never stops the work: when MLflow does not answer, a warning says so once and the stage runs on
untracked; `record` can complete the run later.
"""

import atexit
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click import ClickException
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from valentina_pipeline.common.code_fingerprint import fingerprint, pipeline_module
from valentina_pipeline.domain.concept import STAGE_NAMES
from valentina_pipeline.domain.manifest import StaleInputError, check_same_run
from valentina_pipeline.integrations import mlflow, run_inputs
from valentina_pipeline.integrations.tracking import current_tracker

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2): the signal that this process gets when its parent ends."""

SHOWN = "data/08_reporting"
"""Files that stages write here are artifacts of their runs."""


class ProcessHooks:
    """Ties a stage to the `dvc repro` that started it."""

    @hook_impl
    def before_pipeline_run(self) -> None:
        """End with DVC, even where it is killed: the stage would go on and write beside its successor."""
        if "DVC_STAGE" not in os.environ or sys.platform != "linux":
            return
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getpgid(os.getppid()) != os.getpgrp():  # DVC ended before the line above
            sys.exit("the `dvc repro` of this stage has ended")


class InputHooks:
    """Stops a run before its first stage where a model is missing, and a stage whose inputs disagree."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Raise ClickException, which names all missing models, where a stage of the project is to run."""
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
            raise ClickException("\n".join(["models are missing, and nothing was run:", *lines]))

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Raise ClickException where a stage that a person runs by hand has inputs of different runs."""
        try:
            check_same_run(inputs)
        except StaleInputError as err:
            raise ClickException(f"{node.name}: {err}") from err


class TrackingHooks:
    """Opens and closes tracked runs around Kedro's nodes, whose names are the stages'."""

    def __init__(self) -> None:
        self._catalog: Any = None
        self._root = Path()
        self._began = 0.0

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Open the parent run of these inputs, if a stage of the project is to run."""
        if not {node.name for node in pipeline.nodes} & {*STAGE_NAMES, "record"}:
            return
        if os.environ.get("RANK", "0") != "0":
            return  # of the processes that share a training, the first one tells
        self._catalog, self._root = catalog, Path(run_params["project_path"])
        atexit.register(_close, mlflow.KILLED)  # Ctrl-C is no Exception: Kedro calls no hook for it
        _tolerant(self._open)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Open the stage's child; `record` has none, it completes the parent."""
        self._began = time.monotonic()
        parent = mlflow.parent()
        if parent is not None and node.name in STAGE_NAMES:
            code = fingerprint(pipeline_module(node.name))
            _tolerant(lambda: parent.open_stage(node.name, code))

    @hook_impl
    def after_node_run(self) -> None:
        """Log how long the stage took, which is nowhere else: tracked outputs do not depend on time."""
        current_tracker().log({"seconds": time.monotonic() - self._began}, None)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log figures as metrics, and what is to be looked at as an artifact."""
        if self._catalog is None:
            return
        dataset = self._catalog.get(dataset_name)
        metadata = getattr(dataset, "metadata", None) or {}
        if metadata.get("dvc", {}).get("kind") == "metrics":
            current_tracker().log(mlflow.flatten_metrics(data), None)
        path = Path(str(dataset._describe().get("filepath", "")))
        if path.is_file() and path.is_relative_to(self._root / SHOWN):
            current_tracker().file(path)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Close the last stage's child; the parent goes on until `record` ends it."""
        _tolerant(lambda: mlflow.close_stage(mlflow.FINISHED))
        mlflow.forget()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the child and the parent as failed."""
        _close(mlflow.FAILED)

    def _open(self) -> None:
        params = self._catalog.load("parameters")
        concept, commit = params["concept"]["trigger"], run_inputs.commit(self._root)
        inputs = run_inputs.inputs_hash(self._root, params)
        mlflow.open_parent(self._root, concept, inputs, params, str(commit or ""))


def _close(status: str) -> None:
    """End the open child and the open parent."""
    _tolerant(lambda: mlflow.close_stage(status))
    _tolerant(lambda: mlflow.close_parent(status))


def _tolerant(work: Callable[[], object]) -> None:
    """Do some tracking; when it fails, warn and let the work go on untracked."""
    try:
        work()
    except Exception as err:  # whatever is wrong with tracking, a long training must not die of it
        mlflow.forget()
        logger.warning("MLflow does not answer, so that this run is not tracked: %s", err)
