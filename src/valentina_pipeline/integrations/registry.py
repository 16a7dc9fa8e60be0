"""MLflow model registry: versions of a character's package, their aliases and revocations."""

import json
import logging
import re
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from valentina_pipeline.common.atomic_files import replace, write
from valentina_pipeline.domain.artifacts import REVOKED_FILE
from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.ledgers import mark

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS = "champion", "previous"

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<number>\d+))")


CAME_AS = "registered_model_meta"
"""MLflow's file in a package that was downloaded from its registry: the model's name and version."""

REVOKED_TAG = "revoked"
"""Tag of a revoked version; its value is the reason."""

RIGHTS = "package/rights.json"


class VersionNotFoundError(ValueError):
    """The requested registered version does not exist."""


class RegistryUnavailableError(RuntimeError):
    """The registry is unavailable."""


@dataclass(frozen=True)
class Version:
    """A version in the registry.

    Attributes:
        number: in MLflow.
        tags: as registered.
        name: of the registered model.
        aliases: of this version.
    """

    number: str
    tags: Mapping[str, str]
    name: str = ""
    aliases: tuple[str, ...] = ()


def download(root: Path, uri: str, target: Path) -> Path:
    """Download a registered package into the folder `target` and return its path.

    Args:
        root: the project.
        uri: of MLflow, models:/NAME@ALIAS or models:/NAME/VERSION.
        target: an empty folder.

    Raises:
        VersionNotFoundError: the registry does not have it, or the URI is invalid.
    """
    from mlflow.exceptions import MlflowException

    named = MODEL_URI.fullmatch(uri)
    if named is None:
        raise VersionNotFoundError(
            f"{uri!r} is invalid: it must be models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    client = mlflow.client(root)
    try:
        if named["alias"]:
            version = client.get_model_version_by_alias(named["name"], named["alias"])
        else:
            version = client.get_model_version(named["name"], named["number"])
        if version.run_id is None:
            raise VersionNotFoundError(f"{uri} has no run with its files")
        folder = Path(client.download_artifacts(version.run_id, "package", str(target)))
        about = {"model_name": version.name, "model_version": str(version.version)}
        replace(folder / CAME_AS, yaml.safe_dump(about).encode())
        return folder
    except MlflowException as err:
        raise VersionNotFoundError(f"{uri} not found in the registry: {err.message}") from err


def revocation(folder: Path, root: Path | None) -> str:
    """Return the reason why the version of a downloaded package was revoked, "" where it was not.

    Args:
        folder: a package. Packages that were not downloaded from a registry have no version.
        root: the project; None is the registry that MLflow is configured for.

    Raises:
        RegistryUnavailableError: it does not respond.
    """
    if not (folder / CAME_AS).is_file():
        return ""
    try:
        about = yaml.safe_load((folder / CAME_AS).read_text("utf-8"))
        name, number = str(about["model_name"]), str(about["model_version"])
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as err:
        raise RegistryUnavailableError(
            f"{CAME_AS} in the package is damaged: download the package again"
        ) from err
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as err:
        raise RegistryUnavailableError(
            f"version {number} of {name} came from a registry, and checking it needs mlflow: install mlflow "
            "and set MLFLOW_TRACKING_URI, or serve a package that was published to a folder"
        ) from err
    try:
        mlflow.configure_mlflow()
        client = mlflow.client(root) if root else MlflowClient()
        tags = client.get_model_version(name, number).tags
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return f"version {number} of {name} was deleted from the registry"
        raise RegistryUnavailableError(
            f"the registry does not respond for version {number} of {name}: {err}"
        ) from err
    return (tags[REVOKED_TAG] or "without a reason") if REVOKED_TAG in tags else ""


def list_packages(root: Path) -> "Iterator[tuple[Version, dict[str, Any] | None]]":
    """Yield every registered package version and its rights.json; None where that is unreadable.

    Raises:
        mlflow.exceptions.MlflowException: the registry does not respond.
    """
    from mlflow.exceptions import MlflowException

    client = mlflow.client(root)
    for model in _all(client.search_registered_models):
        for found in _all(client.search_model_versions, filter_string=f"name = '{model.name}'"):
            about = client.get_model_version(model.name, found.version)  # search results lack aliases
            version = Version(str(about.version), about.tags, about.name, tuple(about.aliases))
            try:
                paths = [artifact.path for artifact in client.list_artifacts(found.run_id, "package")]
                if RIGHTS not in paths:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    text = Path(client.download_artifacts(found.run_id, RIGHTS, folder)).read_text("utf-8")
                    yield version, json.loads(text)
            except (MlflowException, OSError, ValueError) as err:
                logger.warning("%s version %s cannot be read: %s", version.name, version.number, err)
                yield version, None


def _all(search: Any, **arguments: str) -> "Iterator[Any]":
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


class Registry:
    """The versions of one character's package.

    Args:
        root: the project.
        name: of the registered model.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._client = mlflow.client(root)

    def champion(self) -> Version | None:
        """Return the version with the alias `champion`, or None."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(self._name, CHAMPION)
        except MlflowException as err:
            if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Version(str(found.version), found.tags)

    def find(self, **tags: str) -> Version | None:
        """Return the latest version with all these tags, or None."""
        filter_string = " and ".join(
            [f"name = '{self._name}'", *(f"tags.{name} = '{value}'" for name, value in tags.items())]
        )
        found = sorted(
            self._client.search_model_versions(filter_string), key=lambda version: int(version.version)
        )
        return Version(str(found[-1].version), found[-1].tags) if found else None

    def register(self, files: Mapping[str, bytes | Path], tags: Mapping[str, str]) -> Version:
        """Register a package once per `package_sha256` tag; where a version exists, update its tags.

        The files become artifacts of the stage's run, or of a new run outside a tracked stage.
        """
        known = self.find(package_sha256=tags["package_sha256"])
        if known is not None:
            for name, value in tags.items():
                self._client.set_model_version_tag(self._name, known.number, name, value)
            return Version(known.number, tags)
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with self._run() as run_id, tempfile.TemporaryDirectory() as folder:
            write(files, Path(folder))
            self._client.log_artifacts(run_id, folder, "package")
            source = f"{self._client.get_run(run_id).info.artifact_uri}/package"
            created = self._client.create_model_version(self._name, source, run_id, tags=dict(tags))
        return Version(str(created.version), tags)

    def promote(self, version: Version) -> None:
        """Promote this version to `champion` and move the old champion to `previous`; never a revoked one."""
        if reason := self._client.get_model_version(self._name, version.number).tags.get(REVOKED_TAG):
            logger.warning(
                "version %s of %s is not promoted because it was revoked: %s",
                version.number,
                self._name,
                reason,
            )
            return
        before = self.champion()
        if before is not None and before.number != version.number:
            self._client.set_registered_model_alias(self._name, PREVIOUS, before.number)
        self._client.set_registered_model_alias(self._name, CHAMPION, version.number)

    def revoke(self, number: str, why: str) -> tuple[str, ...]:
        """Mark a version and its package as revoked; return its aliases, which are removed.

        An earlier reason is kept. Repeated calls are harmless.
        """
        from mlflow.exceptions import MlflowException

        version = self._client.get_model_version(self._name, number)
        if not version.tags.get(REVOKED_TAG):  # the tag decides, so it is set first
            self._client.set_model_version_tag(self._name, number, REVOKED_TAG, why)
        for alias in version.aliases:
            self._client.delete_registered_model_alias(self._name, alias)
        with tempfile.TemporaryDirectory() as folder:
            mark(Path(folder), version.tags.get(REVOKED_TAG) or why)
            try:
                self._client.log_artifact(version.run_id, f"{folder}/{REVOKED_FILE}", "package")
            except (MlflowException, OSError) as err:  # such as a read-only store
                logger.warning("the package of version %s could not be marked: %s", number, err)
        return tuple(version.aliases)

    @contextmanager
    def _run(self) -> "Iterator[str]":
        """Return the id of the run for the artifacts; a new run ends with the block."""
        if (tracked := mlflow.stage_run()) is not None:
            yield tracked
            return
        experiment_id = mlflow.experiment(self._client, self._root, self._name)
        run = self._client.create_run(experiment_id, run_name="register", tags={"stage": "register"})
        try:
            yield run.info.run_id
        except BaseException:
            self._client.set_terminated(run.info.run_id, mlflow.FAILED)
            raise
        self._client.set_terminated(run.info.run_id, mlflow.FINISHED)
