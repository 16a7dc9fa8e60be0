"""Server of the review page: the page, its images, and an API that edits captions.csv."""

import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from valentina_pipeline.integrations.bounded import BodyLimits
from valentina_pipeline.integrations.captions import VERDICTS, InvalidCaptionsError
from valentina_pipeline.review.dataset import Dataset, NotReadyError

PAGE = Path(__file__).with_name("page.html")
HOSTS = ["127.0.0.1", "localhost"]
POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'nonce-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
MAX_CAPTION_CHARS = 2000

MAX_BODY_BYTES = 1 << 20
"""Limit of one request body, and of all bodies that are being read."""

Name = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=MAX_CAPTION_CHARS)]
Token = Annotated[str, Header(alias="x-review-token")]


class Words(BaseModel):
    """Editable columns of a row; absent ones stay unchanged."""

    model_config = ConfigDict(extra="forbid")

    human: Text | None = None
    verdict: Annotated[str, Field(pattern=f"^({'|'.join(VERDICTS)})$")] | None = None

    def edited_fields(self) -> dict[str, str]:
        """Return the given columns, with whitespace reduced to single spaces."""
        fields = self.model_dump(exclude_none=True)
        return {name: " ".join(value.split()) for name, value in fields.items()}


class Edit(BaseModel):
    """A change, and the values that the person saw before it."""

    model_config = ConfigDict(extra="forbid")

    before: Words
    after: Words


class Replacement(BaseModel):
    """Find and replace in all captions."""

    model_config = ConfigDict(extra="forbid")

    find: Annotated[str, Field(min_length=1, max_length=MAX_CAPTION_CHARS)]
    replacement: Text


def create_app(dataset: Dataset, editor: str) -> FastAPI:
    """Return the app of the review page.

    It accepts only this machine's host names, and writes only with the token of the served page. Another
    site in the same browser can neither read nor change anything.

    Args:
        dataset: the dataset to review.
        editor: the name that is written with each edit.
    """
    token, nonce = secrets.token_urlsafe(), secrets.token_urlsafe()
    app = FastAPI(
        title="review", docs_url=None, redoc_url=None, openapi_url=None, max_body_size=MAX_BODY_BYTES
    )
    app.add_middleware(BodyLimits, largest=MAX_BODY_BYTES, most=MAX_BODY_BYTES)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)

    def check_token(given: str) -> None:
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(403, "this page is from an earlier server process: reload it")

    @app.get("/")
    def page() -> HTMLResponse:
        text = PAGE.read_text("utf-8").replace("{token}", token).replace("{nonce}", nonce)
        return HTMLResponse(text, headers={**HEADERS, "content-security-policy": POLICY.format(nonce)})

    @app.get("/api/portraits")
    def portraits() -> dict[str, Any]:
        try:
            return {"concept": dataset.concept, "editor": editor, "portraits": dataset.portraits()}
        except (NotReadyError, InvalidCaptionsError) as err:
            raise HTTPException(409, str(err)) from err

    @app.get("/pictures/{sha256}.png")
    def picture(sha256: Name) -> FileResponse:
        file = dataset.picture(sha256)
        if not file.is_file():
            raise HTTPException(404, f"image {sha256} not found")
        return FileResponse(file, media_type="image/png", headers={**HEADERS, "cache-control": "no-cache"})

    @app.put("/api/portraits/{sha256}")
    def edit(sha256: Name, change: Edit, given: Token) -> dict[str, Any]:
        check_token(given)
        try:
            dataset.edit(sha256, change.before.edited_fields(), change.after.edited_fields(), editor)
        except InvalidCaptionsError as err:
            raise HTTPException(409, str(err)) from err
        return portraits()

    @app.post("/api/replace")
    def replace(change: Replacement, given: Token) -> dict[str, Any]:
        check_token(given)
        try:
            changed = dataset.replace(change.find, change.replacement, editor)
        except InvalidCaptionsError as err:
            raise HTTPException(409, str(err)) from err
        return {"changed": changed, **portraits()}

    return app
