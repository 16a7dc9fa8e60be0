"""Delivery of a package: to a folder, an S3 prefix, or a LoRA repository of the Hugging Face hub."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valentina_pipeline.common.atomic_files import replacing_folder, write
from valentina_pipeline.release.checksums import SUMS_FILE, listed_names

Files = Mapping[str, bytes | Path]

RETRIES = {"max_attempts": 6, "mode": "standard"}
"""Of each request to S3, with growing pauses."""


class DeliveryError(RuntimeError):
    """A delivery failed; the message says what to do."""


def to_folder(files: Files, folder: Path) -> None:
    """Write the files into a new folder.

    Raises:
        DeliveryError: the folder exists.
    """
    if folder.exists():
        raise DeliveryError(f"{folder} exists already: choose another folder, or remove it")
    with replacing_folder(folder) as partial:
        write(files, partial)


def to_s3(files: Files, address: str) -> None:
    """Write the files below an s3:// prefix, in place of the package there; other objects stay.

    SHA256SUMS is written last and removed first, so that a partial delivery is not a package. Endpoint,
    region and credentials come from the environment: see integrations/sources/s3.py.

    Raises:
        DeliveryError: the bucket cannot be written to.
    """
    import s3fs
    from botocore.exceptions import BotoCoreError

    prefix = address.removeprefix("s3://").strip("/")
    if not prefix:
        raise DeliveryError(f"{address!r} has no bucket: it must be s3://bucket/prefix")
    bucket = s3fs.S3FileSystem(
        use_listings_cache=False, skip_instance_cache=True, config_kwargs={"retries": RETRIES}
    )
    sums = f"{prefix}/{SUMS_FILE}"
    try:
        former = _listed(bucket, sums)
        if bucket.exists(sums):
            bucket.rm_file(sums)
        for name in sorted(files, key=lambda name: (name == SUMS_FILE, name)):
            content = files[name]
            bucket.pipe_file(
                f"{prefix}/{name}", content if isinstance(content, bytes) else content.read_bytes()
            )
        for name in sorted(former - set(files)):
            bucket.rm_file(f"{prefix}/{name}")
    except (OSError, BotoCoreError) as err:
        raise DeliveryError(
            f"{address} cannot be written ({err}): check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the "
            "credentials in the environment"
        ) from err


def to_hub(files: Files, repository: str) -> None:
    """Upload the files to a model repository of the hub as one commit; a new repository is private.

    The token comes from HF_TOKEN or `hf auth login`.

    Raises:
        DeliveryError: the hub refuses the token or the repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    hub = HfApi()
    try:
        with tempfile.TemporaryDirectory() as folder:
            write(files, Path(folder))
            hub.create_repo(repository, private=True, exist_ok=True, token=True)
            hub.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Deliver the LoRA", token=True
            )
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as err:
        raise DeliveryError(
            f"hf://{repository} cannot be written ({err}): set HF_TOKEN to a token with write access"
        ) from err


def _listed(bucket: Any, sums: str) -> set[str]:
    """Return the files that the SHA256SUMS of a former delivery lists."""
    try:
        return listed_names(bucket.cat_file(sums).decode())
    except FileNotFoundError:
        return set()
