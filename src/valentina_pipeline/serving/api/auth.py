"""API keys: their owners, rates and daily quotas. The key file holds only hashes of the keys."""

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valentina_pipeline.domain.artifacts import sha256

PREFIX = "vp_"
MAX_NAME_CHARS = 100
DAY = 24 * 3600.0
LOCAL = "local"
"""Owner of all requests where no key is configured."""


class InvalidKeysError(ValueError):
    """The key file is invalid; the message says why."""


class RateLimitError(Exception):
    """A key's rate or quota is exceeded.

    Attributes:
        wait: seconds until a retry can succeed.
    """

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Key(BaseModel):
    """Entry of the key file, a mapping of names to such entries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    requests_per_minute: int = Field(default=60, ge=1)
    images_per_day: int = Field(default=1000, ge=1)


def read_keys(file: Path) -> dict[str, Key]:
    """Return the keys of a YAML file by name.

    Raises:
        InvalidKeysError: the file is missing or invalid.
    """
    import yaml

    try:
        entries = yaml.safe_load(file.read_text("utf-8")) or {}
        if not isinstance(entries, Mapping):
            raise InvalidKeysError(f"{file} must map names to keys' hashes")
        keys = {str(name): Key.model_validate(fields) for name, fields in entries.items()}
    except (OSError, yaml.YAMLError, ValidationError) as err:
        raise InvalidKeysError(f"{file}: {err}") from err
    if too_long := [name for name in keys if len(name) > MAX_NAME_CHARS]:
        raise InvalidKeysError(
            f"{file}: the name {too_long[0][:20]}... has more than {MAX_NAME_CHARS} characters"
        )
    if LOCAL in keys or not keys:
        raise InvalidKeysError(
            f"{file} must name at least one key, and none {LOCAL!r}: it is reserved for servers without keys"
        )
    return keys


def create_key(name: str) -> tuple[str, str]:
    """Return a new key and its lines for the key file.

    A plain hash is enough: 256 random bits cannot be guessed, however fast the hash.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    return (
        key,
        f"{name}:\n  sha256: {sha256(key.encode())}\n  requests_per_minute: 60\n  images_per_day: 1000\n",
    )


class ApiKeyAuth:
    """Maps keys to their owners and enforces their rates.

    Args:
        keys: by name; without any, every caller is `LOCAL` and unlimited.
        clock: monotonic seconds.
    """

    def __init__(self, keys: Mapping[str, Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._names = {key.sha256: name for name, key in keys.items()}
        self._keys = keys
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    @property
    def open(self) -> bool:
        """True where no key is needed."""
        return not self._keys

    def owner(self, given: str) -> str | None:
        """Return the owner of a key, or None. The lookup by hash leaks nothing of the key by its timing."""
        return LOCAL if self.open else self._names.get(sha256(given.encode()))

    def request(self, owner: str) -> None:
        """Count a request.

        Raises:
            RateLimitError: the rate is exceeded.
        """
        if self.open:
            return
        rate, now = self._keys[owner].requests_per_minute, self._clock()
        left, then = self._left.get(owner, (float(rate), now))
        left = min(float(rate), left + (now - then) * rate / 60)
        if left < 1:
            raise RateLimitError(
                f"this key's rate of {rate} requests per minute is exceeded", (1 - left) * 60 / rate
            )
        self._left[owner] = (left - 1, now)

    def images_per_day(self, owner: str) -> int | None:
        """Return the daily quota of an owner, which the queue enforces; None is unlimited."""
        return None if self.open else self._keys[owner].images_per_day
