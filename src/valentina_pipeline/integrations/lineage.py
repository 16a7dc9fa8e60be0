"""What became of a picture or a rights record: the datasets, runs, model versions and packages that used it.

Found by hashes alone: tables of pictures of this and of every committed dvc.lock, the outputs that tracked
runs recorded, and the content that registered versions carry.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.provenance import printed

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    "ingest": "data/02_intermediate/{concept}/manifest.parquet",
    "train_lora": "data/06_models/{concept}/used_pictures.parquet",
}
"""Stage -> its table of pictures and their records: those taken in, and those that a LoRA stands on."""

PACKAGE = "data/06_models/{concept}/package"
HERE = "working tree"
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
        commits: whose dvc.lock names it, newest first; HERE for the one that lies here.
        images: (sha256, source name, rights record) of what was asked for.
    """

    stage: str
    concept: str
    md5: str
    commits: tuple[str, ...]
    images: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Trained:
    """A tracked run on such a dataset, and the version that was registered of its result, if any."""

    concept: str
    run_id: str
    name: str
    commit: str
    content_hash: str
    version: str
    champion: bool
    revoked: str


@dataclass(frozen=True)
class Trace:
    """All that used a picture or a record.

    Attributes:
        datasets: by concept, newest first.
        runs: on those datasets.
        packages: folders of published packages that stand on them, and commits of others.
        missing: tables that dvc.lock's history names and that are not in DVC's cache here.
    """

    datasets: tuple[Dataset, ...] = ()
    runs: tuple[Trained, ...] = ()
    packages: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass
class _Lock:
    commits: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)


def trace(root: Path, query: str) -> Trace:
    """Return what used `query`: a rights record's id, a picture's source name or (the start of) its sha256.

    Raises:
        mlflow.exceptions.MlflowException: the tracking store does not answer.
    """
    datasets, missing = [], []
    packages: list[str] = []
    for (stage, concept, md5), lock in _locks(root).items():
        table = _table(root, md5)
        if table is None:
            missing.append(f"{TABLES[stage].format(concept=concept)} {md5} ({lock.commits[0]})")
            continue
        hits = table[_matches(table, query)]
        if hits.empty:
            continue
        images = tuple(zip(hits["sha256"], hits["source_name"], hits["rights_id"], strict=True))
        datasets.append(Dataset(stage, concept, md5, tuple(lock.commits), images))
        packages += _packages(root, concept, lock)
    runs = tuple(_runs(root, {dataset.md5 for dataset in datasets}))
    return Trace(tuple(datasets), runs, tuple(dict.fromkeys(packages)), tuple(missing))


def _matches(table: "pd.DataFrame", query: str) -> "pd.Series[bool]":
    named = (table["rights_id"] == query) | (table["source_name"] == query)
    return named | table["sha256"].str.startswith(query) if len(query) >= SHORTEST else named


def _locks(root: Path) -> dict[tuple[str, str, str], _Lock]:
    """Return the tables of all locks by stage, concept and md5, newest first."""
    found: dict[tuple[str, str, str], _Lock] = defaultdict(_Lock)
    file = root / "dvc.lock"
    if file.is_file():
        _add(found, HERE, file.read_text("utf-8"))
    for commit in printed(root, "git", "log", "--format=%H", "--", "dvc.lock", seconds=SECONDS).split():
        _add(found, commit[:12], printed(root, "git", "show", f"{commit}:dvc.lock", seconds=SECONDS))
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
            if package := paths.get(PACKAGE.format(concept=concept)):
                lock.packages.add(package)


def _table(root: Path, md5: str) -> "pd.DataFrame | None":
    """Return a table by its md5, from DVC's cache."""
    import pandas as pd

    file = _cache(root) / "files/md5" / md5[:2] / md5[2:]
    return pd.read_parquet(file) if file.is_file() else None


@lru_cache(maxsize=1)
def _cache(root: Path) -> Path:
    return Path(printed(root, "dvc", "cache", "dir", seconds=SECONDS).strip() or root / ".dvc/cache")


def _packages(root: Path, concept: str, lock: _Lock) -> Iterator[str]:
    """Yield the package that lies here, if it stands on the lock, and those of commits by their md5."""
    if HERE in lock.commits and (root / PACKAGE.format(concept=concept)).is_dir():
        yield PACKAGE.format(concept=concept)
    for md5 in sorted(lock.packages):
        yield f"{concept} package {md5} ({', '.join(lock.commits)})"


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
        yield _trained(client, client.get_run(parent))


def _trained(client: Any, run: Any) -> Trained:
    tags = run.data.tags
    concept, content = tags.get("concept", ""), tags.get("content_hash", "")
    versions = (
        client.search_model_versions(f"name = '{concept}' and tags.content_hash = '{content}'")
        if content
        else []
    )
    version = max(versions, key=lambda each: int(each.version), default=None)
    aliases = getattr(version, "aliases", ()) or ()
    return Trained(
        concept,
        run.info.run_id,
        run.info.run_name or "",
        tags.get("git_commit", ""),
        content,
        str(version.version) if version else "",
        "champion" in aliases,
        version.tags.get("revoked", "") if version else "",
    )
