"""List of https:// addresses as a source: only allowed hosts are contacted, also after a redirect."""

import re
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError

if TYPE_CHECKING:
    from requests import Response, Session

MAX_LIST_BYTES = 20_000_000
MAX_REDIRECTS = 5
NUM_THREADS = 16
ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
"""Time until a response begins or continues."""

MAX_FILE_SECONDS = 300.0
"""Total time for a file, with redirects and retries, however slowly it arrives."""

MAX_RETRY_SECONDS = 5.0
"""Maximum pause before a retry, whatever the server's Retry-After."""

MAX_ADDRESSES = 1_000_000
"""Maximum length of a list."""

FORBIDDEN_CHARS = re.compile(r"[\s\\\x00-\x1f\x7f]")
"""Rejected in addresses: URL parsers disagree on whether a backslash ends the host name."""

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class WebList:
    """Addresses in a text file on the web, one per line; relative ones are resolved against the list's.

    Empty lines and lines that begin with # are ignored. A file's name is its address without https://.
    """

    remote = True

    def __init__(self, address: str, hosts: tuple[str, ...]) -> None:
        try:
            self._hosts = frozenset(
                str(urlsplit(_canonical_address(f"https://{host}/")).hostname) for host in hosts
            )
            self._address = self._check(address)
        except OSError as err:
            raise InvalidSourceError(f"source {address!r}: {err}") from err

    @property
    def where(self) -> str:
        """The list's address."""
        return self._address

    def entries(self) -> list[Entry]:
        """Return the addresses of the list; their versions come from the server's headers, if any."""
        try:
            with _session() as session, _time_limit():
                text = self._content(session, self._address, MAX_LIST_BYTES)[0].decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as err:
            raise InvalidSourceError(
                f"{self._address} cannot be read as a list of addresses ({err})"
            ) from err
        if len(text) > MAX_LIST_BYTES:
            raise InvalidSourceError(f"{self._address} is larger than {MAX_LIST_BYTES:,} bytes: split it")
        lines = (line.strip() for line in text.splitlines())
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise InvalidSourceError(f"{self._address} lists no addresses: write one per line")
        if len(listed) > MAX_ADDRESSES:
            raise InvalidSourceError(
                f"{self._address} lists {len(listed):,} addresses, more than {MAX_ADDRESSES:,}: split it"
            )
        found = {_canonical_or_raw(urljoin(self._address, line)) for line in listed}
        with _session() as session, ThreadPoolExecutor(NUM_THREADS) as threads:
            versions = threads.map(lambda address: self._version(session, address), sorted(found))
            return [
                Entry(address.removeprefix("https://"), version)
                for address, version in zip(sorted(found), versions, strict=True)
            ]

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return the file at an address, at most `limit` + 1 bytes."""
        address = entry.name if SCHEME.match(entry.name) else f"https://{entry.name}"
        with _session() as session, _time_limit():
            content, length = self._content(session, address, limit)
        if length is not None and len(content) != min(length, limit + 1):
            raise OSError(
                f"received {len(content):,} bytes instead of {length:,}: the response was truncated"
            )
        return content

    def _version(self, session: "Session", address: str) -> str:
        from requests import RequestException

        try:
            with _time_limit():
                response = session.head(self._check(address), timeout=TIMEOUT_SECONDS, allow_redirects=False)
        except (OSError, RequestException, DownloadTimeoutError):  # `read` reports the error
            return ""
        headers = [response.headers.get(name, "") for name in ("etag", "last-modified", "content-length")]
        return " ".join(headers) if response.ok and (headers[0] or headers[1]) else ""

    def _content(self, session: "Session", address: str, limit: int) -> tuple[bytes, int | None]:
        """Return at most `limit` + 1 bytes, and the declared length of the file, None where unknown."""
        from requests import RequestException

        try:
            for _ in range(MAX_REDIRECTS + 1):
                with session.get(
                    self._check(address), stream=True, timeout=TIMEOUT_SECONDS, allow_redirects=False
                ) as response:
                    if response.is_redirect:
                        address = urljoin(address, response.headers["location"])
                        continue
                    return _read_body(response, limit)
        except (RequestException, DownloadTimeoutError) as err:
            raise OSError(f"{type(err).__name__}: {err}") from err
        raise OSError(f"more than {MAX_REDIRECTS} redirects")

    def _check(self, address: str) -> str:
        """Return the canonical address, if its host is allowed.

        Raises:
            OSError: the address is invalid, or its host is not allowed.
        """
        canonical = _canonical_address(address)
        host = urlsplit(canonical).hostname
        if host not in self._hosts:
            raise OSError(f"host {host} is not in ingest.allowed_hosts: add it there if you trust it")
        return canonical


def _canonical_address(address: str) -> str:
    """Return an address in the canonical form that all URL parsers read alike.

    Raises:
        OSError: it is not an https:// address, or is ambiguous.
    """
    from requests import PreparedRequest, RequestException

    if not address.lower().startswith("https://") or FORBIDDEN_CHARS.search(address):
        raise OSError(f"{address} is not a valid https:// address")
    request = PreparedRequest()
    try:
        for _ in range(2):  # the second pass resolves dots written as %2e
            request.prepare_url(address, None)
            address = str(request.url)
        parts = urlsplit(address)
        ambiguous = "@" in parts.netloc or parts.port == 0
    except (RequestException, ValueError) as err:
        raise OSError(f"{address} is not a valid https:// address: {err}") from err
    if ambiguous:
        raise OSError(f"{address} is not a valid https:// address: it must not contain a user name or port 0")
    return address.partition("#")[0]


def _canonical_or_raw(address: str) -> str:
    """Return the canonical address; an invalid one stays unchanged, and `read` reports it."""
    try:
        return _canonical_address(address)
    except OSError:
        return address


_deadline: ContextVar[float] = ContextVar("_deadline", default=float("inf"))
"""Deadline of the current read, in `time.monotonic`."""


@contextmanager
def _time_limit() -> Iterator[None]:
    """Limit reads inside the block to `MAX_FILE_SECONDS` in all."""
    token = _deadline.set(time.monotonic() + MAX_FILE_SECONDS)
    try:
        yield
    finally:
        _deadline.reset(token)


class DownloadTimeoutError(Exception):
    """A file takes longer than `MAX_FILE_SECONDS`. It is not an OSError, which would be retried."""


class _BoundedSocket(ssl.SSLSocket):
    """Enforces the deadline on reads: a timeout limits only each piece, which may be a single byte."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read as `ssl.SSLSocket` does.

        Raises:
            DownloadTimeoutError: the deadline has passed.
            TimeoutError: no data arrives.
        """
        try:
            self.settimeout(max(0.01, min(TIMEOUT_SECONDS, _deadline.get() - time.monotonic())))
            read = super().recv_into(*args, **kwargs)
        except TimeoutError:
            if time.monotonic() < _deadline.get():
                raise
        if time.monotonic() >= _deadline.get():
            raise DownloadTimeoutError(f"the download took longer than {MAX_FILE_SECONDS:g} s")
        return read


def _session() -> "Session":
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry
    from urllib3.util.ssl_ import create_urllib3_context

    class Bounded(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            context = create_urllib3_context()
            context.sslsocket_class = _BoundedSocket
            super().init_poolmanager(*args, **kwargs, ssl_context=context)

    session = Session()
    retries = Retry(
        ATTEMPTS,
        backoff_factor=0.2,
        backoff_max=MAX_RETRY_SECONDS,
        status_forcelist=(429, 500, 502, 503, 504),
        retry_after_max=int(MAX_RETRY_SECONDS),
    )
    session.mount("https://", Bounded(max_retries=retries))
    return session


def _read_body(response: "Response", limit: int) -> tuple[bytes, int | None]:
    response.raise_for_status()
    content = b""
    for part in response.iter_content(2**18):
        content += part
        if len(content) > limit:
            break
    compressed = response.headers.get("content-encoding", "identity") != "identity"
    length = response.headers.get("content-length", "")
    return content[: limit + 1], int(length) if length.isdigit() and not compressed else None
