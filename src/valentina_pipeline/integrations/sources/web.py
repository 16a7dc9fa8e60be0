"""A list of https:// addresses as a source: only hosts that are allowed are asked, also after a redirect."""

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

LIST_BYTES = 20_000_000
REDIRECTS = 5
AT_ONCE = 16
ATTEMPTS = 5
SECONDS = 30.0
"""Until an answer begins, or goes on."""

LONGEST = 300.0
"""Seconds for a file in all: redirects and further attempts included, however little comes at a time."""

LONGEST_WAIT = 5.0
"""Seconds before the next attempt, whatever a server says in Retry-After."""

MOST = 1_000_000
"""Addresses of a list."""

ODD = re.compile(r"[\s\\\x00-\x1f\x7f]")
"""What no address has: one reader takes a backslash for the end of the host's name, another does not."""

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class WebList:
    """The addresses in a text file on the web, one a line; relative ones count from the list's own.

    A line may be empty or begin with #. A file's name is its address without https://.
    """

    remote = True

    def __init__(self, address: str, hosts: tuple[str, ...]) -> None:
        try:
            self._hosts = frozenset(str(urlsplit(_plain(f"https://{host}/")).hostname) for host in hosts)
            self._address = self._checked(address)
        except OSError as err:
            raise InvalidSourceError(f"source {address!r}: {err}") from err

    @property
    def where(self) -> str:
        """The list's address."""
        return self._address

    def entries(self) -> list[Entry]:
        """Return the addresses of the list; their version is what the server says of them, if anything."""
        try:
            with _session() as session, _bounded():
                text = self._content(session, self._address, LIST_BYTES)[0].decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as err:
            raise InvalidSourceError(
                f"{self._address} cannot be read as a list of addresses ({err})"
            ) from err
        if len(text) > LIST_BYTES:
            raise InvalidSourceError(f"{self._address} is larger than {LIST_BYTES:,} bytes: split it")
        lines = (line.strip() for line in text.splitlines())
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise InvalidSourceError(f"{self._address} lists no addresses: one a line")
        if len(listed) > MOST:
            raise InvalidSourceError(
                f"{self._address} lists {len(listed):,} addresses, more than {MOST:,}: split it"
            )
        found = {_named(urljoin(self._address, line)) for line in listed}
        with _session() as session, ThreadPoolExecutor(AT_ONCE) as threads:
            versions = threads.map(lambda address: self._version(session, address), sorted(found))
            return [
                Entry(address.removeprefix("https://"), version)
                for address, version in zip(sorted(found), versions, strict=True)
            ]

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return what is at an address, at most `limit` + 1 bytes of it."""
        address = entry.name if SCHEME.match(entry.name) else f"https://{entry.name}"
        with _session() as session, _bounded():
            content, whole = self._content(session, address, limit)
        if whole is not None and len(content) != min(whole, limit + 1):
            raise OSError(f"{len(content):,} bytes came instead of {whole:,}: the answer was cut")
        return content

    def _version(self, session: "Session", address: str) -> str:
        from requests import RequestException

        try:
            with _bounded():
                answer = session.head(self._checked(address), timeout=SECONDS, allow_redirects=False)
        except (OSError, RequestException, DownloadTimeoutError):  # reading it says what is wrong
            return ""
        said = [answer.headers.get(name, "") for name in ("etag", "last-modified", "content-length")]
        return " ".join(said) if answer.ok and (said[0] or said[1]) else ""

    def _content(self, session: "Session", address: str, limit: int) -> tuple[bytes, int | None]:
        """Return at most `limit` + 1 bytes, and how many there should be."""
        from requests import RequestException

        try:
            for _ in range(REDIRECTS + 1):
                with session.get(
                    self._checked(address), stream=True, timeout=SECONDS, allow_redirects=False
                ) as answer:
                    if answer.is_redirect:
                        address = urljoin(address, answer.headers["location"])
                        continue
                    return _body(answer, limit)
        except (RequestException, DownloadTimeoutError) as err:
            raise OSError(f"{type(err).__name__}: {err}") from err
        raise OSError(f"more than {REDIRECTS} redirects")

    def _checked(self, address: str) -> str:
        """Return the address as it is asked for, if its host is allowed.

        Raises:
            OSError: it is none, or its host is not among those that are allowed.
        """
        plain = _plain(address)
        host = urlsplit(plain).hostname
        if host not in self._hosts:
            raise OSError(f"{host} is not among ingest.hosts: add it there if you trust it")
        return plain


def _plain(address: str) -> str:
    """Return an address in the one form that every reader of addresses understands alike.

    Raises:
        OSError: it is no https:// address, or one that could be read in two ways.
    """
    from requests import PreparedRequest, RequestException

    if not address.lower().startswith("https://") or ODD.search(address):
        raise OSError(f"{address} is no https:// address")
    request = PreparedRequest()
    try:
        for _ in range(2):  # the second time for dots that were written as %2e
            request.prepare_url(address, None)
            address = str(request.url)
        parts = urlsplit(address)
        odd = "@" in parts.netloc or parts.port == 0
    except (RequestException, ValueError) as err:
        raise OSError(f"{address} is no https:// address: {err}") from err
    if odd:
        raise OSError(f"{address} is no https:// address of a host alone")
    return address.partition("#")[0]


def _named(address: str) -> str:
    """Return the address in its one form; one that has none stays, and reading it says what is wrong."""
    try:
        return _plain(address)
    except OSError:
        return address


_until: ContextVar[float] = ContextVar("_until", default=float("inf"))
"""When what is being read has to be there, by `time.monotonic`."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Let what is read inside the block take `LONGEST` seconds in all."""
    token = _until.set(time.monotonic() + LONGEST)
    try:
        yield
    finally:
        _until.reset(token)


class DownloadTimeoutError(Exception):
    """A file takes longer than `LONGEST`. No OSError: that would be tried again."""


class _BoundedSocket(ssl.SSLSocket):
    """Reads until the time is up: a timeout alone holds for each piece, and pieces can be single bytes."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read as `ssl.SSLSocket` does.

        Raises:
            DownloadTimeoutError: the whole takes too long.
            TimeoutError: nothing comes.
        """
        try:
            self.settimeout(max(0.01, min(SECONDS, _until.get() - time.monotonic())))
            read = super().recv_into(*args, **kwargs)
        except TimeoutError:
            if time.monotonic() < _until.get():
                raise
        if time.monotonic() >= _until.get():
            raise DownloadTimeoutError(f"it takes longer than {LONGEST:g} s")
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
    again = Retry(
        ATTEMPTS,
        backoff_factor=0.2,
        backoff_max=LONGEST_WAIT,
        status_forcelist=(429, 500, 502, 503, 504),
        retry_after_max=int(LONGEST_WAIT),
    )
    session.mount("https://", Bounded(max_retries=again))
    return session


def _body(answer: "Response", limit: int) -> tuple[bytes, int | None]:
    answer.raise_for_status()
    content = b""
    for part in answer.iter_content(2**18):
        content += part
        if len(content) > limit:
            break
    packed = answer.headers.get("content-encoding", "identity") != "identity"
    length = answer.headers.get("content-length", "")
    return content[: limit + 1], int(length) if length.isdigit() and not packed else None
