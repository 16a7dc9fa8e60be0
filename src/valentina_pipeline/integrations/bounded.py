"""Resource limits for untrusted clients: connections, their time, and bytes of request bodies."""

import asyncio
import resource
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import uvicorn
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
"""Open connections; another one replaces the oldest connection that waits for its client."""

BACKLOG = 128
"""Connections accepted at a time; the limit of open files must have room for them."""

MAX_HEADER_BYTES = 16 << 10
"""Request line and headers."""

HEADER_SECONDS = 10.0
"""Time for a request's headers, from the connection or the last response."""

BODY_STALL_SECONDS = 10.0
"""Time for the next bytes of a body."""

MIN_BODY_BYTES_PER_SECOND = 64 << 10
"""Minimum average rate of a body."""

UNREAD_SECONDS = 60.0
"""Time for which a client may leave sent data unacknowledged."""

LINGER_SECONDS = 2.0
"""Time for a client to read why its connection is closed."""

MEMORY_WAIT_SECONDS = 10.0
"""Time for which a body waits until others free memory."""

MAX_JSON_VALUES = 10_000
"""Values in a JSON body: in memory, small ones take thirty times their size."""

MIN_COUNTED_BODY_BYTES = 4 << 10
"""Smaller bodies count as this size."""


def configure(app: ASGIApp, **more: Any) -> uvicorn.Config:
    """Return the configuration of uvicorn for an app with untrusted clients."""
    return uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        http=Connection,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws_max_size=MIN_COUNTED_BODY_BYTES,  # clients send nothing by WebSocket
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,  # event streams do not end by themselves
        **more,
    )


class Connection(H11Protocol):
    """HTTP connection with timeouts, limited in number."""

    _timer: asyncio.TimerHandle | None = None
    _waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client; at the limit, close another connection."""
        super().connection_made(transport)
        if connected := transport.get_extra_info("socket"):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if option := getattr(socket, "TCP_USER_TIMEOUT", None):  # Linux only
                connected.setsockopt(socket.IPPROTO_TCP, option, int(UNREAD_SECONDS * 1000))
        self._expect_head()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process data; complete headers stop the timer."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._expect_nothing()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Stop the timer: uvicorn's pings detect a lost WebSocket client."""
        self._expect_nothing()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Start the timer for the client's next request."""
        before = self.cycle
        self._expect_head()
        super().on_response_complete()
        if self.cycle is not before:  # it arrived together with the last one
            self._expect_nothing()

    @property
    def waits(self) -> int:
        """Wait state: 2 waits for a request, 1 for the rest of a request, 0 not for the client."""
        if self.cycle is None or self.cycle.response_complete:
            return 2
        return int(self.cycle.more_body)

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        waiting = [other for other in others if other.waits and not other.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda other: (-other.waits, other._waiting_since)).transport.abort()
        else:
            self._end_with("503 Service Unavailable")

    def _expect_head(self) -> None:
        self._expect_nothing()
        self._waiting_since = self.loop.time()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._time_out)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        partial = bool(self.conn.trailing_data[0])
        self._end_with("408 Request Timeout" if partial and self.waits == 2 else "")

    def _end_with(self, status: str) -> None:
        if self.transport.is_closing():
            return
        if status:
            head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 5\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)


