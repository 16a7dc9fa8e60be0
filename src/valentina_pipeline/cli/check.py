"""Command `kedro check`: parameters, rights, sources and models of a concept, before any stage runs."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.config_loader import ParameterUsageError, ProjectConfigLoader, read_concepts
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.rights import InvalidLedgerError
from valentina_pipeline.image.models.requirements import find_missing_models
from valentina_pipeline.image.models.vocabulary import warn_of_word
from valentina_pipeline.integrations import ledgers
from valentina_pipeline.integrations.sources import source
from valentina_pipeline.integrations.sources.files import InvalidSourceError

FOLDERS = ("data/01_raw", "data/05_model_input")
"""Folders with a subfolder for each concept, which DVC needs even if it is empty."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: "rights", "source", "models" and the like.
        text: the state; for a problem, also its solution.
        problem: True if a run would fail.
    """

    topic: str
    text: str
    problem: bool = False


@click.command()
@click.argument("concepts", metavar="[CONCEPT]...", nargs=-1)
@click.pass_obj
def check(metadata: ProjectMetadata, concepts: tuple[str, ...]) -> None:
    r"""Check everything that `dvc repro` needs, before any stage runs.

    \b
      kedro check          every concept of params.yaml
      kedro check ada      conf/base/concepts/ada.yml

    \b
    Checks parameters, rights records, local sources and models. Lists all missing models with their
    licenses and the commands that download them. Creates a concept's missing folders below data/. Exit
    status 1 means that a run would fail.
    """
    failed = False
    for concept, finding in check_project(metadata.project_path, concepts):
        mark = click.style("missing", fg="red") if finding.problem else click.style("ok", fg="green")
        click.echo(f"{concept}\t{mark}\t{finding.topic}: {finding.text}")
        failed = failed or finding.problem
    sys.exit(1 if failed else 0)


def check_project(root: Path, concepts: Sequence[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Yield (concept, finding) for each concept.

    Args:
        root: the project's folder.
        concepts: names of files in conf/base/concepts/; default: the `concepts` of params.yaml.
    """
    for concept in concepts or read_concepts(root):
        loader = ProjectConfigLoader(
            root / "conf", runtime_params={"concept": concept}, base_env="base", default_run_env="base"
        )
        try:
            params = loader["parameters"]
        except ParameterUsageError as err:
            yield concept, Finding("parameters", err.message, problem=True)
            continue
        for finding in check_concept(params, root):
            yield concept, finding


def check_concept(params: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    """Yield the findings about one concept and create its missing folders below data/.

    Args:
        params: the concept's effective parameters.
        root: the project's folder.
    """
    concept = parse_config(Concept, params["concept"], "concept")
    yield Finding("concept", f"{concept.name}, trigger {concept.trigger!r}, class {concept.class_word!r}")
    if warning := warn_of_word(concept.trigger):
        yield Finding("trigger", warning)
    for folder in create_folders(root, concept.trigger):
        yield Finding("folder", f"{folder} created")
    yield _check_rights(root / ledgers.PLACE / concept.trigger, root)
    yield from _check_sources(concept, parse_config(IngestConfig, params["ingest"], "ingest"), root)
    missing = find_missing_models(params, root)
    yield from (Finding("models", str(err), problem=True) for err in missing)
    if not missing:
        name, path = params["base_name"], params["base"]["path"]
        yield Finding("models", f"base {name} ({path}) and its scoring networks are on this machine")


def create_folders(root: Path, trigger: str) -> list[Path]:
    """Create a concept's missing folders below data/; return them relative to the project."""
    folders = [Path(parent, trigger) for parent in FOLDERS]
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    for folder in missing:
        (root / folder).mkdir(parents=True)
    return missing


def _check_rights(folder: Path, root: Path) -> Finding:
    path = folder.relative_to(root)
    try:
        records = ledgers.read(folder)
    except InvalidLedgerError as err:
        return Finding("rights", str(err), problem=True)
    if not records:
        return Finding("rights", f"{path} contains no record: training needs one", problem=True)
    return Finding("rights", f"{path}: {', '.join(record.id for record in records)}")


def _check_sources(concept: Concept, limits: IngestConfig, root: Path) -> Iterator[Finding]:
    places = [concept.source] if isinstance(concept.source, str) else sorted(concept.source.values())
    for place in places:
        if place == "renderer":
            complete = bool(concept.renderer_parameters)
            text = "renderer" if complete else "renderer needs `renderer_parameters`"
            yield Finding("source", text, not complete)
        elif "://" in place:
            yield Finding("source", f"{place} is read only by the stage ingest")
        else:
            yield _check_local(place, limits, root)


def _check_local(place: str, limits: IngestConfig, root: Path) -> Finding:
    try:
        entries = source(place, root, limits.allowed_hosts).entries()
    except (InvalidSourceError, OSError) as err:
        return Finding("source", str(err), problem=True)
    return Finding("source", f"{place}: {len(entries)} files")
