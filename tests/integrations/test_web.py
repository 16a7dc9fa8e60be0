import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import trustme

from valentina_pipeline.domain.naming import permits
from valentina_pipeline.integrations.sources import source, web
from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, Source

HOST = "localhost"
FILES = {"/list.txt": b"", "/a.png": b"0123456789", "/deep/b.png": b"b"}


class Server(ThreadingHTTPServer):
    """Files over TLS, with the faults of real servers at addresses that name them."""

    asked: Counter[str]
    hosts: Counter[str]
    list: str


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked[f"{self.command} {self.path}"] += 1
        self.server.hosts[self.headers["host"]] += 1
        if self.path == "/list.txt":
            return self._send(self.server.list.encode())
        if self.path == "/busy.png" and self.server.asked["GET /busy.png"] < 3:
            return self._send(b"", 503)
        if self.path == "/cut.png":
            return self._send(b"cut", length=100)
        if self.path.startswith("/to/"):
            return self._send(b"", 302, location=unquote(self.path.removeprefix("/to/")))
        if self.path == "/later.png":
            return self._send(b"", 503, retry_after="3600")
        if self.path in ("/slow.png", "/slow-head.png"):
            return self._drip()
        content = FILES.get(self.path, b"late" if self.path == "/busy.png" else None)
        return self._send(b"", 404) if content is None else self._send(content)

    def _drip(self) -> None:
        """Send a byte every tenth of a second."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        slow = (head if self.path == "/slow-head.png" else b"") + b"x" * 1000
        self.wfile.write(b"" if self.path == "/slow-head.png" else head)
        with suppress(OSError):
            for byte in slow:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        self.close_connection = True

    def _send(
        self,
        content: bytes,
        status: int = 200,
        length: int | None = None,
        location: str = "",
        retry_after: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        if location:
            self.send_header("Location", location)
        elif status == 200:
            self.send_header("ETag", f'"{hash(content)}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        if length is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    serving = Server(("127.0.0.1", 0), Answers)
    serving.socket = context.wrap_socket(serving.socket, server_side=True)
    serving.asked, serving.hosts = Counter(), Counter()
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


def listed(server: Server, *lines: str) -> tuple[Source, list[Entry], str]:
    """The source of a list of these lines, its entries, and where it is."""
    server.list = "\n".join(["# her portraits", "", *lines])
    address = f"https://{HOST}:{server.server_port}"
    place = source(f"{address}/list.txt", Path(), (HOST,))
    return place, list(place.entries()), f"{HOST}:{server.server_port}"


def test_addresses_are_read_from_a_list_and_files_from_them(server: Server) -> None:
    place, entries, where = listed(server, "a.png", "/deep/b.png", "a.png")
    assert [entry.name for entry in entries] == [f"{where}/a.png", f"{where}/deep/b.png"]
    assert place.read(entries[0], 100) == b"0123456789"
    assert place.read(entries[0], 4) == b"01234"
    assert place.read(entries[1], 100) == b"b"


def test_a_version_is_the_servers_word_of_the_content(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (one,), _ = listed(server, "a.png")
    _, (same,), _ = listed(server, "a.png")
    monkeypatch.setitem(FILES, "/a.png", b"other")
    _, (other,), _ = listed(server, "a.png")
    assert one.version and one.version == same.version != other.version


def test_a_busy_server_is_asked_again(server: Server) -> None:
    place, (busy,), _ = listed(server, "busy.png")
    assert place.read(busy, 100) == b"late"
    assert server.asked["GET /busy.png"] >= 3


@pytest.mark.parametrize(
    "line", ["/ada/../deep/b.png", "/ada/%2e%2e/deep/b.png", "/ada/%2E./deep/%62.png#ada", "/../deep/b.png"]
)
def test_a_name_is_what_is_asked_for_and_what_rights_are_compared_with(server: Server, line: str) -> None:
    place, (entry,), where = listed(server, line)
    assert entry.name == f"{where}/deep/b.png"
    assert not permits(f"{where}/ada/*", entry.name)
    server.asked.clear()
    assert place.read(entry, 100) == b"b"
    assert list(server.asked) == ["GET /deep/b.png"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cut.png", "IncompleteRead|was truncated"),
        ("gone.png", "404"),
        ("/to/https://example.org/a.png", "host example.org is not in ingest.allowed_hosts"),
        ("/to/http://localhost/a.png", "is not a valid https:// address"),
        ("https://example.org/a.png", "host example.org is not in ingest.allowed_hosts"),
        ("file:///etc/passwd", "file:///etc/passwd is not a valid https:// address"),
    ],
)
def test_what_is_cut_gone_or_elsewhere_cannot_be_read(server: Server, line: str, said: str) -> None:
    place, (entry,), _ = listed(server, line)
    with pytest.raises(OSError, match=said):
        place.read(entry, 1000)
    assert entry.version == "" or line == "cut.png"


@pytest.mark.parametrize("way", ["", "/to/"])
@pytest.mark.parametrize(
    "address",
    [
        "https://{evil}\\@{allowed}/a.png",
        "https://{evil}/\\@{allowed}/a.png",
        "https:\\\\{evil}\\@{allowed}/a.png",
        "https://{evil}#@{allowed}/a.png",
        "https://{evil}?@{allowed}/a.png",
        "https://{allowed}@{evil}/a.png",
        "https://{evil}%5c@{allowed}/a.png",
        "https://{evil}\t@{allowed}/a.png",
        "//{evil}/a.png",
        "https://{allowed}.{evil}/a.png",
        "https://{evil}%2f@{allowed}/a.png",
    ],
)
def test_only_the_host_that_was_checked_is_asked(server: Server, way: str, address: str) -> None:
    evil, allowed = f"127.0.0.1:{server.server_port}", f"{HOST}:{server.server_port}"
    line = address.format(evil=evil, allowed=allowed)
    place, (entry,), _ = listed(server, way + quote(line, safe="") if way else line)
    with suppress(OSError):
        place.read(entry, 1000)
    assert {*server.hosts} == {allowed}


def test_a_name_is_the_address_that_is_asked(server: Server) -> None:
    _, entries, where = listed(server, "/deep/../a.png", "/deep/%2e%2e/a.png", "/%64eep/./b.png#part")
    assert [entry.name for entry in entries] == [f"{where}/a.png", f"{where}/deep/b.png"]


def test_a_server_does_not_say_how_long_it_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_RETRY_SECONDS", 0.1)
    place, (later,), _ = listed(server, "later.png")
    begun = time.monotonic()
    with pytest.raises(OSError, match="503"):
        place.read(later, 100)
    assert time.monotonic() - begun < 5
    assert server.asked["GET /later.png"] == 1 + web.ATTEMPTS


@pytest.mark.parametrize("name", ["slow.png", "slow-head.png"])
def test_what_comes_byte_by_byte_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place, (slow,), _ = listed(server, "a.png")
    monkeypatch.setattr(web, "MAX_FILE_SECONDS", 1.0)
    begun = time.monotonic()
    with pytest.raises(OSError, match="the download took longer than 1 s"):
        place.read(Entry(slow.name.replace("a.png", name)), 10_000)
    assert 0.5 < time.monotonic() - begun < 4


def test_a_redirect_to_an_allowed_host_is_followed_and_a_ring_is_left(server: Server) -> None:
    place, (moved, ring), _ = listed(server, "/to//a.png", "/to/ring")
    server.asked.clear()
    assert place.read(moved, 100) == b"0123456789"
    with pytest.raises(OSError, match="more than 5 redirects"):
        place.read(ring, 100)


def test_a_list_that_cannot_be_read_is_an_error_that_names_it(server: Server) -> None:
    with pytest.raises(InvalidSourceError, match="lists no addresses"):
        listed(server)
    address = f"https://{HOST}:{server.server_port}/gone.txt"
    with pytest.raises(InvalidSourceError, match=r"gone\.txt cannot be read as a list"):
        source(address, Path(), (HOST,)).entries()
    with pytest.raises(InvalidSourceError, match=r"is not in ingest\.allowed_hosts"):
        source(address, Path(), ())
