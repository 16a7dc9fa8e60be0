"""A list of https:// addresses as a source: only hosts that are allowed are asked, also after a redirect."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from valentina_pipeline.integrations.sources.files import BadSource, Entry

if TYPE_CHECKING:
    from requests import Response, Session

LIST_BYTES = 20_000_000
REDIRECTS = 5
AT_ONCE = 16
ATTEMPTS = 5
SECONDS = 30.0
"""Until an answer begins, or goes on."""

SPACE = re.compile(r"\s")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class WebList:
    """The addresses in a text file on the web, one a line; relative ones count from the list's own.

    A line may be empty or begin with #. A file's name is its address without https://.
    """

    remote = True

    def __init__(self, address: str, hosts: tuple[str, ...]) -> None:
        self._address = address
        self._hosts = frozenset(host.lower() for host in hosts)
        try:
            self._checked(address)
        except OSError as err:
            raise BadSource(f"source {address!r}: {err}") from err

    @property
    def where(self) -> str:
        """The list's address."""
        return self._address

    def entries(self) -> list[Entry]:
        """Return the addresses of the list; their version is what the server says of them, if anything."""
        try:
            with _session() as session:
                text = self._content(session, self._address, LIST_BYTES)[0].decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as err:
            raise BadSource(f"{self._address} cannot be read as a list of addresses ({err})") from err
        if len(text) > LIST_BYTES:
            raise BadSource(f"{self._address} is larger than {LIST_BYTES:,} bytes: split it")
        lines = (line.strip() for line in text.splitlines())
        found = {urljoin(self._address, line) for line in lines if line and not line.startswith("#")}
        if not found:
            raise BadSource(f"{self._address} lists no addresses: one a line")
        with _session() as session, ThreadPoolExecutor(AT_ONCE) as threads:
            versions = threads.map(lambda address: self._version(session, address), sorted(found))
            return [
                Entry(address.removeprefix("https://"), version)
                for address, version in zip(sorted(found), versions, strict=True)
            ]

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return what is at an address, at most `limit` + 1 bytes of it."""
        address = entry.name if SCHEME.match(entry.name) else f"https://{entry.name}"
        with _session() as session:
            content, whole = self._content(session, address, limit)
        if whole is not None and len(content) != min(whole, limit + 1):
            raise OSError(f"{len(content):,} bytes came instead of {whole:,}: the answer was cut")
        return content

    def _version(self, session: "Session", address: str) -> str:
        from requests import RequestException

        try:
            answer = session.head(self._checked(address), timeout=SECONDS, allow_redirects=False)
        except (OSError, RequestException):  # reading it says what is wrong
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
        except RequestException as err:
            raise OSError(f"{type(err).__name__}: {err}") from err
        raise OSError(f"more than {REDIRECTS} redirects")

    def _checked(self, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme != "https" or SPACE.search(address):
            raise OSError(f"{address} is no https:// address")
        if (parts.hostname or "").lower() not in self._hosts:
            raise OSError(f"{parts.hostname} is not among ingest.hosts: add it there if you trust it")
        return address


def _session() -> "Session":
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = Session()
    again = Retry(ATTEMPTS, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504))
    session.mount("https://", HTTPAdapter(max_retries=again))
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
