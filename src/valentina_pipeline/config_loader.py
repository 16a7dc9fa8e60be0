"""Kedro's configuration loader: the catalog as usual, the parameters resolved from params.yaml."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from click import ClickException
from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from valentina_pipeline.config.effective import resolve_params
from valentina_pipeline.config.validation import InvalidParameterError

PARAMS, BASES, CONCEPTS = "params.yaml", "conf/base/bases.yml", "conf/base/concepts"


class ParameterUsageError(ClickException, InvalidParameterError):
    """An InvalidParameterError that the command line shows as one line instead of a traceback."""


class ProjectConfigLoader(OmegaConfigLoader):
    """An OmegaConfigLoader whose `parameters` are resolved by `valentina_pipeline.config.effective`.

    They come from params.yaml at the project's root, overridden by `--params`; from the entry of the
    concept's base model in conf/base/bases.yml; and from one file of conf/base/concepts/. Environments are
    not used: a parameter file in an environment's folder would silently override `dvc exp run -S`.

    The concept is the runtime parameter `concept`, or the first of params.yaml's `concepts`. The catalog's
    `${runtime_params:concept}` has its value in both cases.
    """

    def __init__(
        self,
        conf_source: str | Path,
        env: str | None = None,
        runtime_params: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._root = Path(conf_source).parent
        runtime = dict(runtime_params or {})
        if "concept" not in runtime:
            runtime["concept"] = read_concepts(Path(conf_source).parent)[0]
        super().__init__(conf_source, env, runtime, **options)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return a configuration by name; `parameters` are validated before any stage runs.

        Raises:
            ParameterUsageError: a parameter is unknown, missing or out of range, or a file cannot be read.
        """
        if key != "parameters" or key in self:
            return super().__getitem__(key)
        chosen = {name: value for name, value in self.runtime_params.items() if name != "concept"}
        return _resolve(self._root, self.runtime_params["concept"], chosen)


def base_settings(root: Path) -> dict[str, dict[str, Any]]:
    """Return, for each concept of params.yaml, the entry of bases.yml that it uses.

    Raises:
        ParameterUsageError: a file cannot be read, or holds a wrong parameter.
    """
    bases = read_mapping(root / BASES)
    return {name: bases[_resolve(root, name, {})["base_name"]] for name in read_concepts(root)}


def _resolve(root: Path, name: str, above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a concept's effective parameters; `above` overrides params.yaml."""
    params, bases, concept = load_layers(root, name)
    try:
        return resolve_params(_merge(params, above), bases, concept)
    except InvalidParameterError as err:
        raise ParameterUsageError(f"{err} (params.yaml, bases.yml, {name}.yml or --params)") from err


def load_layers(root: Path, name: str | None = None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return params.yaml, conf/base/bases.yml and a concept's file: the arguments of `resolve_params`.

    Args:
        root: the project's folder.
        name: the concept's name; None takes the first one of params.yaml.

    Raises:
        ParameterUsageError: a file cannot be read, or the concept's file is not named after its trigger.
    """
    file = _concept_file(root / CONCEPTS, name or read_concepts(root)[0])
    concept = read_mapping(file)
    if concept.get("trigger") != file.stem:
        raise ParameterUsageError(
            f"concept.trigger: {concept.get('trigger')!r} must be the file's name, {file.stem!r}: all "
            "outputs of a concept are stored under it"
        )
    return read_mapping(root / PARAMS), read_mapping(root / BASES), concept


def read_concepts(root: Path) -> list[str]:
    """Return the `concepts` of the project's params.yaml, at least one.

    Raises:
        ParameterUsageError: params.yaml lists no concept.
    """
    match read_mapping(root / PARAMS).get("concepts"):
        case [str(), *_] as concepts:
            return [str(concept) for concept in concepts]
    raise ParameterUsageError(
        "concepts: params.yaml needs at least one, as in `concepts: [valentina_moreau]`"
    )


def _concept_file(folder: Path, name: object) -> Path:
    names = sorted(path.stem for path in folder.glob("*.yml"))
    if name not in names:
        raise ParameterUsageError(
            f"concept: {name!r} has no file in {folder}; choose one of {', '.join(names)}, or create it with "
            "`kedro new-concept`"
        )
    return folder / f"{name}.yml"


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(inner, value)
        else:
            merged[key] = value
    return merged


def read_mapping(path: Path) -> dict[str, Any]:
    """Return a YAML file's mapping without interpretation: `${...}` and dates stay text."""
    try:
        return parse_mapping(path.read_text("utf-8"), path)
    except FileNotFoundError as err:
        raise ParameterUsageError(f"{path} is missing: `git checkout -- {path}` restores it") from err
    except UnicodeDecodeError as err:
        raise ParameterUsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err


def parse_mapping(text: str, where: object) -> dict[str, Any]:
    """Return the mapping of a YAML text, read as `read_mapping` does; `where` names it in messages."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(StringIO(text)), resolve=False)
    except (YAMLError, OmegaConfBaseException) as err:
        raise ParameterUsageError(f"{where} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(loaded, dict):
        raise ParameterUsageError(f"{where} must be a mapping of names to values")
    return {str(key): value for key, value in loaded.items()}
