"""S3 prefix as a source.

Endpoint, region and credentials come from the environment, as for all AWS tools
(AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...).
"""

from typing import Any

from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, is_candidate

ATTEMPTS = 6
"""Per request, with growing pauses: throttling, server errors, lost connections."""


class S3Prefix:
    """Objects under an s3:// prefix."""

    remote = True

    def __init__(self, address: str) -> None:
        import s3fs

        self._prefix = address.removeprefix("s3://").strip("/")
        if not self._prefix:
            raise InvalidSourceError(f"source {address!r} has no bucket: it must be s3://bucket/prefix")
        retries = {"max_attempts": ATTEMPTS, "mode": "standard"}
        # no caches: list the current objects
        self._files = s3fs.S3FileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={"connect_timeout": 10, "read_timeout": 60, "retries": retries},
        )

    @property
    def where(self) -> str:
        """The prefix's address."""
        return f"s3://{self._prefix}"

    def entries(self) -> list[Entry]:
        """Return the objects below the prefix, with their ETags as versions."""
        from botocore.exceptions import BotoCoreError

        try:
            found = self._files.find(self._prefix, detail=True)
        except FileNotFoundError as err:
            raise InvalidSourceError(f"{self.where}: bucket or prefix not found") from err
        except (OSError, BotoCoreError) as err:
            raise InvalidSourceError(
                f"{self.where} cannot be listed ({err}): check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION "
                "and the credentials in the environment"
            ) from err
        named = ((key.removeprefix(f"{self._prefix}/"), info) for key, info in found.items())
        entries = [Entry(name, _etag(info), int(info["size"])) for name, info in named if is_candidate(name)]
        if not entries:
            raise InvalidSourceError(
                f"{self.where} has no objects: upload portraits of the character, or correct `source`"
            )
        return sorted(entries, key=lambda entry: entry.name)

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return the content of the listed object, at most `limit` + 1 bytes."""
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError
        from fsspec.asyn import sync
        from stamina import retry_context

        if entry.size == 0:  # S3 rejects an empty range
            return b""
        # botocore retries failures before the first byte; retry later ones here
        retryable = (ClientError, BotoCoreError, ConnectionError, TimeoutError)
        try:
            for attempt in retry_context(on=retryable, attempts=ATTEMPTS, wait_initial=0.2, wait_max=5.0):
                with attempt:
                    content: bytes = sync(self._files.loop, self._get, entry, limit)
        except (ClientError, BotoCoreError) as err:
            raise OSError(f"{type(err).__name__}: {err}") from err
        if entry.size is not None and len(content) != min(entry.size, limit + 1):
            raise OSError(
                f"received {len(content):,} bytes instead of {entry.size:,}: the object was truncated"
            )
        return content

    async def _get(self, entry: Entry, limit: int) -> bytes:
        bucket, key, _ = self._files.split_path(f"{self._prefix}/{entry.name}")
        answer = await self._files._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes=0-{limit}")
        async with answer["Body"] as body:
            if entry.version and _etag(answer) != entry.version:
                raise OSError(f"{entry.name} changed since it was listed: run the stage again")
            content: bytes = await body.read()
        return content


def _etag(about: dict[str, Any]) -> str:
    return str(about.get("ETag", "")).strip('"')
