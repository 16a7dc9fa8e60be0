"""Open a package from a folder, the project or the registry."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valentina_pipeline.serving.inference.package import PackageInfo


PACKAGE = "data/06_models/{concept}/package"


def _download(root: Path, uri: str) -> Path:
    from valentina_pipeline.integrations.registry import download

    target = Path(tempfile.mkdtemp(prefix="package-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    return download(root, uri, target)


def open_package(root: Path, package: str | None, concept: str | None) -> "PackageInfo":
    """Return the description of a package, after checking its files and its rights.

    Args:
        root: the project.
        package: a folder, or models:/NAME@ALIAS, which is downloaded until this process ends; None takes the
            project's package.
        concept: the concept of the project's package; None takes the first one.

    Raises:
        InvalidPackageError: the folder is not a package, or the package may not generate.
        VersionNotFoundError: the registry does not have the version.
        ValueError: the project has no concept.
    """
    from valentina_pipeline.config.effective import first_concept
    from valentina_pipeline.serving.inference.package import read

    if package is None:
        folder = root / PACKAGE.format(concept=concept or first_concept(root))
    elif package.startswith("models:"):
        folder = _download(root, package)
    else:
        folder = Path(package)
    return read(folder, root)


def signing_folder(root: Path) -> Path:
    """Return the folder of the project's signing key, which git ignores."""
    return root / "conf/local/c2pa"
