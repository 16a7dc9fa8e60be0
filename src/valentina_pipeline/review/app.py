"""The review page's server: one page, its pictures, and a few calls that change captions.csv."""

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
LONGEST = 2000
"""Characters of a caption."""

LARGEST_BODY = 1 << 20
"""Bytes of a request, and of all that are being read."""

Name = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=LONGEST)]
Token = Annotated[str, Header(alias="x-review-token")]


class Words(BaseModel):
    """A person's columns of a row, those that are meant."""

    model_config = ConfigDict(extra="forbid")

    human: Text | None = None
    verdict: Annotated[str, Field(pattern=f"^({'|'.join(VERDICTS)})$")] | None = None

    def edited_fields(self) -> dict[str, str]:
        """Return what is meant; a caption has single spaces and no end of line."""
        found = self.model_dump(exclude_none=True)
        return {name: " ".join(value.split()) for name, value in found.items()}


class Edit(BaseModel):
    """A change, and what the person saw before it."""

    model_config = ConfigDict(extra="forbid")

    before: Words
    after: Words


class Replacement(BaseModel):
    """Find and replace in all captions."""

    model_config = ConfigDict(extra="forbid")

    find: Annotated[str, Field(min_length=1, max_length=LONGEST)]
    replacement: Text


def create_app(dataset: Dataset, editor: str) -> FastAPI:
    """Return the server.

    It answers to this machine's names only, and writes only for the page it sent: another site that a
    browser has open can neither read nor change anything.

    Args:
        dataset: what is reviewed.
        editor: whose edits these are.
    """
    token, nonce = secrets.token_urlsafe(), secrets.token_urlsafe()
    app = FastAPI(title="review", docs_url=None, redoc_url=None, openapi_url=None, max_body_size=LARGEST_BODY)
    app.add_middleware(BodyLimits, largest=LARGEST_BODY, most=LARGEST_BODY)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)

    def check_token(given: str) -> None:
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(403, "this page is of an earlier start: reload it")

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
            raise HTTPException(404, f"there is no picture {sha256}")
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
