"""Rights of extra training data."""

from collections.abc import Iterable, Sequence

from valentina_pipeline.domain.naming import names_folder
from valentina_pipeline.domain.rights import RightsRecord


def records_naming(rights: Sequence[RightsRecord], folders: Iterable[str]) -> tuple[RightsRecord, ...]:
    """Return the records that name one of these folders, and all revoked ones.

    A concept's "*" was not written for extra data; a revocation counts in any case.
    """
    names = tuple(folders)
    return tuple(r for r in rights if r.revoked or any(names_folder(r.covers, name) for name in names))
