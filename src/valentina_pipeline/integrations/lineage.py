"""Lineage of an image or a rights record: the datasets, runs, model versions and packages that used it.

The search uses only hashes: the image tables of this and of every committed dvc.lock, the recorded outputs of
tracked runs, and rights.json of the packages here and in the registry.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from valentina_pipeline.domain import naming
from valentina_pipeline.integrations import mlflow, registry
from valentina_pipeline.integrations.past_runs import COMMAND_SECONDS, read_output
from valentina_pipeline.integrations.registry import Version
from valentina_pipeline.integrations.run_description import TRAINING_IMAGES, read_commit
from valentina_pipeline.integrations.run_inputs import run_command

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    "ingest": "data/02_intermediate/{concept}/manifest.parquet",
    "train_lora": TRAINING_IMAGES,
}
"""Stage -> its table of images and their rights records: ingested images, and training images of a LoRA."""

PACKAGE = "data/06_models/{concept}/package"
WORKING_TREE = "working tree"
MIN_SHA256_CHARS = 8
"""Minimum length of a sha256 prefix that identifies an image."""


@dataclass(frozen=True)
class Dataset:
    """Version of a concept's dataset, or of its LoRA's training images.

    Attributes:
        stage: one of TABLES.
        concept: its trigger.
        md5: of the stage's table, in DVC.
        commits: with it in their dvc.lock, newest first; WORKING_TREE for the current file.
        images: (sha256, source name, rights record) of the images found.
    """

    stage: str
    concept: str
    md5: str
    commits: tuple[str, ...]
    images: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class TrainingRun:
    """Tracked run on such a dataset."""

    concept: str
    run_id: str
    name: str
    commit: str


@dataclass(frozen=True)
class FormerPackage:
    """Package of a committed dvc.lock; DVC's caches may contain it.

    Attributes:
        concept: its trigger.
        md5: in DVC.
        commits: with it in their dvc.lock, newest first.
    """

    concept: str
    md5: str
    commits: tuple[str, ...]


@dataclass(frozen=True)
class LineageReport:
    """Everything that used an image or a rights record.

    Attributes:
        datasets: by concept, newest first.
        runs: on those datasets.
        versions: package versions in the registry that depend on it.
        packages: folders of published packages here that depend on it.
        former: packages in the history of dvc.lock that depend on it.
        missing: tables in the history of dvc.lock that are not in DVC's cache here.
        unread: registered versions whose package cannot be read.
    """

    datasets: tuple[Dataset, ...] = ()
    runs: tuple[TrainingRun, ...] = ()
    versions: tuple[Version, ...] = ()
    packages: tuple[Path, ...] = ()
    former: tuple[FormerPackage, ...] = ()
    missing: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass
class _LockedTable:
    commits: list[str] = field(default_factory=list)
    packages: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def trace(root: Path, query: str) -> LineageReport:
    """Return everything that used `query`: a rights record's id, an image's source name or sha256 (prefix).

    Packages, here and in the registry, are found by their rights.json; datasets and runs by image tables in
    DVC's cache. Without the cache, packages are still found, but not by a source name.

    Raises:
        mlflow.exceptions.MlflowException: the tracking store does not respond.
    """
    datasets, former, missing = _datasets(root, query)
    runs = tuple(_runs(root, {dataset.md5 for dataset in datasets}))
    shas = frozenset(sha for dataset in datasets for sha, *_ in dataset.images)
    versions, unread = [], []
    for version, rights in registry.list_packages(root):
        if rights is None:
            unread.append(f"{version.name} version {version.number}")
        elif uses(rights, query, shas):
            versions.append(version)
    here = tuple(packages(root, query, shas))
    return LineageReport(datasets, runs, tuple(versions), here, former, missing, tuple(unread))


def packages(root: Path, query: str, shas: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the folders of published packages here that used `query` or images with these sha256."""
    for folder in sorted(root.glob(PACKAGE.format(concept="*"))):
        try:
            rights = json.loads((folder / "rights.json").read_text("utf-8"))
        except (OSError, ValueError):  # not a package: it cannot generate
            continue
        if uses(rights, query, shas):
            yield folder


def uses(rights: Any, query: str, shas: frozenset[str] = frozenset()) -> bool:
    """Return whether a package's rights.json lists a record, or an image by its sha256 or a prefix of it."""
    try:
        records = {record["id"] for record in rights["records"]}
        found = {line.partition(" ")[0] for line in rights["images"]}
    except (KeyError, TypeError, AttributeError):  # not a package: it cannot generate
        return False
    by_start = len(query) >= MIN_SHA256_CHARS and any(sha.startswith(query) for sha in found)
    return query in records or bool(found & shas) or by_start


