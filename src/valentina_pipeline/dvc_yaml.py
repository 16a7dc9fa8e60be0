"""Generation of dvc.yaml from Kedro's pipeline registry and catalog.

A stage is a pipeline. Its deps are the paths of its free inputs. Its params are the keys behind its
`params:` inputs, its catalog entries and the fingerprint of its code. Its outs are its persisted outputs.
`metadata: {dvc: ...}` of a catalog entry configures how DVC stores it: `kind` (outs, metrics or plots), DVC's
`cache`, `persist`, `push`, `remote`, and a plot's axes.

Two additional stages write files of which each other stage follows its own keys, and run in a few seconds.
`code` writes the fingerprints whenever a file of the package changed. `bases` writes each concept's entry of
bases.yml, because DVC cannot look up a key by the matrix item.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from kedro.pipeline import Pipeline

from valentina_pipeline.common import atomic_files
from valentina_pipeline.common.code_fingerprint import PACKAGE, fingerprint, pipeline_module
from valentina_pipeline.config import effective
from valentina_pipeline.config_loader import BASES, CONCEPTS, ProjectConfigLoader, base_settings
from valentina_pipeline.domain.concept import SECTIONS, Concept
from valentina_pipeline.hooks import PROJECT_ROOT
from valentina_pipeline.pipeline_registry import PIPELINES, register_pipelines

ITEM = "${item.concept}"
HEADER = "# Written by `kedro dvc` from the pipelines and conf/base/catalog.yml: change those, then run it.\n"
FINGERPRINTS = "code_fingerprints.json"
BASE_SETTINGS = "base_settings.json"
CATALOG = "conf/base/catalog.yml"
CONCEPT = f"{CONCEPTS}/{ITEM}.yml"
INDIRECT = {"base", "overrides"}
"""A concept's keys that other parameters hold: BASE_SETTINGS, and each stage's own key of `overrides`."""

KINDS = ("outs", "metrics", "plots")
OUT_KEYS = {"cache", "persist", "push", "remote"}
PLOT_KEYS = {"x", "y", "x_label", "y_label", "title", "template", "header"}

CODE_STAGE = {
    "cmd": "kedro fingerprint",
    "deps": [f"src/{PACKAGE}", CATALOG],
    "outs": [{FINGERPRINTS: {"cache": False}}],
}
BASES_STAGE = {
    "cmd": "kedro base-settings",
    "deps": [BASES, CONCEPTS],
    "params": ["base", "concepts", {FINGERPRINTS: ["bases"]}],
    "outs": [{BASE_SETTINGS: {"cache": False}}],
}

Catalog = Mapping[str, Mapping[str, Any]]


class InvalidDagError(ValueError):
    """DVC cannot run the DAG of pipelines and catalog; the message says what to change."""


def render_dvc_yaml(root: Path) -> str:
    """Return the text that `root`'s dvc.yaml should have; Kedro must be set up for `root`.

    Raises:
        InvalidDagError: see `stages`.
    """
    pipelines = register_pipelines()
    described = stages({name: pipelines[name] for name in PIPELINES}, read_catalog(root))
    body = yaml.safe_dump(
        {"stages": {"code": CODE_STAGE, "bases": BASES_STAGE, **described}},
        sort_keys=False,
        width=100,
        allow_unicode=True,
    )
    return HEADER + body


def fingerprints(root: Path) -> str:
    """Return the text that `root`'s code_fingerprints.json should have: stage -> hash of its code."""
    catalog = read_catalog(root)
    pipelines = register_pipelines()
    modules = {name: _modules(name, pipelines[name], catalog) for name in PIPELINES}
    modules["bases"] = [effective.__name__]
    hashes = {name: fingerprint(*roots, src=root / "src") for name, roots in modules.items()}
    return json.dumps(hashes, indent=2) + "\n"


def render_base_settings(root: Path) -> str:
    """Return the text that `root`'s base_settings.json should have: concept -> its entry of bases.yml."""
    return json.dumps(base_settings(root), indent=2, ensure_ascii=False) + "\n"


def write(path: Path, text: str) -> bool:
    """Make `path` hold `text`; return whether it did not before."""
    if path.exists() and path.read_text("utf-8") == text:
        return False
    atomic_files.replace(path, text.encode())
    return True


def diff(path: Path, text: str) -> str:
    """Return the unified diff from the content of `path` to `text`; empty if it is up to date."""
    present = path.read_text("utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        present.splitlines(keepends=True), text.splitlines(keepends=True), path.name, "kedro dvc"
    )
    return "".join(lines)


def read_catalog(root: Path) -> dict[str, dict[str, Any]]:
    """Return the catalog's entries with DVC's matrix item in place of the concept's name."""
    stand_in = "concept-of-the-item"  # OmegaConf would try to resolve DVC's ${...}
    loader = ProjectConfigLoader(
        root / "conf", "base", {"concept": stand_in}, base_env="base", default_run_env="base"
    )

    def with_item(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: with_item(inner) for key, inner in value.items()}
        return value.replace(stand_in, ITEM) if isinstance(value, str) else value

    return {name: with_item(entry) for name, entry in loader["catalog"].items()}


