"""Nodes of the stage `publish`."""

from pathlib import Path


def publish_package(built_package: Path) -> dict[str, Path]:
    """Check the checksums of the package that register built, and return its files.

    Args:
        built_package: register's package.

    Returns:
        package: relative path -> file to copy.

    Raises:
        DamagedPackageError: the files differ from SHA256SUMS.
    """
    from valentina_pipeline.release.checksums import checked_files

    return checked_files(built_package)
