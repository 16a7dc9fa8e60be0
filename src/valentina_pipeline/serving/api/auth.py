"""API keys: who may ask, how often and for how much. A file has their hashes; nobody has the keys."""

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valentina_pipeline.domain.artifacts import sha256

PREFIX = "vp_"
LONGEST_NAME = 100
DAY = 24 * 3600.0
LOCAL = "local"
"""Who asks where no key is configured."""


class InvalidKeysError(ValueError):
    """The file of keys cannot be read; the message says what is wrong."""


class RateLimitError(Exception):
    """A key's rate or quota is used up.

    Attributes:
        wait: seconds until asking makes sense again.
    """

    def __init__(self, why: str, wait: float) -> None:
        super().__init__(why)
        self.wait = wait


class Key(BaseModel):
    """What the file says of a key. The file is a mapping: name -> these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    requests_per_minute: int = Field(default=60, ge=1)
    images_per_day: int = Field(default=1000, ge=1)


def read_keys(file: Path) -> dict[str, Key]:
    """Return the keys of a YAML file by name.

    Raises:
        InvalidKeysError: it is missing or wrong.
    """
    import yaml

    try:
        entries = yaml.safe_load(file.read_text("utf-8")) or {}
        if not isinstance(entries, Mapping):
            raise InvalidKeysError(f"{file} has to map names to keys' hashes")
        keys = {str(name): Key.model_validate(fields) for name, fields in entries.items()}
    except (OSError, yaml.YAMLError, ValidationError) as err:
        raise InvalidKeysError(f"{file}: {err}") from err
    if too_long := [name for name in keys if len(name) > LONGEST_NAME]:
        raise InvalidKeysError(
            f"{file}: the name {too_long[0][:20]}... has more than {LONGEST_NAME} characters"
        )
    if LOCAL in keys or not keys:
        raise InvalidKeysError(
            f"{file}: names no key, or one {LOCAL!r}, which is who asks where there are none"
        )
    return keys


def create_key(name: str) -> tuple[str, str]:
    """Return a new key, and the lines about it for the file.

    A plain hash is enough: 256 random bits cannot be guessed, however fast the hash.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    return (
        key,
        f"{name}:\n  sha256: {sha256(key.encode())}\n  requests_per_minute: 60\n  images_per_day: 1000\n",
    )


class ApiKeyAuth:
    """Tells who asks, and stops who asks too much.

    Args:
        keys: by name; without any, everybody is `LOCAL` and unbounded.
        clock: seconds, from anywhere.
    """

    def __init__(self, keys: Mapping[str, Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._names = {key.sha256: name for name, key in keys.items()}
        self._keys = keys
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._keys

    def owner(self, given: str) -> str | None:
        """Return whose key this is, or None. Looking up a hash leaks nothing of the key by its timing."""
        return LOCAL if self.open else self._names.get(sha256(given.encode()))

    def request(self, owner: str) -> None:
        """Count a request.

        Raises:
            RateLimitError: the rate is used up.
        """
        if self.open:
            return
        rate, now = self._keys[owner].requests_per_minute, self._clock()
        left, then = self._left.get(owner, (float(rate), now))
        left = min(float(rate), left + (now - then) * rate / 60)
        if left < 1:
            raise RateLimitError(f"{rate} requests a minute are this key's rate", (1 - left) * 60 / rate)
        self._left[owner] = (left - 1, now)

    def images_per_day(self, owner: str) -> int | None:
        """Return the quota of an owner, which the queue counts; None for no bound."""
        return None if self.open else self._keys[owner].images_per_day
