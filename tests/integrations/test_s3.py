"""S3 as it is on a bad day: the servers that other test modules use, with faults in between."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from programs import program
from valentina_pipeline.integrations.sources import source
from valentina_pipeline.integrations.sources.files import InvalidSourceError, Source

CONTENT = bytes(range(256)) * 2000


class Faulty(ThreadingHTTPServer):
    """Passes requests on, but for what `faults` says of the first ones of a key."""

    upstream: str
    faults: dict[str, list[str]]
    asked: Counter[str]


class Between(BaseHTTPRequestHandler):
    server: Faulty
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.server.asked[name] += 1
        fault = self.server.faults[name].pop(0) if self.server.faults.get(name) else ""
        if fault in ("500", "503"):
            said = {"500": "InternalError", "503": "SlowDown"}[fault]
            return self._send(int(fault), f"<Error><Code>{said}</Code></Error>".encode(), {})
        answer = requests.get(self.server.upstream + self.path, headers=dict(self.headers), timeout=10)
        content = answer.content
        kept = {name: answer.headers[name] for name in ("ETag", "Content-Range") if name in answer.headers}
        if fault == "cut":
            self._send(answer.status_code, content[: len(content) // 2], kept, len(content))
            self.close_connection = True
            return None
        return self._send(answer.status_code, content, kept)

    def _send(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length or len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def between(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    s3.create_bucket(Bucket="bad-day")
    for name in ("a.png", "b.png"):
        s3.put_object(Bucket="bad-day", Key=f"her/{name}", Body=CONTENT)
    serving = Faulty(("127.0.0.1", 0), Between)
    serving.upstream, serving.faults, serving.asked = s3.meta.endpoint_url, {}, Counter()
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{serving.server_port}")
    yield serving
    serving.shutdown()
    serving.server_close()


@pytest.mark.parametrize("faults", [["503", "503"], ["500"], ["cut"], ["cut", "503", "cut"]])
def test_throttling_errors_and_cut_answers_are_asked_again(
    between: Faulty, faults: list[str], tmp_path: Path
) -> None:
    place = source("s3://bad-day/her", tmp_path)
    first, _ = place.entries()
    between.faults = {"a.png": list(faults)}
    assert place.read(first, 10**6) == CONTENT
    assert between.asked["a.png"] == len(faults) + 1


def test_an_object_that_is_always_cut_is_an_error_and_never_half_a_picture(
    between: Faulty, tmp_path: Path
) -> None:
    place = source("s3://bad-day/her", tmp_path)
    first, _ = place.entries()
    between.faults = {"a.png": ["cut"] * 20}
    with pytest.raises(OSError):
        place.read(first, 10**6)


def test_an_object_that_changed_since_it_was_listed_is_an_error(
    s3: Any, between: Faulty, tmp_path: Path
) -> None:
    place = source("s3://bad-day/her", tmp_path)
    first, _ = place.entries()
    s3.put_object(Bucket="bad-day", Key="her/a.png", Body=CONTENT[::-1])
    with pytest.raises(OSError, match=r"a\.png changed since it was listed"):
        place.read(first, 10**6)


@pytest.fixture(scope="module")
def s3rver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second implementation, which checks signatures: npm's s3rver, with one bucket of one object."""
    npx = program("npx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("s3rver")
    command = [npx, "--yes", "s3rver@3.7.1", "--directory", str(folder), "--address", "127.0.0.1"]
    log = (folder.parent / "s3rver.log").open("wb")
    serving = subprocess.Popen(
        [*command, "--port", str(port)], stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            requests.get(address, timeout=1)
            break
        except requests.ConnectionError:
            assert serving.poll() is None, Path(log.name).read_text()
            time.sleep(0.2)
    client = boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="S3RVER", aws_secret_access_key="S3RVER"
    )
    client.create_bucket(Bucket="second")
    client.put_object(Bucket="second", Key="her/a.png", Body=CONTENT)
    yield address
    os.killpg(serving.pid, signal.SIGTERM)
    serving.wait(10)


def signed(address: str, monkeypatch: pytest.MonkeyPatch, key: str = "S3RVER") -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3RVER")


def test_a_second_implementation_is_read_alike(
    s3rver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed(s3rver, monkeypatch)
    place: Source = source("s3://second/her", tmp_path)
    (entry,) = place.entries()
    assert (entry.name, entry.size) == ("a.png", len(CONTENT))
    assert place.read(entry, 10**6) == CONTENT
    assert place.read(entry, 10) == CONTENT[:11]


@pytest.mark.parametrize(("address", "key"), [("s3://second/her", "nobody"), ("s3://absent/her", "S3RVER")])
def test_wrong_credentials_and_a_missing_bucket_are_errors_that_say_so(
    s3rver: str, address: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed(s3rver, monkeypatch, key)
    with pytest.raises(InvalidSourceError, match=r"bucket or prefix not found|check AWS_ENDPOINT_URL"):
        source(address, tmp_path).entries()
