"""API keys in HTTP requests: read the key from the headers, identify its owner, count the request."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.requests import HTTPConnection

from valentina_pipeline.serving.api.auth import ApiKeyAuth, RateLimitError


def identify(gate: ApiKeyAuth, connection: HTTPConnection) -> str:
    """Return the owner of the request's key and count the request.

    Raises:
        HTTPException: 401 without a known key, 429 where the key's rate is exceeded.
    """
    found = gate.owner(given_key(connection.headers))
    if found is None:
        basic = connection.url.path.startswith(
            "/sdapi/"
        )  # elsewhere a browser would prompt its user for a password
        raise HTTPException(
            401,
            "an API key is required: send it as a bearer token or as x-api-key",
            {"www-authenticate": "Basic" if basic else "Bearer"},
        )
    try:
        gate.request(found)
    except RateLimitError as err:
        raise HTTPException(429, str(err), {"retry-after": str(max(1, round(err.wait)))}) from err
    return found


def owner_dependency(gate: ApiKeyAuth) -> Callable[..., Awaitable[str]]:
    """Return the dependency that gives the owner of the key: bearer token, x-api-key or Basic password."""
    bearer = HTTPBearer(
        auto_error=False, description="an API key; not needed where the server has none configured"
    )
    header = APIKeyHeader(name="x-api-key", auto_error=False)

    async def owner(  # the parameters put the schemes into the OpenAPI schema
        request: Request,
        _bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
        _header: Annotated[str | None, Depends(header)] = None,
    ) -> str:
        admitted = request.scope.get("admitted")  # set by BodyLimits for requests with a body
        return identify(gate, request) if admitted is None else str(admitted)

    return owner


def given_key(headers: Mapping[str, str]) -> str:
    """Return the key of a request, "" where it has none.

    A1111's clients use Basic authentication: the password is the key, or the user name without a password.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            with suppress(ValueError):
                user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
                return password or user
    return headers.get("x-api-key", "")