def _datasets(
    root: Path, query: str
) -> tuple[tuple[Dataset, ...], tuple[FormerPackage, ...], tuple[str, ...]]:
    """Return the datasets with `query`, the packages of their commits, and the missing tables."""
    found: list[Dataset] = []
    former: dict[tuple[str, str], list[str]] = defaultdict(list)
    missing: list[str] = []
    for (stage, concept, md5), lock in _locks(root).items():
        path = TABLES[stage].format(concept=concept)
        table = _table(root, path, md5)
        if table is None:
            missing.append(f"{path} {md5} ({lock.commits[0]})")
            continue
        hits = table[_matches(table, query)]
        if not hits.empty:
            images = tuple(zip(hits["sha256"], hits["source_name"], hits["rights_id"], strict=True))
            found.append(Dataset(stage, concept, md5, tuple(lock.commits), images))
            for package, commits in lock.packages.items():
                former[concept, package] += [
                    commit for commit in commits if commit not in former[concept, package]
                ]
    packaged = (FormerPackage(concept, md5, tuple(commits)) for (concept, md5), commits in former.items())
    return tuple(found), tuple(packaged), tuple(missing)


def _matches(table: "pd.DataFrame", query: str) -> "pd.Series[bool]":
    named = (table["rights_id"] == query) | table["source_name"].map(lambda name: naming.same(name, query))
    return named | table["sha256"].str.startswith(query) if len(query) >= MIN_SHA256_CHARS else named


def _locks(root: Path) -> dict[tuple[str, str, str], _LockedTable]:
    """Return the tables of all locks by stage, concept and md5, newest first."""
    found: dict[tuple[str, str, str], _LockedTable] = defaultdict(_LockedTable)
    file = root / "dvc.lock"
    if file.is_file():
        _add(found, WORKING_TREE, file.read_text("utf-8"))
    for commit in run_command(
        root, "git", "log", "--format=%H", "--", "dvc.lock", seconds=COMMAND_SECONDS
    ).split():
        _add(
            found,
            commit[:12],
            run_command(root, "git", "show", f"{commit}:dvc.lock", seconds=COMMAND_SECONDS),
        )
    return found


def _add(found: dict[tuple[str, str, str], _LockedTable], commit: str, text: str) -> None:
    try:
        stages = (yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get(
            "stages", {}
        )
    except yaml.YAMLError:
        return
    outs: dict[str, dict[str, str]] = defaultdict(dict)
    for name, stage in stages.items():
        concept = name.partition("@")[2]
        outs[concept] |= {out["path"]: out.get("md5", "") for out in stage.get("outs", ())}
    for concept, stage in product(outs, TABLES):
        paths = outs[concept]
        if md5 := paths.get(TABLES[stage].format(concept=concept)):
            lock = found[stage, concept, md5]
            lock.commits.append(commit)
            package = paths.get(PACKAGE.format(concept=concept))
            if package and commit != WORKING_TREE:
                lock.packages[package].append(commit)


def _table(root: Path, path: str, md5: str) -> "pd.DataFrame | None":
    """Return a table by its md5, from DVC's cache or the working tree; None where neither has it."""
    import pandas as pd

    content = read_output(root, path, md5)
    try:
        table = pd.read_parquet(BytesIO(content)) if content is not None else pd.DataFrame()
    except (OSError, ValueError):  # in an earlier format
        return None
    return table if {"sha256", "source_name", "rights_id"} <= set(table) else None


def _runs(root: Path, md5s: set[str]) -> Iterator[TrainingRun]:
    """Yield the runs in which a stage produced one of these tables."""
    client = mlflow.client(root)
    parents: dict[str, None] = {}
    for experiment, stage in product(client.search_experiments(), TABLES):
        for run in client.search_runs(
            [experiment.experiment_id], f"tags.stage = '{stage}'", max_results=1000
        ):
            outs: dict[str, str] = json.loads(run.data.tags.get("outs", "{}"))
            if md5s & set(outs.values()) and mlflow.PARENT in run.data.tags:
                parents[run.data.tags[mlflow.PARENT]] = None
    for parent in parents:
        yield _trained(client.get_run(parent))


def _trained(run: Any) -> TrainingRun:
    tags = run.data.tags
    commit = str(read_commit(tags) or "")
    return TrainingRun(tags.get("concept", ""), run.info.run_id, run.info.run_name or "", commit)
