"""The page for people, at `/`: files that `npm run build` makes of web/ and the package ships."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUILT = Path(__file__).parent / "page"

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere, no inline script, in no other site's frame."""

INLINE = f"{POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
"""The same with inline scripts, which the API's documentation has."""

ENCLOSED = {
    "content-security-policy": INLINE,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
"""Headers of every answer, where it has none of its own."""

HEADERS = {
    **ENCLOSED,
    "content-security-policy": POLICY,
    "cache-control": "no-cache",  # names have no hashes: a new version is to be seen at once
}


class Enclosed:
    """Has browsers load nothing from elsewhere for any answer, and show none in another site's frame."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""

        async def send_enclosed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ENCLOSED.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_enclosed)


def add_page(app: FastAPI) -> None:
    """Have an app serve the page; anybody may read it, what it asks for needs the key."""

    def serve(path: str, name: str, kind: str) -> None:
        @app.get(path, include_in_schema=False, response_class=FileResponse)
        def file() -> FileResponse:
            return FileResponse(BUILT / name, media_type=kind, headers=HEADERS)

    serve("/", "index.html", "text/html")
    serve("/page/page.js", "page.js", "text/javascript")
    serve("/page/page.css", "page.css", "text/css")
