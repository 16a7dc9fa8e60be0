"""Rights records: who allows which use of which pictures, until when; and what they say of one picture."""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valentina_pipeline.domain.content import sha256

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema

Use = Literal["training", "generation", "publication"]
USES: tuple[Use, ...] = ("training", "generation", "publication")

RECORD_ID = r"^[a-z0-9][a-z0-9._-]{0,99}$"
SHA256 = r"^[0-9a-f]{64}$"


class BadLedger(ValueError):
    """A ledger's table is not what it has to be; the message names the record and the field."""


class NotAllowed(ValueError):
    """No record allows this use of this picture: a reason in fixed words, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RightsRecord(BaseModel):
    """Who allows which use of which images, until when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=RECORD_ID)
    holder: str = Field(min_length=1)
    covers: str = Field(min_length=1, description="a shell pattern over file names")
    uses: tuple[Use, ...] = Field(min_length=1)
    licence: str = Field(min_length=1)
    synthetic: bool
    expires: date | None = Field(default=None, description="the last day that counts")
    evidence: str = Field(min_length=1, description="what shows it, such as a contract's name")
    evidence_sha256: str | None = Field(default=None, pattern=SHA256, description="of the signed paper")
    revoked: date | None = None
    revocation: str = Field(default="", description="why it was revoked")

    @model_validator(mode="after")
    def _a_revocation_has_a_reason(self) -> "RightsRecord":
        if (self.revoked is None) != (not self.revocation):
            raise ValueError("revoked and revocation belong together: when, and why")
        return self

    def digest(self) -> str:
        """Return the sha256 over its fields, which a published package names it by."""
        return sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False).encode())


def allowed(rights: Iterable[RightsRecord], name: str, use: Use, today: date) -> RightsRecord:
    """Return the first record that allows `use` of the picture `name`.

    Args:
        rights: of the picture's source.
        name: the picture's file name.
        use: what it is wanted for.
        today: decides only whether a record has expired; its last day still counts.

    Raises:
        NotAllowed: with what stands in the way: revoked, expired, for another purpose, or no record at all.
    """
    covering = [record for record in rights if fnmatchcase(name, record.covers)]
    for record in covering:
        if record.revoked is not None:  # whatever another record says of the picture
            said = f"record {record.id} was revoked on {record.revoked}: {record.revocation}"
            raise NotAllowed("rights revoked", said)
    for_it = [record for record in covering if use in record.uses]
    for record in for_it:
        if record.expires is None or record.expires >= today:
            return record
    if for_it:
        raise NotAllowed("rights expired", f"record {for_it[0].id} ended on {for_it[0].expires}")
    if covering:
        allows = ", ".join(covering[0].uses)
        raise NotAllowed("rights for another purpose", f"record {covering[0].id} allows {allows}, not {use}")
    raise NotAllowed("no rights record", f"no record covers this name for {use}")


def records(table: "pd.DataFrame", where: str) -> tuple[RightsRecord, ...]:
    """Return a ledger's table as records.

    Args:
        table: a row each record; `uses` as a list, or words between spaces or commas.
        where: the ledger's file, for messages.

    Raises:
        BadLedger: a column is missing or unknown, or a value is none that it may have.
    """
    from pandera.errors import SchemaErrors

    try:
        checked = _schema().validate(table, lazy=True)
    except SchemaErrors as err:
        found = "; ".join(
            f"{case['column'] or ''} {case['check']} ({case['failure_case']})".strip()
            for case in err.failure_cases.to_dict("records")
        )
        raise BadLedger(f"{where}: {found}") from err
    return tuple(_record(row, where) for row in checked.to_dict("records"))


def _record(row: Mapping[Any, Any], where: str) -> RightsRecord:
    given = {str(name): value for name, value in row.items() if value is not None and value == value}
    given = {name: value for name, value in given.items() if value != ""}
    if isinstance(given.get("uses"), str):
        given["uses"] = tuple(given["uses"].replace(",", " ").split())
    try:
        return RightsRecord.model_validate(given)
    except ValidationError as err:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in err.errors())
        raise BadLedger(f"{where}: record {row.get('id')!r}: {said}") from err


@lru_cache(maxsize=1)
def _schema() -> "DataFrameSchema":
    from pandera.pandas import Check, Column, DataFrameSchema

    required = ("id", "holder", "covers", "uses", "licence", "synthetic", "evidence")
    optional = sorted(set(RightsRecord.model_fields) - set(required))
    return DataFrameSchema(
        {
            "id": Column(str, Check.str_matches(RECORD_ID), unique=True),
            **{name: Column(object, nullable=False, coerce=True) for name in required[1:]},
            **{name: Column(object, nullable=True, required=False, coerce=True) for name in optional},
        },
        strict=True,
    )
