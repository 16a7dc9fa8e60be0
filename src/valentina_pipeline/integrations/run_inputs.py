"""Inputs of a run: hashes of files and parameters, outputs in dvc.lock, and the git commit."""

import csv
import hashlib
import json
import logging
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from valentina_pipeline.common.code_fingerprint import PACKAGE, fingerprint, pipeline_module
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.concept import STAGE_NAMES
from valentina_pipeline.integrations import tables

logger = logging.getLogger(__name__)

INPUT_PATTERNS = (
    "dvc.yaml",
    "conf/base/catalog.yml",
    "conf/base/prompts/**/*",
    "conf/base/rights/{concept}/**/*",
    "tiny/judges.json",
    "tiny/weights/**/*",
    "data/01_raw/{concept}.dvc",
    "data/01_raw/{concept}/**/*.dvc",
    "data/05_model_input/{concept}.dvc",
    "data/05_model_input/{concept}/**/*.dvc",
)
"""Files that a concept's result depends on, besides its effective parameters, images and the code."""

CAPTIONS = "data/04_feature/{concept}/captions.csv"

GIT_SECONDS = 20


@dataclass(frozen=True)
class Commit:
    """Commit of the working tree; `dirty` where tracked files differ from it."""

    sha: str
    dirty: bool

    def __str__(self) -> str:
        return f"{self.sha}-dirty" if self.dirty else self.sha


def inputs_hash(root: Path, params: Mapping[str, Any]) -> str:
    """Return the sha256 over everything that one concept's result depends on.

    Checkouts with the same content have the same hash in any folder: DVC runs experiments in copies. Files
    that a run writes are excluded, so that the hash stays the same from its first stage to its last. People's
    edits of captions are included.

    Args:
        root: the project.
        params: effective parameters, with `concept`.
    """
    concept = params["concept"]
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode())
    digest.update(fingerprint(*_code_modules(root / "src"), src=root / "src").encode())
    for file in files(root, (pattern.format(concept=concept["trigger"]) for pattern in INPUT_PATTERNS)):
        digest.update(f"{file.relative_to(root).as_posix()} {sha256(file)}\n".encode())
    source = concept["source"]
    places = [source] if isinstance(source, str) else sorted(source.values())
    for name, size in (image for place in places for image in _image_sizes(root, place)):
        digest.update(f"{name} {size}\n".encode())
    for sha, caption in _human_captions(root / CAPTIONS.format(concept=concept["trigger"])):
        digest.update(f"{sha} {caption}\n".encode())
    return digest.hexdigest()


def _code_modules(src: Path) -> list[str]:
    """Return the root modules of all stages' code: their pipelines, and the datasets of the catalog."""
    datasets = (src / PACKAGE / "datasets").glob("*.py")
    return [*map(pipeline_module, STAGE_NAMES), *(f"{PACKAGE}.datasets.{file.stem}" for file in datasets)]


def files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files that match, each once, sorted, without caches and hidden files."""
    found = {file for pattern in patterns for file in root.glob(pattern) if file.is_file()}
    return sorted(file for file in found if not _is_incidental(file.relative_to(root)))


def locked_outputs(root: Path, concept: str, revision: str | None = None) -> dict[str, dict[str, str]]:
    """Return a concept's outputs in dvc.lock: stage -> output path -> md5; {} without a valid lock.

    Args:
        root: the project.
        concept: its trigger.
        revision: of git; None for the working tree.
    """
    lock = root / "dvc.lock"
    if revision is not None:
        text = run_command(root, "git", "show", "--end-of-options", f"{revision}:dvc.lock")
    else:
        text = lock.read_text("utf-8") if lock.is_file() else ""
    try:
        stages = (yaml.safe_load(text) or {}).get("stages", {})
    except yaml.YAMLError as err:
        logger.warning("%s is not valid YAML (%s): restore it with `git checkout -- dvc.lock`", lock, err)
        return {}
    found = {}
    for name, stage in stages.items():
        base, _, item = name.partition("@")
        if item == concept:
            found[base] = {out["path"]: out.get("md5", "") for out in stage.get("outs", ())}
    return found


def commit(root: Path) -> Commit | None:
    """Return the git commit, or None without git or without a commit."""
    sha = run_command(root, "git", "rev-parse", "HEAD").strip()
    if not sha:
        return None
    return Commit(
        sha, bool(run_command(root, "git", "status", "--porcelain", "--untracked-files=no").strip())
    )


def run_command(root: Path, *command: str, seconds: float = GIT_SECONDS) -> str:
    """Return the output of a command run in `root`; "" where it fails or takes longer than `seconds`."""
    try:
        completed = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=seconds, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return completed.stdout


def _image_sizes(root: Path, source: str) -> Iterator[tuple[str, int]]:
    """Yield names and sizes of images in a folder of the project; hashing all of them would be slow."""
    folder = root / source
    if source == "renderer" or "://" in source or not folder.is_dir():
        return
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        yield file.relative_to(folder).as_posix(), file.stat().st_size


def _human_captions(captions: Path) -> list[tuple[str, str]]:
    """Return (image sha256, caption) of the captions that people wrote."""
    if not captions.is_file():
        return []
    with captions.open(encoding="utf-8-sig", newline="") as table:
        cells = [(row.get("sha256") or "", row.get("human") or "") for row in csv.DictReader(table)]
    rows = [(sha, tables.unescape_formula(caption.strip())) for sha, caption in cells]
    return sorted((sha, caption) for sha, caption in rows if caption)


def _is_incidental(path: Path) -> bool:
    return "__pycache__" in path.parts or any(part.startswith(".") for part in path.parts)
