"""The page for people, at `/`: files that `npm run build` makes of web/ and the package ships."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

BUILT = Path(__file__).parent / "page"

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere, no inline script, in no other site's frame."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # names have no hashes: a new version is to be seen at once
}


def add_page(app: FastAPI) -> None:
    """Have an app serve the page; anybody may read it, what it asks for needs the key."""

    def serve(path: str, name: str, kind: str) -> None:
        @app.get(path, include_in_schema=False, response_class=FileResponse)
        def file() -> FileResponse:
            return FileResponse(BUILT / name, media_type=kind, headers=HEADERS)

    serve("/", "index.html", "text/html")
    serve("/page/page.js", "page.js", "text/javascript")
    serve("/page/page.css", "page.css", "text/css")
