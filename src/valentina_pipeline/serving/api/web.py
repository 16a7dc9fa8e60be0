"""Web page at `/`: serves the files that `npm run build` makes from web/ and the package ships."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_FOLDER = Path(__file__).parent / "page"

CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere, no inline script, in no other site's frame."""

INLINE_POLICY = f"{CONTENT_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
"""The same with inline scripts, which the API documentation needs."""

SECURITY_HEADERS = {
    "content-security-policy": INLINE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
"""Headers of every response that does not set them itself."""

PAGE_HEADERS = {
    **SECURITY_HEADERS,
    "content-security-policy": CONTENT_POLICY,
    "cache-control": "no-cache",  # file names have no hashes: browsers must revalidate
}


class Enclosed:
    """Adds the security headers: no content from elsewhere, no display in another site's frame."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def add_page(app: FastAPI) -> None:
    """Serve the page without a key; its API calls need the key."""

    def serve(path: str, name: str, kind: str) -> None:
        @app.get(path, include_in_schema=False, response_class=FileResponse)
        def file() -> FileResponse:
            return FileResponse(PAGE_FOLDER / name, media_type=kind, headers=PAGE_HEADERS)

    serve("/", "index.html", "text/html")
    serve("/page/page.js", "page.js", "text/javascript")
    serve("/page/page.css", "page.css", "text/css")
