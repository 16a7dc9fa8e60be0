"""What became of a picture or a rights record: the datasets, runs, model versions and packages that used it.

Found by hashes alone: tables of pictures of this and of every committed dvc.lock, the outputs that tracked
runs recorded, and rights.json of the packages here and of those in the registry.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from valentina_pipeline.domain import naming
from valentina_pipeline.integrations import mlflow, registry
from valentina_pipeline.integrations.registry import Version
from valentina_pipeline.integrations.run_inputs import run_command

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    "ingest": "data/02_intermediate/{concept}/manifest.parquet",
    "train_lora": "data/06_models/{concept}/used_pictures.parquet",
}
"""Stage -> its table of pictures and their records: those taken in, and those that a LoRA stands on."""

PACKAGE = "data/06_models/{concept}/package"
WORKING_TREE = "working tree"
SHORTEST = 8
"""Hex digits of an image's sha256 that are enough to name it."""

SECONDS = 60.0
"""For a command that reads git's history or DVC's settings."""


@dataclass(frozen=True)
class Dataset:
    """A version of a concept's dataset, or of what its LoRA stands on.

    Attributes:
        stage: one of TABLES.
        concept: whose.
        md5: of the stage's table, as DVC knows it.
        commits: whose dvc.lock names it, newest first; WORKING_TREE for the one that lies here.
        images: (sha256, source name, rights record) of what was asked for.
    """

    stage: str
    concept: str
    md5: str
    commits: tuple[str, ...]
    images: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Trained:
    """A tracked run on such a dataset."""

    concept: str
    run_id: str
    name: str
    commit: str


@dataclass(frozen=True)
class Former:
    """A package of a committed dvc.lock, which DVC's caches may hold.

    Attributes:
        concept: whose.
        md5: as DVC knows it.
        commits: whose dvc.lock names it, newest first.
    """

    concept: str
    md5: str
    commits: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """All that used a picture or a record.

    Attributes:
        datasets: by concept, newest first.
        runs: on those datasets.
        versions: of packages in the registry that stand on them.
        packages: folders of published packages here that do.
        former: packages of dvc.lock's history that do.
        missing: tables that dvc.lock's history names and that are not in DVC's cache here.
        unread: versions whose package cannot be read.
    """

    datasets: tuple[Dataset, ...] = ()
    runs: tuple[Trained, ...] = ()
    versions: tuple[Version, ...] = ()
    packages: tuple[Path, ...] = ()
    former: tuple[Former, ...] = ()
    missing: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass
class _Lock:
    commits: list[str] = field(default_factory=list)
    packages: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def trace(root: Path, query: str) -> Trace:
    """Return what used `query`: a rights record's id, a picture's source name or (the start of) its sha256.

    Packages, here and in the registry, are known by their rights.json, datasets and runs by tables of
    pictures in DVC's cache: without the cache packages are found all the same, but not by a source name.

    Raises:
        mlflow.exceptions.MlflowException: the tracking store does not answer.
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
    return Trace(datasets, runs, tuple(versions), here, former, missing, tuple(unread))


def packages(root: Path, query: str, shas: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the folders of published packages here that used `query` or pictures of these sha256."""
    for folder in sorted(root.glob(PACKAGE.format(concept="*"))):
        try:
            rights = json.loads((folder / "rights.json").read_text("utf-8"))
        except (OSError, ValueError):  # no package: nothing draws from it
            continue
        if uses(rights, query, shas):
            yield folder


def uses(rights: Any, query: str, shas: frozenset[str] = frozenset()) -> bool:
    """Return whether a package's rights.json names a record, or a picture by (the start of) its sha256."""
    try:
        records = {record["id"] for record in rights["records"]}
        found = {line.partition(" ")[0] for line in rights["images"]}
    except (KeyError, TypeError, AttributeError):  # no package: nothing draws from it
        return False
    by_start = len(query) >= SHORTEST and any(sha.startswith(query) for sha in found)
    return query in records or bool(found & shas) or by_start


def _datasets(root: Path, query: str) -> tuple[tuple[Dataset, ...], tuple[Former, ...], tuple[str, ...]]:
    """Return the datasets with `query`, the packages of their commits, and tables that are not here."""
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
                former[concept, package] += [each for each in commits if each not in former[concept, package]]
    packaged = (Former(concept, md5, tuple(commits)) for (concept, md5), commits in former.items())
    return tuple(found), tuple(packaged), tuple(missing)


def _matches(table: "pd.DataFrame", query: str) -> "pd.Series[bool]":
    named = (table["rights_id"] == query) | table["source_name"].map(lambda name: naming.same(name, query))
    return named | table["sha256"].str.startswith(query) if len(query) >= SHORTEST else named


def _locks(root: Path) -> dict[tuple[str, str, str], _Lock]:
    """Return the tables of all locks by stage, concept and md5, newest first."""
    found: dict[tuple[str, str, str], _Lock] = defaultdict(_Lock)
    file = root / "dvc.lock"
    if file.is_file():
        _add(found, WORKING_TREE, file.read_text("utf-8"))
    for commit in run_command(root, "git", "log", "--format=%H", "--", "dvc.lock", seconds=SECONDS).split():
        _add(found, commit[:12], run_command(root, "git", "show", f"{commit}:dvc.lock", seconds=SECONDS))
    return found


def _add(found: dict[tuple[str, str, str], _Lock], commit: str, text: str) -> None:
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
    """Return a table by its md5, from DVC's cache or as it lies here; None where it is in neither."""
    import pandas as pd

    for file in (_cache(root) / "files/md5" / md5[:2] / md5[2:], root / path):
        try:
            content = file.read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                table = pd.read_parquet(BytesIO(content))
                return table if {"sha256", "source_name", "rights_id"} <= set(table) else None
        except (OSError, ValueError):  # damaged, or of a format of before
            continue
    return None


@lru_cache(maxsize=1)
def _cache(root: Path) -> Path:
    return Path(run_command(root, "dvc", "cache", "dir", seconds=SECONDS).strip() or root / ".dvc/cache")


def _runs(root: Path, md5s: set[str]) -> Iterator[Trained]:
    """Yield the runs one of whose stages put out one of these tables."""
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


def _trained(run: Any) -> Trained:
    tags = run.data.tags
    return Trained(
        tags.get("concept", ""), run.info.run_id, run.info.run_name or "", tags.get("git_commit", "")
    )
