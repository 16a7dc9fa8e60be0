"""What strangers may cost a server before anybody is asked: connections, their time, and bytes of bodies."""

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

MOST_CONNECTIONS = min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
"""Open at once; a further one takes the place of the oldest that waits for its client."""

BACKLOG = 128
"""Connections that are accepted at a time, which the limit of open files has to have room for."""

LONGEST_HEAD = 16 << 10
"""Bytes of a request's first line and headers."""

HEAD = 10.0
"""Seconds in which a request's headers come, counted from the connection or the last answer."""

STALL = 10.0
"""Seconds in which a body's next bytes come."""

SLOWEST = 64 << 10
"""Bytes a second that a body comes with in the long run."""

UNREAD = 60.0
"""Seconds for which a client may take nothing of what it is sent."""

LINGER = 2.0
"""Seconds for which a client may read why it was cut off."""

WAIT = 10.0
"""Seconds for which a body waits for others to be done with."""

MOST_VALUES = 10_000
"""Values in a body of JSON: small ones cost thirty times what they weigh."""

LEAST_BODY = 4 << 10
"""Bytes that the smallest body counts for."""


def configure(app: ASGIApp, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves an app whose clients nobody knows."""
    return uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        http=Connection,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        ws_max_size=LEAST_BODY,  # nothing is expected from there
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,  # streams of events
        **more,
    )


class Connection(H11Protocol):
    """A connection that does not wait for its client for long, and of which there are only so many."""

    _timer: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a client in, if need be in the place of another."""
        super().connection_made(transport)
        if opened := transport.get_extra_info("socket"):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if unread := getattr(socket, "TCP_USER_TIMEOUT", None):  # Linux has it
                opened.setsockopt(socket.IPPROTO_TCP, unread, int(UNREAD * 1000))
        self._expect_head()
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a request whose headers have come is in time."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._expect_nothing()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand the connection on: uvicorn's pings tell whether its client is there."""
        self._expect_nothing()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Have the client begin its next request in time."""
        before = self.cycle
        self._expect_head()
        super().on_response_complete()
        if self.cycle is not before:  # it came with the last one
            self._expect_nothing()

    @property
    def waits(self) -> int:
        """How much the connection waits for its client: 2 for a request, 1 for the rest of one, else 0."""
        if self.cycle is None or self.cycle.response_complete:
            return 2
        return int(self.cycle.more_body)

    def _make_room(self) -> None:
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        waiting = [each for each in others if each.waits and not each.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda each: (-each.waits, each._since)).transport.abort()
        else:
            self._end_with("503 Service Unavailable")

    def _expect_head(self) -> None:
        self._expect_nothing()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(HEAD, self._late)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        begun = bool(self.conn.trailing_data[0])
        self._end_with("408 Request Timeout" if begun and self.waits == 2 else "")

    def _end_with(self, status: str) -> None:
        if self.transport.is_closing():
            return
        if status:
            head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 5\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()
        self.loop.call_later(LINGER, self.transport.abort)


class BodyLimits:
    """Lets the bodies of requests in, as far as there is memory for them, once it is known whose they are.

    Args:
        app: that reads them.
        admit: returns whose a request is, or raises HTTPException.
        refuse: answers an HTTPException.
        largest: bytes of one body, and of all that one owner has here at once.
        most: bytes of all that are here at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        admit: Callable[[HTTPConnection], str] = lambda asked: "",
        refuse: "Callable[[HTTPException], Response] | None" = None,
        largest: int = 1 << 20,
        most: int = 2 << 20,
    ) -> None:
        self._app = app
        self._admit = admit
        self._refuse = refuse or _plainly
        self._largest = largest
        self._most = most
        self._held = Counter[str]()
        self._freed = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            await self._app(scope, receive, send)
            return
        try:
            owner, size = self._admit(HTTPConnection(scope)), self._size(headers)
            async with self._room(owner, max(size, LEAST_BODY)):
                scope["admitted"] = owner
                counted = "json" in headers.get("content-type", "")
                await self._app(scope, _in_time(receive, counted), send)
        except HTTPException as err:
            await self._refuse(err)(scope, receive, send)

    def _size(self, headers: Headers) -> int:
        """Return the bytes that a body may have."""
        said = headers.get("content-length", "")
        size = int(said) if said.isdecimal() else self._largest
        if size > self._largest:
            raise HTTPException(413, f"a request has at most {self._largest:,} bytes")
        return size

    @asynccontextmanager
    async def _room(self, owner: str, size: int) -> AsyncIterator[None]:
        """Have so many bytes of memory inside the block."""
        try:
            async with asyncio.timeout(WAIT), self._freed:
                await self._freed.wait_for(lambda: self._fits(owner, size))
                self._held[owner] += size
        except TimeoutError:
            crowded = self._held[owner] + size > self._largest
            status, whose = (429, "of this client's") if crowded else (503, "")
            said = f"too many large requests {whose} are being read".replace("  ", " ")
            raise HTTPException(status, said, {"retry-after": f"{WAIT:.0f}"}) from None
        try:
            yield
        finally:
            self._held[owner] -= size
            if not self._held[owner]:
                del self._held[owner]
            async with self._freed:
                self._freed.notify_all()

    def _fits(self, owner: str, size: int) -> bool:
        return self._held[owner] + size <= self._largest and self._held.total() + size <= self._most


class ConcurrencyLimit:
    """ConcurrencyLimit for what takes long, of which one owner has only some. Safe to share between threads.

    Args:
        most: of all owners.
        each: of one owner.
        what: waits or goes on there, for the message.
    """

    def __init__(self, most: int, each: int, what: str) -> None:
        self._most = most
        self._each = each
        self._what = what
        self._taken = Counter[str]()
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """Have a place inside the block.

        Raises:
            HTTPException: 429 where the owner has all of its own, 503 where there is none left.
        """
        with self._lock:
            crowded = self._taken[owner] >= self._each
            if crowded or self._taken.total() >= self._most:
                said = f"{self._each if crowded else self._most} {self._what}"
                raise HTTPException(429 if crowded else 503, said, {"retry-after": "5"})
            self._taken[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[owner] -= 1
                if not self._taken[owner]:
                    del self._taken[owner]


def _plainly(err: HTTPException) -> Response:
    return JSONResponse({"detail": err.detail}, err.status_code, cast(Mapping[str, str], err.headers))


def _in_time(receive: Receive, counted: bool) -> Receive:
    """Return `receive`, which raises where a body is late or, `counted`, has too many values.

    Raises:
        HTTPException: 408 or 413.
    """
    begun, came, values, whole = 0.0, 0, 0, False

    async def receive_in_time() -> Message:
        nonlocal begun, came, values, whole
        if whole:
            return await receive()
        now = asyncio.get_running_loop().time()
        begun = begun or now
        try:
            async with asyncio.timeout(min(STALL, begun + STALL + came / SLOWEST - now)):
                message = await receive()
        except TimeoutError:
            said = f"the body came too slowly: {came:,} bytes in {now - begun:.0f} s, then none"
            raise HTTPException(408, said, {"connection": "close"}) from None
        part = message.get("body", b"")
        came, whole = came + len(part), not message.get("more_body", False)
        values += sum(map(part.count, (b",", b"[", b"{"))) if counted else 0
        if values > MOST_VALUES:
            raise HTTPException(413, f"a request has at most {MOST_VALUES:,} values", {"connection": "close"})
        return message

    return receive_in_time
