"""Whether a package may draw now: the one place that decides, asked before every image."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from valentina_pipeline.domain import clock
from valentina_pipeline.domain.artifacts import REVOKED_FILE
from valentina_pipeline.domain.rights import InvalidLedgerError, Terms
from valentina_pipeline.integrations import ledgers, registry


class PermissionUnknownError(RuntimeError):
    """A place that has to be asked does not answer, so that nobody knows whether a package may draw."""


def obstacle(folder: Path, terms: Sequence[Terms], root: Path | None) -> str:
    """Return why a package draws nothing at this moment, "" where nothing is in the way.

    Args:
        folder: the package; REVOKED.json in it prohibits, and so does its version's tag in the registry,
            where it came from one.
        terms: of the rights records that it stands on, as published.
        root: the project, whose ledgers may have changed since; None is the working directory, and the
            registry that MLflow is set to.

    Raises:
        PermissionUnknownError: a ledger cannot be read, or the registry does not answer.
    """
    if not terms:
        return "draws nothing: it stands on no rights record"
    if os.path.lexists(folder / REVOKED_FILE):
        why = _why(folder / REVOKED_FILE)
        return f"draws nothing any more: rights that it stands on were taken back ({why})"
    try:
        now = ledgers.load_terms((root or Path.cwd()) / ledgers.PLACE)
        for each in (record for term in terms for record in (term, *now.get(term.id, ()))):
            if said := _said(each):
                return said
        why = registry.revocation(folder, root)
    except (InvalidLedgerError, registry.RegistryUnavailableError) as err:
        raise PermissionUnknownError(f"draws nothing until it is known whether it may: {err}") from err
    return f"draws nothing any more: its version in the registry was revoked ({why})" if why else ""


def _said(terms: Terms) -> str:
    found = terms.obstacle("generation", clock.today())
    if found is None:
        return ""
    if terms.revoked is not None:
        return f"draws nothing any more: it stands on {terms.id}, which was taken back: {terms.revocation}"
    if found.reason == "rights expired":
        return f"draws nothing any more: record {terms.id} ended {terms.expires}"
    return f"draws nothing: record {terms.id} does not allow generation"


def _why(mark: Path) -> str:
    """Return the reason in the mark; that it is there is enough, whatever is in it."""
    try:
        return str(json.loads(mark.read_text("utf-8"))["revoked"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{REVOKED_FILE} does not say why"
