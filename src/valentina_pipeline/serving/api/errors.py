"""Error responses: every error becomes one JSON form, which OpenAI's clients read."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.serving.api.auth import RateLimitError
from valentina_pipeline.serving.api.service import without_folders
from valentina_pipeline.serving.inference.package import InvalidPackageError, RightsUnknownError
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.dispatcher import RETRY_SECONDS, Dispatcher
from valentina_pipeline.serving.jobs.store import QueueFullError

logger = logging.getLogger(__name__)

RIGHTS_RETRY_SECONDS = 10.0
"""Seconds after which a client may retry where the rights of the package cannot be checked now."""


def error_response(
    status: int, kind: str, message: str, field: str | None = None, wait: float | None = None
) -> JSONResponse:
    """Return an error in OpenAI's form; `wait` is the Retry-After in seconds."""
    headers = {} if wait is None else {"retry-after": str(max(1, round(wait)))}
    error = {"message": message, "type": kind, "param": field, "code": None}
    return JSONResponse({"error": error}, status, headers)


def http_error_response(err: AnyHTTPException) -> JSONResponse:
    """Return the response to an HTTP error, with its headers."""
    kind = "rate_limit_error" if err.status_code == 429 else "invalid_request_error"
    response = error_response(err.status_code, kind, str(err.detail))
    response.headers.update(err.headers or {})
    return response


def unavailable_response(err: UnavailableError) -> JSONResponse:
    """Return the response where the server cannot work for now: 503, to be retried."""
    return error_response(503, "server_error", without_folders(str(err)), wait=RETRY_SECONDS)


def add_error_handlers(app: FastAPI, desk: Dispatcher) -> None:
    """Answer every error in one form, which OpenAI's clients read."""

    @app.exception_handler(InvalidRequestError)
    async def invalid_request(_: Request, err: InvalidRequestError) -> JSONResponse:
        return error_response(422, "invalid_request_error", str(err), err.field)

    @app.exception_handler(RequestValidationError)
    async def invalid_body(_: Request, err: RequestValidationError) -> JSONResponse:
        first = err.errors()[0]
        field = ".".join(map(str, first["loc"][1:]))
        return error_response(422, "invalid_request_error", f"{field}: {first['msg']}".lstrip(": "), field)

    @app.exception_handler(UnsafePromptError)
    async def unsafe_prompt(_: Request, err: UnsafePromptError) -> JSONResponse:
        return error_response(400, "content_policy_violation", str(err), "prompt")

    @app.exception_handler(InvalidPackageError)
    async def invalid_package(_: Request, err: InvalidPackageError) -> JSONResponse:
        logger.error("%s", err)
        return error_response(410, "invalid_request_error", without_folders(str(err)))

    @app.exception_handler(RightsUnknownError)
    async def rights_unknown(_: Request, err: RightsUnknownError) -> JSONResponse:
        logger.error("%s", err)
        return error_response(503, "server_error", without_folders(str(err)), wait=RIGHTS_RETRY_SECONDS)

    @app.exception_handler(RateLimitError)
    async def rate_limit(_: Request, err: RateLimitError) -> JSONResponse:
        return error_response(429, "rate_limit_error", str(err), wait=err.wait)

    @app.exception_handler(QueueFullError)
    async def queue_full(_: Request, err: QueueFullError) -> JSONResponse:
        return error_response(429, "rate_limit_error", "the queue is full", wait=desk.batch_seconds)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, err: UnavailableError) -> JSONResponse:
        return unavailable_response(err)

    @app.exception_handler(AnyHTTPException)
    async def http_error(_: Request, err: AnyHTTPException) -> JSONResponse:
        return http_error_response(err)
