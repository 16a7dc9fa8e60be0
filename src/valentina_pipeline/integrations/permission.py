"""Permission check of a package: decides before every image whether the package may generate."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from valentina_pipeline.domain import clock
from valentina_pipeline.domain.artifacts import REVOKED_FILE
from valentina_pipeline.domain.rights import InvalidLedgerError, Terms
from valentina_pipeline.integrations import ledgers, registry


class PermissionUnknownError(RuntimeError):
    """A ledger or the registry is unreadable, so that the permission of a package is unknown."""


def obstacle(folder: Path, terms: Sequence[Terms], root: Path | None) -> str:
    """Return the reason why a package may not generate now, "" where it may.

    Args:
        folder: the package. REVOKED.json in it blocks it; so does the tag of its version in the registry,
            if it was downloaded from one.
        terms: of the rights records that cover it, as published.
        root: the project, whose ledgers may have changed since; None is the working directory and the
            registry that MLflow is configured for.

    Raises:
        PermissionUnknownError: a ledger is invalid, or the registry does not respond.
    """
    if not terms:
        return "cannot generate: no rights record covers it"
    if os.path.lexists(folder / REVOKED_FILE):
        reason = _revocation_reason(folder / REVOKED_FILE)
        return f"cannot generate any more: its rights were revoked ({reason})"
    try:
        now = ledgers.load_terms((root or Path.cwd()) / ledgers.PLACE)
        for record in (record for term in terms for record in (term, *now.get(term.id, ()))):
            if blocked := _blocked_reason(record):
                return blocked
        reason = registry.revocation(folder, root)
    except (InvalidLedgerError, registry.RegistryUnavailableError) as err:
        raise PermissionUnknownError(f"cannot generate until its permission is known: {err}") from err
    return f"cannot generate any more: its version in the registry was revoked ({reason})" if reason else ""


def _blocked_reason(terms: Terms) -> str:
    found = terms.obstacle("generation", clock.today())
    if found is None:
        return ""
    if terms.revoked is not None:
        return f"cannot generate any more: record {terms.id} was revoked: {terms.revocation}"
    if found.reason == "rights expired":
        return f"cannot generate any more: record {terms.id} expired on {terms.expires}"
    return f"cannot generate: record {terms.id} does not allow generation"


def _revocation_reason(mark: Path) -> str:
    """Return the reason in REVOKED.json. The file revokes whatever its content is."""
    try:
        return str(json.loads(mark.read_text("utf-8"))["revoked"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{REVOKED_FILE} gives no reason"
