"""Rights records: the uses of images that a holder allows until a date, and the decision for one image."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from valentina_pipeline.domain import naming
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.renamed_keys import describe_error

Use = Literal["training", "generation", "publication"]
USES: tuple[Use, ...] = ("training", "generation", "publication")

RECORD_ID = r"^[a-z0-9][a-z0-9._-]{0,99}$"
SHA256 = r"^[0-9a-f]{64}$"


class InvalidLedgerError(ValueError):
    """A rights ledger is invalid; the message names the record and the field."""


class NotAllowedError(ValueError):
    """No record allows this use of this image: a reason in fixed words, and details."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Terms(BaseModel):
    """The part of a record that decides on a use; a package contains only this part."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=RECORD_ID)
    uses: tuple[Use, ...] = Field(min_length=1)
    expires: date | None = Field(default=None, description="the last day that counts, in UTC")
    revoked: date | None = None
    revocation: str = Field(default="", description="why it was revoked")

    @model_validator(mode="after")
    def _a_revocation_has_a_reason(self) -> "Terms":
        if (self.revoked is None) != (not self.revocation):
            raise ValueError("set both revoked (the date) and revocation (the reason), or neither")
        return self

    def obstacle(self, use: Use, today: date) -> NotAllowedError | None:
        """Return the error that forbids a use on a day, or None; the record's last day still counts."""
        if self.revoked is not None:
            detail = f"record {self.id} was revoked on {self.revoked}: {self.revocation}"
            return NotAllowedError("rights revoked", detail)
        if use not in self.uses:
            detail = f"record {self.id} allows {', '.join(self.uses)}, not {use}"
            return NotAllowedError("rights for another purpose", detail)
        if self.expires is not None and self.expires < today:
            return NotAllowedError("rights expired", f"record {self.id} ended on {self.expires}")
        return None


class RightsRecord(Terms):
    """Record of the uses of images that a holder allows, until a date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holder: str = Field(min_length=1)
    covers: str = Field(
        min_length=1,
        description="an image's name, in which * matches anything; or `pattern:` and a shell pattern",
    )
    license: str = Field(min_length=1)
    synthetic: bool
    evidence: str = Field(min_length=1, description="proof, such as the name of a contract")
    evidence_sha256: str | None = Field(
        default=None, pattern=SHA256, description="sha256 of the signed document"
    )
    deleted: date | None = Field(
        default=None, description="date on which its images were deleted: it may then cover none"
    )

    @field_validator("covers")
    @classmethod
    def _names_something(cls, covers: str) -> str:
        if not covers.strip().removeprefix(naming.PATTERN).strip():
            raise ValueError(f"{covers!r} contains no name or pattern")
        return covers

    def covers_name(self, name: str) -> bool:
        """Return True if the record covers an image; a revoked record also covers it in doubt."""
        covers = naming.permits if self.revoked is None else naming.prohibits
        return covers(self.covers, name)

    def digest(self) -> str:
        """Return the sha256 over all fields but `deleted`, by which a package identifies the record."""
        fields = self.model_dump(mode="json", exclude={"deleted"})
        return sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode())


def require_permission(rights: Iterable[RightsRecord], name: str, use: Use, today: date) -> RightsRecord:
    """Return the first record that allows `use` of the image `name`.

    Args:
        rights: the records of the image's source.
        name: the image's file name.
        use: the intended use.
        today: decides only whether a record has expired; its last day still counts.

    Raises:
        NotAllowedError: the record is revoked, expired or for another purpose, or there is none.
    """
    rights = tuple(rights)
    covering = [record for record in rights if record.covers_name(name)]
    checked = [(record, record.obstacle(use, today)) for record in covering]
    for record, obstacle in checked:
        if obstacle and record.revoked is not None:  # a revocation overrides other records of the image
            raise obstacle
    for record, obstacle in checked:
        if obstacle is None:
            return record
    for reason in ("rights expired", "rights for another purpose"):
        for _, obstacle in checked:
            if obstacle and obstacle.reason == reason:
                raise obstacle
    detail = f"no record covers this name for {use}"
    if close := next((record for record in rights if naming.prohibits(record.covers, name)), None):
        detail += f"; record {close.id} covers {close.covers!r}, which is spelled differently"
    raise NotAllowedError("no rights record", detail)


def require_use(rights: Iterable[RightsRecord], ids: Collection[str], use: Use, today: date) -> None:
    """Raise NotAllowedError if a record with one of these ids does not allow a use on a day."""
    for record in rights:
        if record.id in ids and (obstacle := record.obstacle(use, today)):
            raise obstacle


def find_unused_records(rights: Iterable[RightsRecord], names: Sequence[str]) -> list[RightsRecord]:
    """Return the records that cover none of these images, without records of deleted images."""
    return [
        record
        for record in rights
        if record.deleted is None and not any(record.covers_name(name) for name in names)
    ]


def parse_records(rows: Iterable[Mapping[Any, Any]], where: str) -> tuple[RightsRecord, ...]:
    """Return a ledger's rows as records.

    Args:
        rows: mappings of fields; `uses` is a list, or words separated by spaces or commas.
        where: the ledger's file, for messages.

    Raises:
        InvalidLedgerError: a field is missing or unknown, a value is not allowed, or an id occurs twice.
    """
    records: dict[str, RightsRecord] = {}
    for row in rows:
        record = _record(row, where)
        if record.id in records:
            raise InvalidLedgerError(f"{where}: two records have the id {record.id!r}: rename one")
        records[record.id] = record
    return tuple(records.values())


def _record(row: Mapping[Any, Any], where: str) -> RightsRecord:
    given = {str(name): value for name, value in row.items() if value is not None and value == value}
    given = {name: value for name, value in given.items() if value != ""}
    if isinstance(given.get("uses"), str):
        given["uses"] = tuple(given["uses"].replace(",", " ").split())
    try:
        return RightsRecord.model_validate(given)
    except ValidationError as err:
        problems = "; ".join(
            f"{'.'.join(map(str, error['loc']))} {describe_error('ledger', error)}".strip()
            for error in err.errors()
        )
        raise InvalidLedgerError(f"{where}: record {row.get('id')!r}: {problems}") from err
