"""MLflow's model registry: the versions of a character's package, and which of them is champion."""

import logging
import re
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valentina_pipeline.domain.content import REVOKED
from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.files import write
from valentina_pipeline.integrations.ledgers import mark

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

CHAMPION, FORMER = "champion", "former"

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<number>\d+))")


class NoSuchVersion(ValueError):
    """A registered version that is asked for is not there."""


@dataclass(frozen=True)
class Version:
    """A version in the registry.

    Attributes:
        number: MLflow's.
        tags: as registered.
    """

    number: str
    tags: Mapping[str, str]


def download(root: Path, uri: str, target: Path) -> Path:
    """Copy a registered package into `target`, a folder, and return where it is.

    Args:
        root: the project.
        uri: MLflow's, models:/NAME@ALIAS or models:/NAME/VERSION.
        target: an empty folder.

    Raises:
        NoSuchVersion: the registry does not have it, or the URI is none.
    """
    from mlflow.exceptions import MlflowException

    named = MODEL_URI.fullmatch(uri)
    if named is None:
        raise NoSuchVersion(f"{uri!r} is no models:/NAME@ALIAS and no models:/NAME/VERSION")
    client = mlflow.client(root)
    try:
        if named["alias"]:
            version = client.get_model_version_by_alias(named["name"], named["alias"])
        else:
            version = client.get_model_version(named["name"], named["number"])
        if version.run_id is None:
            raise NoSuchVersion(f"{uri} has no run that keeps its files")
        return Path(client.download_artifacts(version.run_id, "package", str(target)))
    except MlflowException as err:
        raise NoSuchVersion(f"the registry has no {uri}: {err.message}") from err


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
        """Return the version that the alias `champion` names."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(self._name, CHAMPION)
        except MlflowException as err:
            if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Version(str(found.version), found.tags)

    def find(self, **tags: str) -> Version | None:
        """Return the latest version that carries all these tags."""
        where = " and ".join(
            [f"name = '{self._name}'", *(f"tags.{name} = '{value}'" for name, value in tags.items())]
        )
        found = sorted(self._client.search_model_versions(where), key=lambda each: int(each.version))
        return Version(str(found[-1].version), found[-1].tags) if found else None

    def register(self, files: Mapping[str, bytes | Path], tags: Mapping[str, str]) -> Version:
        """Register a package, once for each `package_sha256` among the tags.

        Its files become artifacts of the stage's run, or of a run of their own outside a tracked stage.
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
            made = self._client.create_model_version(self._name, source, run_id, tags=dict(tags))
        return Version(str(made.version), tags)

    def crown(self, version: Version) -> None:
        """Let the alias `champion` name this version, and `former` the one that was champion until now."""
        before = self.champion()
        if before is not None and before.number != version.number:
            self._client.set_registered_model_alias(self._name, FORMER, before.number)
        self._client.set_registered_model_alias(self._name, CHAMPION, version.number)

    def revoke(self, number: str, why: str) -> bool:
        """Mark a version and its package; return whether it was champion, and no longer is."""
        from mlflow.exceptions import MlflowException

        self._client.set_model_version_tag(self._name, number, "revoked", why)
        version = self._client.get_model_version(self._name, number)
        with tempfile.TemporaryDirectory() as folder:
            mark(Path(folder), why)
            try:
                self._client.log_artifact(version.run_id, f"{folder}/{REVOKED}", "package")
            except MlflowException as err:  # a store that lets nobody add to it: the tag and the alias count
                logger.warning("the package of version %s could not be marked: %s", number, err)
        champion = self.champion()
        if champion is None or champion.number != number:
            return False
        self._client.delete_registered_model_alias(self._name, CHAMPION)
        return True

    @contextmanager
    def _run(self) -> "Iterator[str]":
        """Give the id of the run that takes the artifacts."""
        if (tracked := mlflow.stage_run()) is not None:
            yield tracked
            return
        place = mlflow.experiment(self._client, self._root, self._name)
        run = self._client.create_run(place, run_name="register", tags={"stage": "register"})
        try:
            yield run.info.run_id
        except BaseException:
            self._client.set_terminated(run.info.run_id, mlflow.FAILED)
            raise
        self._client.set_terminated(run.info.run_id, mlflow.FINISHED)