def stages(pipelines: Mapping[str, Pipeline], catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Return dvc.yaml's stages for these pipelines.

    Raises:
        InvalidDagError: two pipelines write one path; an input from another pipeline is not in the catalog;
            an entry is versioned by Kedro as well; a path is outside the project; or a parameter or
            `metadata.dvc` is unknown.
    """
    _check_single_writers(pipelines, catalog)
    return {name: _stage(name, pipeline, catalog) for name, pipeline in pipelines.items()}


def _stage(name: str, pipeline: Pipeline, catalog: Catalog) -> dict[str, Any]:
    inputs = {given for given in pipeline.inputs() if not given.startswith("params:")} - {PROJECT_ROOT}
    for given in sorted(inputs - set(catalog)):
        raise InvalidDagError(
            f"stage {name} takes {given!r}, which is not persisted: add an entry to {CATALOG}, "
            "or compute it in the same stage"
        )
    outputs = pipeline.all_outputs() & set(catalog)
    used = _entries(pipeline, catalog)
    stage: dict[str, Any] = {
        "matrix": {"concept": "${concepts}"},
        "cmd": f"kedro run --pipelines {name} --params concept={ITEM}",
        "deps": [_path(entry, catalog) for entry in used if entry in inputs],
        "params": [*_params(pipeline, used), {FINGERPRINTS: [name]}],
    }
    outs = [_out(entry, catalog) for entry in used if entry in outputs]
    for kind in KINDS:
        if section := [out for its_kind, out in outs if its_kind == kind]:
            stage[kind] = section
    return stage


def _entries(pipeline: Pipeline, catalog: Catalog) -> list[str]:
    """Return the catalog's entries that a pipeline reads or writes, in the catalog's order."""
    return [entry for entry in catalog if entry in pipeline.inputs() | pipeline.all_outputs()]


def _modules(name: str, pipeline: Pipeline, catalog: Catalog) -> list[str]:
    """Return the root modules of a stage's code: its pipeline, and the classes of its datasets."""
    datasets = {
        str(catalog[entry].get("type", "")).rpartition(".")[0] for entry in _entries(pipeline, catalog)
    }
    return [pipeline_module(name), *sorted(datasets)]


def _path(name: str, catalog: Catalog) -> str:
    """Return a catalog entry's path, relative to the project."""
    entry = catalog[name]
    if entry.get("versioned"):
        raise InvalidDagError(
            f"{name} is `versioned: true`, but DVC versions it already: remove that key in {CATALOG}"
        )
    path = entry.get("filepath")
    if not isinstance(path, str):
        raise InvalidDagError(f"{name} has no filepath in {CATALOG}: DVC cannot track it")
    plain = PurePosixPath(path)
    if plain.is_absolute() or ".." in plain.parts or "://" in path:
        raise InvalidDagError(f"{name} is at {path}: DVC tracks only paths inside the project")
    return plain.as_posix()


def _out(name: str, catalog: Catalog) -> tuple[str, str | dict[str, Any]]:
    """Return the section of the stage that the output belongs to, and its entry there."""
    options = dict((catalog[name].get("metadata") or {}).get("dvc") or {})
    kind = options.pop("kind", "outs")
    known = OUT_KEYS | (PLOT_KEYS if kind == "plots" else set())
    if kind not in KINDS or set(options) - known:
        raise InvalidDagError(
            f"metadata.dvc of {name} in {CATALOG}: kind must be one of {', '.join(KINDS)}, and {kind} allows "
            f"{', '.join(sorted(known))}"
        )
    path = _path(name, catalog)
    return kind, {path: options} if options else path


def _check_single_writers(pipelines: Mapping[str, Pipeline], catalog: Catalog) -> None:
    written = [
        (PurePosixPath(_path(entry, catalog)), stage, entry)
        for stage, pipeline in pipelines.items()
        for entry in sorted(pipeline.all_outputs() & set(catalog))
    ]
    for index, (path, stage, entry) in enumerate(written):
        for other, other_stage, other_entry in written[:index]:
            if path == other or path in other.parents or other in path.parents:
                raise InvalidDagError(
                    f"{other_stage} writes {other_entry} to {other} and {stage} writes {entry} to {path}: "
                    "each path must have one writer"
                )


def _params(pipeline: Pipeline, used: Iterable[str]) -> list[str | dict[str, list[str]]]:
    """Return the stage's params by file, with only the keys that it uses."""
    keys: dict[str, set[str]] = {"params.yaml": set(), BASE_SETTINGS: set(), CONCEPT: set()}
    for given in sorted(pipeline.inputs()):
        if given.startswith("params:"):
            for file, names in _keys_behind(given.removeprefix("params:")).items():
                keys[file].update(names)
    chosen: list[str | dict[str, list[str]]] = [*sorted(keys.pop("params.yaml"))]
    others: list[str | dict[str, list[str]]] = [
        {file: sorted(names)} for file, names in keys.items() if names
    ]
    return [*chosen, *others, {CATALOG: list(used)}]


def _keys_behind(parameter: str) -> dict[str, list[str]]:
    """Return the keys of params.yaml, base_settings.json and the concept behind an effective parameter."""
    head, _, rest = parameter.partition(".")
    inner = f".{rest}" if rest else ""
    if head in ("seed", "num_threads"):
        return {"params.yaml": [head]}
    if head == "base":
        return {BASE_SETTINGS: [f"{ITEM}.model{inner}"]}
    if head == "concept":
        fields = [rest] if rest else [name for name in Concept.model_fields if name not in INDIRECT]
        return {CONCEPT: fields}
    if head in SECTIONS and not rest:
        return {
            "params.yaml": [head],
            BASE_SETTINGS: [f"{ITEM}.{head}"],
            CONCEPT: [f"overrides.{head}"],
        }
    raise InvalidDagError(f"params:{parameter} is unknown to valentina_pipeline.config.effective")
