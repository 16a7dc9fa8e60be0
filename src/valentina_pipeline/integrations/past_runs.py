"""Outputs of earlier runs, by git revision, MLflow run or working tree, read from DVC's cache."""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.run_inputs import locked_outputs, run_command

WORKING_TREE = "."
"""Name of the run whose outputs dvc.lock of the working tree lists."""

COMMAND_SECONDS = 60.0
"""Timeout of commands that read the git history or DVC's settings."""

FOLDER_SUFFIX = ".dir"
"""End of a folder's md5, which names a list of the folder's files."""


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
        self._run_id: str | None = None
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
            content = read_output(self._root, path, md5)
        if content is None:
            raise RunNotFoundError(self._missing(path))
        return content

    def read_folder(self, path: str, keep: Callable[[str], bool]) -> dict[str, bytes]:
        """Return the files of an output folder by relative path, if `keep` accepts the path.

        Raises:
            RunNotFoundError: the run did not write it, or DVC's cache lacks it.
        """
        files = {}
        for relative, md5 in _list_folder(self._root, path, self._outputs.get(path, "")):
            if keep(relative):
                inside = str(PurePosixPath(path) / relative)
                files[relative] = read_output(self._root, inside, md5)
        if not files or None in files.values():
            raise RunNotFoundError(self._missing(path))
        return {relative: content for relative, content in files.items() if content is not None}

    def log_page(self, path: str, text: str) -> None:
        """Log a page as an artifact of the run, if the run comes from MLflow."""
        if self._run_id is not None:
            mlflow.client(self._root).log_text(self._run_id, text, path)

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
        self._run_id = parents[0] if parents else None
        return {
            run.data.tags["stage"]: json.loads(run.data.tags.get("outs", "{}"))
            for run in runs
            if self._run_id
            and run.data.tags.get(mlflow.PARENT) == self._run_id
            and "superseded" not in run.data.tags
        }


def read_output(root: Path, path: str, md5: str) -> bytes | None:
    """Return an output file's content from the cache or the working tree; None where neither has it.

    Args:
        root: the project.
        path: path of the output in the project.
        md5: md5 of the content, which is checked.
    """
    for file in (_cache_folder(root) / md5[:2] / md5[2:], root / path):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(FOLDER_SUFFIX):
            return content
    return None


def _list_folder(root: Path, path: str, md5: str) -> Iterator[tuple[str, str]]:
    """Yield the relative path and md5 of each file in an output folder; nothing where the cache lacks it."""
    listing = read_output(root, path, md5)
    for entry in json.loads(listing) if listing is not None else ():
        yield entry["relpath"], entry["md5"]


@lru_cache(maxsize=1)
def _cache_folder(root: Path) -> Path:
    printed = run_command(root, "dvc", "cache", "dir", seconds=COMMAND_SECONDS).strip()
    return Path(printed or root / ".dvc/cache") / "files/md5"
