"""Readiness of a concept: parameters, rights, sources and models, all looked at before any work begins."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
"""Each holds a folder a concept, which DVC needs even where it is empty."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: "rights", "source", "models" and the like.
        text: the state; for a problem also the remedy.
        problem: True where a run would fail.
    """

    topic: str
    text: str
    problem: bool = False


def check_project(root: Path, concepts: Sequence[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Yield (concept, finding) for each concept.

    Args:
        root: the project's folder.
        concepts: names of files in conf/base/concepts/; by default the `concepts` of params.yaml.
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
    """Yield the findings about one concept; its empty folders below data/ are created.

    Args:
        params: the concept's effective parameters.
        root: the project's folder.
    """
    concept = parse_config(Concept, params["concept"], "concept")
    yield Finding("concept", f"{concept.name}, trigger {concept.trigger!r}, class {concept.class_word!r}")
    if warning := warn_of_word(concept.trigger):
        yield Finding("trigger", warning)
    for folder in (root / parent / concept.trigger for parent in FOLDERS):
        if not folder.is_dir():
            folder.mkdir(parents=True)
            yield Finding("folder", f"{folder.relative_to(root)} is created")
    yield _check_rights(root / ledgers.PLACE / concept.trigger, root)
    yield from _check_sources(concept, parse_config(IngestConfig, params["ingest"], "ingest"), root)
    missing = find_missing_models(params, root)
    yield from (Finding("models", str(err), problem=True) for err in missing)
    if not missing:
        yield Finding("models", f"{params['base']['path']} and its judges are on this machine")


def _check_rights(folder: Path, root: Path) -> Finding:
    place = folder.relative_to(root)
    try:
        records = ledgers.read(folder)
    except InvalidLedgerError as err:
        return Finding("rights", str(err), problem=True)
    if not records:
        return Finding("rights", f"{place} holds no record: without one nothing is trained", problem=True)
    return Finding("rights", f"{place}: {', '.join(record.id for record in records)}")


def _check_sources(concept: Concept, limits: IngestConfig, root: Path) -> Iterator[Finding]:
    places = [concept.source] if isinstance(concept.source, str) else sorted(concept.source.values())
    for place in places:
        if place == "renderer":
            known = bool(concept.identity)
            yield Finding("source", "renderer" if known else "renderer needs `identity` values", not known)
        elif "://" in place:
            yield Finding("source", f"{place} is not asked before the stage ingest")
        else:
            yield _check_local(place, limits, root)


def _check_local(place: str, limits: IngestConfig, root: Path) -> Finding:
    try:
        entries = source(place, root, limits.hosts).entries()
    except (InvalidSourceError, OSError) as err:
        return Finding("source", str(err), problem=True)
    return Finding("source", f"{place}: {len(entries)} files")
