"""Outputs of earlier runs, by git revision, MLflow run or working tree, read from DVC's cache."""

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from valentina_pipeline.integrations import dvc_cache, mlflow
from valentina_pipeline.integrations.run_inputs import locked_outputs

WORKING_TREE = "."
"""Name of the run whose outputs dvc.lock of the working tree lists."""


class RunNotFoundError(LookupError):
    """A run or its output cannot be found; the message says where it was searched and what to do."""


class PastRun:
    """A run of a concept's pipeline, whose outputs are read by their md5.

    Args:
        root: the project.
        concept: its trigger.
        name: ".", a git revision, or the name, a part of the name, or the id of a run in MLflow.

    Raises:
        RunNotFoundError: there is no such run.
    """

    def __init__(self, root: Path, concept: str, name: str) -> None:
        self.name = name
        self._root = root
        revision = None if name == WORKING_TREE else name
        stages = locked_outputs(root, concept, revision) or (
            {} if revision is None else self._tracked(concept)
        )
        self._outputs = {path: md5 for outputs in stages.values() for path, md5 in outputs.items()}
        if not self._outputs:
            raise RunNotFoundError(
                f"{name}: no run of {concept}; must be `.` (the working tree), a git revision with a "
                "dvc.lock, or a run's name or id in `uv run mlflow ui`"
            )

    def read(self, path: str) -> bytes:
        """Return an output's content.

        Raises:
            RunNotFoundError: the run did not write it, or DVC's cache lacks it.
        """
        content = None
        if md5 := self._outputs.get(path):
            content = dvc_cache.read_output(self._root, path, md5)
        if content is None:
            raise RunNotFoundError(self._missing(path))
        return content

    def read_folder(self, path: str, keep: Callable[[str], bool]) -> dict[str, bytes]:
        """Return the files of an output folder by relative path, if `keep` accepts the path.

        Raises:
            RunNotFoundError: the run did not write it, or DVC's cache lacks it.
        """
        files = {}
        for relative, md5 in dvc_cache.list_folder(self._root, path, self._outputs.get(path, "")):
            if keep(relative):
                inside = str(PurePosixPath(path) / relative)
                files[relative] = dvc_cache.read_output(self._root, inside, md5)
        if not files or None in files.values():
            raise RunNotFoundError(self._missing(path))
        return {relative: content for relative, content in files.items() if content is not None}

    def _missing(self, path: str) -> str:
        return (
            f"{self.name}: {path} is not in DVC's cache; `uv run dvc fetch --all-commits` gets what was "
            "pushed, `uv run dvc repro` at that revision makes it again"
        )

    def _tracked(self, concept: str) -> dict[str, dict[str, str]]:
        """Return the outputs that MLflow's run recorded: stage -> path -> md5."""
        client = mlflow.client(self._root)
        experiment = client.get_experiment_by_name(concept)
        if experiment is None:
            return {}
        runs = client.search_runs([experiment.experiment_id], max_results=50_000)
        parents = [
            run.info.run_id
            for run in runs
            if mlflow.PARENT not in run.data.tags
            and self.name in (run.info.run_id, run.info.run_name, *(run.info.run_name or "").split(" · "))
        ]
        return {
            run.data.tags["stage"]: json.loads(run.data.tags.get("outs", "{}"))
            for run in runs
            if parents
            and run.data.tags.get(mlflow.PARENT) == parents[0]
            and "superseded" not in run.data.tags
        }
