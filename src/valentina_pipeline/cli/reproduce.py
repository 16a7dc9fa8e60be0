"""Command `kedro reproduce`: run HEAD again in a clean clone and compare every output with dvc.lock."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.framework.startup import ProjectMetadata
from rich.console import Console
from rich.table import Table

MAX_METRICS_SHOWN = 5
"""Number of metrics shown for each output that differs: the largest changes."""


class ReproductionError(RuntimeError):
    """There is no dvc.lock to compare with, or a command failed; the message says what to do."""


@dataclass(frozen=True)
class MetricChange:
    """A number of a metrics file that differs from the committed one."""

    name: str
    committed: float
    now: float


@dataclass(frozen=True)
class StageComparison:
    """Comparison of one stage: the number of its outputs, and the differences."""

    stage: str
    outputs: int
    differing: tuple[str, ...]
    moved: tuple[MetricChange, ...]


@click.command()
@click.argument("stages", metavar="[STAGE]...", nargs=-1)
@click.option("--keep", is_flag=True, help="Keep the temporary clone, to inspect a difference.")
@click.pass_obj
def reproduce(metadata: ProjectMetadata, stages: tuple[str, ...], keep: bool) -> None:
    r"""Run the committed pipeline again and compare it with dvc.lock.

    \b
    In a clean temporary clone of HEAD, every stage runs again without cache; given STAGEs, only these
    and the stages that they need. Then each output's hash is compared with the committed one. For each
    stage, the table shows "identical" or the outputs that differ, and by how much metrics differ. Exit
    status 1 means that an output differs.

    \b
    Your working tree, cache and MLflow store do not change. Uncommitted changes are not used. Another
    kind of machine or another number of `num_threads` may round differently.
    """
    try:
        same = reproduce_committed(metadata.project_path, stages, keep=keep)
    except ReproductionError as err:
        raise click.ClickException(str(err)) from err
    sys.exit(0 if same else 1)


def reproduce_committed(
    root: Path, stages: Sequence[str] = (), *, keep: bool = False, console: Console | None = None
) -> bool:
    """Rerun HEAD of the repository at `root` in a clone and print a table; return True if all is equal.

    Args:
        root: a repository with a dvc.lock.
        stages: stages to rerun, with the stages that they need, and to compare; by default all.
        keep: keep the clone.
        console: the console to print on.

    Raises:
        ReproductionError: HEAD has no dvc.lock, or a command failed.
    """
    console = console or Console()
    if changes := _run(["git", "status", "--porcelain"], root, capture=True):
        console.print(f"{len(changes.splitlines())} uncommitted changes are not used", style="yellow")
    place = Path(tempfile.mkdtemp(prefix="reproduce-"))
    clone = place / root.resolve().name
    try:
        _run(["git", "clone", "--quiet", str(root), str(clone)], root)
        committed, files = _lock(clone), _metrics(clone)
        # --force: stages whose outputs are in git run again, too, and no output comes from a cache
        _run([sys.executable, "-m", "dvc", "repro", "--force", *stages], clone, env=_environment(clone))
        compared = compare(committed, _lock(clone), files, _metrics(clone))
        results = [stage for stage in compared if not stages or stage.stage.partition("@")[0] in stages]
    finally:
        if keep:
            console.print(f"the clone is at {clone}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    console.print(table(results))
    return not any(result.differing for result in results)


def compare(
    committed: Mapping[str, Mapping[str, str]],
    now: Mapping[str, Mapping[str, str]],
    metrics_before: Mapping[str, Any],
    metrics_now: Mapping[str, Any],
) -> Iterator[StageComparison]:
    """Compare two locks (stage -> path -> hash) stage by stage.

    The metrics (path -> content) give the change of an output that differs.
    """
    for stage in {**committed, **now}:
        before, after = committed.get(stage, {}), now.get(stage, {})
        differing = tuple(path for path in {**before, **after} if before.get(path) != after.get(path))
        moved = tuple(
            step for path in differing for step in _moves(metrics_before.get(path), metrics_now.get(path))
        )
        yield StageComparison(stage, len({**before, **after}), differing, moved)


def table(results: list[StageComparison]) -> Table:
    """Return the comparison as a table with a row for each stage."""
    shown = Table("stage", "outputs", "compared with dvc.lock", title="reproduced from HEAD")
    for result in results:
        if not result.differing:
            shown.add_row(result.stage, str(result.outputs), "[green]identical")
            continue
        lines = [f"[red]differs:[/] {path}" for path in result.differing]
        lines += [
            f"  {m.name}: {m.committed:g} -> {m.now:g} ({m.now - m.committed:+.3g})" for m in result.moved
        ]
        shown.add_row(result.stage, str(result.outputs), "\n".join(lines))
    return shown


def _moves(before: object, after: object) -> list[MetricChange]:
    old, new = dict(_numbers(before)), dict(_numbers(after))
    moved = [
        MetricChange(name, old[name], new[name]) for name in old if name in new and old[name] != new[name]
    ]
    return sorted(moved, key=lambda m: abs(m.now - m.committed), reverse=True)[:MAX_METRICS_SHOWN]


def _numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _lock(clone: Path) -> dict[str, dict[str, str]]:
    """Return dvc.lock as stage -> output path -> hash."""
    try:
        stages = yaml.safe_load((clone / "dvc.lock").read_text("utf-8"))["stages"]
    except FileNotFoundError as err:
        raise ReproductionError("HEAD has no dvc.lock: `uv run dvc repro`, then commit dvc.lock") from err
    return {
        name: {out["path"]: out["md5"] for out in stage.get("outs", ())} for name, stage in stages.items()
    }


def _metrics(clone: Path) -> dict[str, Any]:
    """Return path -> content of the JSON outputs that exist; in a fresh clone these are the ones in git."""
    paths = [path for outs in _lock(clone).values() for path in outs if path.endswith(".json")]
    present = (path for path in paths if (clone / path).is_file())
    return {path: json.loads((clone / path).read_text("utf-8")) for path in present}


def _environment(clone: Path) -> dict[str, str]:
    """Return this process's environment without variables that point to the original project."""
    prefixes = ("DVC_", "GIT_", "KEDRO_", "MLFLOW_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    scripts = str(Path(sys.executable).parent)  # where `kedro` is
    return {
        **kept,
        "PATH": os.pathsep.join([scripts, kept.get("PATH", os.defpath)]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{clone / 'mlflow.db'}",
    }


def _run(
    command: list[str], folder: Path, *, env: Mapping[str, str] | None = None, capture: bool = False
) -> str:
    output = subprocess.PIPE if capture else None
    done = subprocess.run(command, cwd=folder, env=env, text=True, stdout=output)
    if done.returncode:
        raise ReproductionError(f"`{' '.join(command)}` in {folder} ended with {done.returncode}: see above")
    return done.stdout or ""
