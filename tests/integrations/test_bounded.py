"""A server whose clients are strangers: what they may cost it, on real sockets."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect

from valentina_pipeline.integrations import bounded
from valentina_pipeline.integrations.bounded import BodyLimits, ConcurrencyLimit, configure
from waiting import until

LARGEST = 1 << 20


@contextmanager
def served(**bodies: Any) -> Iterator[tuple[str, int, uvicorn.Server]]:
    """Serve an app that reads JSON, has a slow call, and echoes by WebSocket; give its address and port."""
    app = FastAPI()
    app.add_middleware(BodyLimits, **{"largest": LARGEST, "most": 2 * LARGEST, **bodies})

    @app.post("/read")
    async def read(body: dict[str, Any]) -> int:
        return len(body)

    @app.post("/slow")
    async def slow(body: dict[str, Any]) -> int:
        await asyncio.sleep(1.5)
        return len(body)

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.websocket("/ws")
    async def ws(line: WebSocket) -> None:
        await line.accept()
        try:
            while True:
                await line.send_text(await line.receive_text())
        except WebSocketDisconnect:
            return

    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    server = uvicorn.Server(configure(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{port}", port, server
    finally:
        server.should_exit = True
        thread.join(20)


def _line(port: int, sent: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=10)
    line.sendall(sent)
    return line


def _posting(size: int, path: str = "/read") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    )
    return head.encode()


def _heard(line: socket.socket) -> bytes:
    heard = b""
    while part := line.recv(1 << 16):
        heard += part
    return heard


def test_a_flood_of_silent_connections_keeps_nobody_out_and_is_closed_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(bounded, "HEADER_SECONDS", 1.0)
    with served() as (url, port, server):
        lines = [_line(port) for _ in range(60)]
        assert httpx.get(f"{url}/health").text == '"ok"'
        assert len(server.server_state.connections) <= 20
        until(lambda: not server.server_state.connections, 10)
        for line in lines:
            line.close()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [(b"GET /health HTT", b"408"), (b"", b""), (b"GET /health HTTP/1.1\r\na: b\r\n", b"408")],
)
def test_headers_come_in_time_however_they_drip(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(bounded, "HEADER_SECONDS", 1.0)
    with served() as (_, port, _):
        line, begun = _line(port, sent), time.monotonic()
        if answer:
            for _ in range(3):
                time.sleep(0.2)
                line.sendall(b"c")
        assert answer in _heard(line)
        assert time.monotonic() - begun < 3


def test_an_answered_client_that_begins_no_next_request_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "HEADER_SECONDS", 1.0)
    with served() as (_, port, _):
        line = _line(port, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.3)
        line.sendall(b"GET /hea")  # ends uvicorn's own wait
        assert b" 408 " in _heard(line)


def test_bodies_that_stall_are_answered_and_others_served_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "BODY_STALL_SECONDS", 1.0)
    monkeypatch.setattr(bounded, "MEMORY_WAIT_SECONDS", 5.0)
    with served() as (url, port, _):
        lines = [_line(port, _posting(LARGEST) + b"x" * 1000) for _ in range(3)]
        assert httpx.get(f"{url}/health").status_code == 200
        answers = [_heard(line) for line in lines]
        assert all(b"408 Request Timeout" in answer for answer in answers)
        assert b"the body arrived too slowly: 1,000 bytes" in answers[0]
        assert httpx.post(f"{url}/read", json={"a": 1}).text == "1"


def test_a_body_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "BODY_STALL_SECONDS", 1.0)
    with served() as (_, port, _):
        line = _line(port, _posting(5000))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(60):
                time.sleep(0.1)
                line.sendall(b" ")


def test_bytes_of_all_bodies_are_bounded_together_and_by_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MEMORY_WAIT_SECONDS", 0.5)
    with served(admit=lambda asked: asked.headers.get("x-who", "")) as (_, port, _):
        body = b'{"a": "' + b"x" * (LARGEST - 9) + b'"}'

        def asked(who: str) -> socket.socket:
            head = _posting(len(body), "/slow").replace(b"host: x", f"host: x\r\nx-who: {who}".encode())
            return _line(port, head + body)

        ada = asked("ada")
        time.sleep(0.1)
        again, bob = asked("ada"), asked("bob")
        time.sleep(0.1)
        eve = asked("eve")
        time.sleep(1)
        assert again.recv(20).startswith(b"HTTP/1.1 429")
        assert eve.recv(20).startswith(b"HTTP/1.1 503")
        assert ada.recv(20).startswith(b"HTTP/1.1 200")
        assert bob.recv(20).startswith(b"HTTP/1.1 200")
        assert asked("eve").recv(20).startswith(b"HTTP/1.1 200")


def test_too_large_a_body_and_too_many_values_are_answered_with_413() -> None:
    with served() as (url, port, _):
        assert b" 413 " in _line(port, _posting(LARGEST + 1)).recv(1000)
        json = {"content-type": "application/json"}
        deep = httpx.post(f"{url}/read", content=b"[" * 50_000, headers=json)
        wide = httpx.post(f"{url}/read", content=b'{"a": [' + b"[]," * 50_000 + b"1]}", headers=json)
        assert [deep.status_code, wide.status_code] == [413, 413]
        chunked = httpx.post(f"{url}/read", content=iter([b'{"a":', b"1}"]), headers=json)
        assert chunked.text == "1"


def test_nothing_is_read_of_whom_nobody_knows() -> None:
    def nobody(asked: Any) -> str:
        raise HTTPException(401, "this needs a key")

    with served(admit=nobody) as (_, port, _):
        line = _line(port, _posting(LARGEST) + b"x" * 10)
        assert line.recv(1000).startswith(b"HTTP/1.1 401")


def test_whoever_does_not_read_an_answer_is_cut_off_by_the_kernel() -> None:
    with served() as (_, port, server):
        line = _line(port)
        until(lambda: len(server.server_state.connections) == 1)
        (there,) = server.server_state.connections
        opened = there.transport.get_extra_info("socket")
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        line.close()


def test_of_places_one_owner_has_some_and_all_have_more() -> None:
    places = ConcurrencyLimit(3, 2, "wait")
    with places.taken("ada"), places.taken("ada"):
        with pytest.raises(HTTPException) as crowded, places.taken("ada"):
            pass
        assert (crowded.value.status_code, crowded.value.detail) == (429, "2 wait")
        with places.taken("bob"):
            with pytest.raises(HTTPException) as full, places.taken("eve"):
                pass
            assert (full.value.status_code, full.value.detail) == (503, "3 wait")
    with places.taken("eve"), places.taken("eve"):
        pass
