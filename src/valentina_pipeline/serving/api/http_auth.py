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
    """Return who asks, and count it.

    Raises:
        HTTPException: 401 without a key that is known, 429 where its rate is used up.
    """
    found = gate.owner(given_key(connection.headers))
    if found is None:
        basic = connection.url.path.startswith("/sdapi/")  # elsewhere a browser would ask its user for it
        raise HTTPException(
            401, "this needs an API key", {"www-authenticate": "Basic" if basic else "Bearer"}
        )
    try:
        gate.request(found)
    except RateLimitError as err:
        raise HTTPException(429, str(err), {"retry-after": str(max(1, round(err.wait)))}) from err
    return found


def owner_dependency(gate: ApiKeyAuth) -> Callable[..., Awaitable[str]]:
    """Return the dependency that tells who asks: by a key as bearer, as x-api-key, or as Basic's password."""
    bearer = HTTPBearer(auto_error=False, description="an API key; none is needed where none is configured")
    header = APIKeyHeader(name="x-api-key", auto_error=False)

    async def owner(  # the schemes are there for the API's description
        request: Request,
        _bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
        _header: Annotated[str | None, Depends(header)] = None,
    ) -> str:
        admitted = request.scope.get("admitted")  # before its body was read, where it has one
        return identify(gate, request) if admitted is None else str(admitted)

    return owner


def given_key(headers: Mapping[str, str]) -> str:
    """Return the key of a request, "" where it names none.

    Basic authentication is what A1111's clients have: its password is the key, or its user where there is no
    password.
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