class BodyLimits:
    """ASGI middleware that limits the memory of request bodies, in all and by owner.

    Args:
        app: to wrap.
        admit: returns the owner of a request, or raises HTTPException.
        refuse: makes the response to an HTTPException.
        largest: bytes of one body, and of all concurrent bodies of one owner.
        most: bytes of all concurrent bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        admit: Callable[[HTTPConnection], str] = lambda connection: "",
        refuse: "Callable[[HTTPException], Response] | None" = None,
        largest: int = 1 << 20,
        most: int = 2 << 20,
    ) -> None:
        self._app = app
        self._admit = admit
        self._refuse = refuse or _json_error
        self._largest = largest
        self._most = most
        self._reserved = Counter[str]()
        self._freed = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            await self._app(scope, receive, send)
            return
        try:
            owner, size = self._admit(HTTPConnection(scope)), self._size(headers)
            async with self._reserve(owner, max(size, MIN_COUNTED_BODY_BYTES)):
                scope["admitted"] = owner
                is_json = "json" in headers.get("content-type", "")
                await self._app(scope, _limit_receive(receive, is_json), send)
        except HTTPException as err:
            await self._refuse(err)(scope, receive, send)

    def _size(self, headers: Headers) -> int:
        """Return the declared size of a body, else the maximum.

        Raises:
            HTTPException: 413 where it is larger than allowed.
        """
        declared = headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() else self._largest
        if size > self._largest:
            raise HTTPException(413, f"a request may have at most {self._largest:,} bytes")
        return size

    @asynccontextmanager
    async def _reserve(self, owner: str, size: int) -> AsyncIterator[None]:
        """Reserve so many bytes of memory inside the block.

        Raises:
            HTTPException: 429 or 503 where they do not become free in time.
        """
        try:
            async with asyncio.timeout(MEMORY_WAIT_SECONDS), self._freed:
                await self._freed.wait_for(lambda: self._fits(owner, size))
                self._reserved[owner] += size
        except TimeoutError:
            over_own_limit = self._reserved[owner] + size > self._largest
            status, whose = (429, "of this client's") if over_own_limit else (503, "")
            message = f"too many large requests {whose} are being read".replace("  ", " ")
            raise HTTPException(status, message, {"retry-after": f"{MEMORY_WAIT_SECONDS:.0f}"}) from None
        try:
            yield
        finally:
            self._reserved[owner] -= size
            if not self._reserved[owner]:
                del self._reserved[owner]
            async with self._freed:
                self._freed.notify_all()

    def _fits(self, owner: str, size: int) -> bool:
        return self._reserved[owner] + size <= self._largest and self._reserved.total() + size <= self._most


class ConcurrencyLimit:
    """Limit of concurrent long operations, in all and by owner. Safe to share between threads.

    Args:
        max_total: of all owners.
        max_per_owner: of one owner.
        what: description of the operations, for the message.
    """

    def __init__(self, max_total: int, max_per_owner: int, what: str) -> None:
        self._max_total = max_total
        self._max_per_owner = max_per_owner
        self._what = what
        self._active = Counter[str]()
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """Count an operation of the owner inside the block.

        Raises:
            HTTPException: 429 at the limit of the owner, 503 at the total limit.
        """
        with self._lock:
            over_own_limit = self._active[owner] >= self._max_per_owner
            if over_own_limit or self._active.total() >= self._max_total:
                limit = self._max_per_owner if over_own_limit else self._max_total
                status = 429 if over_own_limit else 503
                raise HTTPException(status, f"{limit} {self._what}", {"retry-after": "5"})
            self._active[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._active[owner] -= 1
                if not self._active[owner]:
                    del self._active[owner]


def _json_error(err: HTTPException) -> Response:
    return JSONResponse({"detail": err.detail}, err.status_code, cast(Mapping[str, str], err.headers))


def _limit_receive(receive: Receive, is_json: bool) -> Receive:
    """Return a `receive` that raises where a body is too slow or, if `is_json`, has too many values.

    Raises:
        HTTPException: 408 or 413.
    """
    started, received, values, complete = 0.0, 0, 0, False

    async def receive_limited() -> Message:
        nonlocal started, received, values, complete
        if complete:
            return await receive()
        now = asyncio.get_running_loop().time()
        started = started or now
        try:
            async with asyncio.timeout(
                min(
                    BODY_STALL_SECONDS,
                    started + BODY_STALL_SECONDS + received / MIN_BODY_BYTES_PER_SECOND - now,
                )
            ):
                message = await receive()
        except TimeoutError:
            detail = f"the body arrived too slowly: {received:,} bytes in {now - started:.0f} s, then none"
            raise HTTPException(408, detail, {"connection": "close"}) from None
        part = message.get("body", b"")
        received, complete = received + len(part), not message.get("more_body", False)
        values += sum(map(part.count, (b",", b"[", b"{"))) if is_json else 0
        if values > MAX_JSON_VALUES:
            raise HTTPException(
                413, f"a request may have at most {MAX_JSON_VALUES:,} values", {"connection": "close"}
            )
        return message

    return receive_limited
