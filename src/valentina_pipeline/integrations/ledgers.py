"""Rights ledgers: one YAML list or CSV table of records per source, edited by people and `kedro revoke`."""

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from valentina_pipeline.common import atomic_files
from valentina_pipeline.domain.artifacts import REVOKED_FILE
from valentina_pipeline.domain.rights import InvalidLedgerError, RightsRecord, parse_records
from valentina_pipeline.integrations import tables

SUFFIXES = (".csv", ".yml", ".yaml")

PLACE = "conf/base/rights"
"""Folder of a project with one folder of ledgers per concept."""


@dataclass(frozen=True)
class Revocation:
    """Revocation of a record.

    Attributes:
        reason: in the ledgers.
        files: the ledgers changed now.
        before: True where a ledger had it as revoked already.
    """

    reason: str
    files: tuple[Path, ...]
    before: bool


def read(folder: Path) -> tuple[RightsRecord, ...]:
    """Return the records of all ledgers in a folder, ordered by file name, then by position.

    Raises:
        InvalidLedgerError: the folder is missing, a ledger is invalid, or two records share an id.
    """
    found: dict[str, Path] = {}
    known: list[RightsRecord] = []
    for file in ledgers(folder):
        for record in read_file(file):
            if record.id in found:
                raise InvalidLedgerError(
                    f"{file} and {found[record.id]} both contain a record {record.id!r}: rename one"
                )
            found[record.id] = file
            known.append(record)
    return tuple(known)


def ledgers(folder: Path) -> list[Path]:
    """Return the ledger files of a folder.

    Raises:
        InvalidLedgerError: the folder is missing.
    """
    if not folder.is_dir():
        raise InvalidLedgerError(
            f"{folder} is missing: create it with one .yml or .csv file of rights records per source"
        )
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def read_file(file: Path) -> tuple[RightsRecord, ...]:
    """Return the records of one ledger.

    Raises:
        InvalidLedgerError: it cannot be read, or a record is invalid.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as err:
        raise InvalidLedgerError(
            f"{file} is missing: create it with the rights records of these images"
        ) from err
    except (UnicodeDecodeError, OSError) as err:
        raise InvalidLedgerError(f"{file} cannot be read: {err}") from err
    rows = _table(text, file)[1] if file.suffix.lower() == ".csv" else _yaml_records(text, file)
    return parse_records(rows, str(file))


def revoke(place: Path, record_id: str, reason: str, day: date) -> Revocation:
    """Mark a record as revoked in every ledger below `place` that has it; other lines stay unchanged.

    The day and reason of an earlier revocation are kept. Repeated calls are harmless.

    Raises:
        InvalidLedgerError: no ledger has the record, or a ledger is invalid; the valid ones are marked first.
    """
    matches, errors = [], []
    for file in [file for concept in concepts(place) for file in ledgers(concept)]:
        try:
            matches += [(file, record) for record in read_file(file) if record.id == record_id]
        except InvalidLedgerError as err:
            errors.append(str(err))
    before = next((record for _, record in matches if record.revoked is not None), None)
    if before is not None and before.revoked is not None:
        day, reason = before.revoked, before.revocation
    changed = [file for file, record in matches if record.revoked is None]
    for file in changed:
        edited = _csv_with if file.suffix.lower() == ".csv" else _yaml_with
        content = edited(file, record_id, {"revoked": day.isoformat(), "revocation": reason})
        atomic_files.replace(file, content.encode())
    if errors:
        raise InvalidLedgerError("; ".join([*errors, "correct it and run `kedro revoke` again"]))
    if not matches:
        raise InvalidLedgerError(f"record {record_id!r} not found in the ledgers below {place}")
    return Revocation(reason, tuple(changed), before is not None)


def concepts(place: Path) -> list[Path]:
    """Return the folders below `place`, one per concept."""
    return sorted(folder for folder in place.glob("*") if folder.is_dir())


def load_terms(place: Path) -> Mapping[str, tuple[RightsRecord, ...]]:
    """Return the current records of all concepts by id. Files are read again only after they change.

    Raises:
        InvalidLedgerError: a ledger is invalid.
    """
    found = [file for concept in concepts(place) for file in ledgers(concept)]
    abouts = [(file, file.stat()) for file in found]
    return _records_by_id(
        tuple((file, about.st_mtime_ns, about.st_size, about.st_ino) for file, about in abouts)
    )


@lru_cache(maxsize=8)
def _records_by_id(
    files_as_they_are: tuple[tuple[Path, int, int, int], ...],
) -> dict[str, tuple[RightsRecord, ...]]:
    by_id: dict[str, tuple[RightsRecord, ...]] = {}
    for record in (record for file, *_ in files_as_they_are for record in read_file(file)):
        by_id[record.id] = (*by_id.get(record.id, ()), record)
    return by_id


def mark(package: Path, why: str) -> None:
    """Mark a package as revoked, which ends all generation from it. An earlier reason is kept."""
    if not os.path.lexists(package / REVOKED_FILE):
        content = json.dumps({"revoked": why}, ensure_ascii=False) + "\n"
        atomic_files.replace(package / REVOKED_FILE, content.encode())


class _Loader(yaml.SafeLoader):
    """YAML loader that rejects duplicate keys: otherwise the last one would win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if duplicate := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate key {duplicate!r}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _yaml_records(text: str, file: Path) -> list[dict[str, Any]]:
    try:
        found = yaml.load(text, Loader=_Loader) or []
    # ValueError: such as a 30th of February; RecursionError: a thousand brackets
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise InvalidLedgerError(f"{file} is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise InvalidLedgerError(f"{file} must be a list of records")
    return found


def _table(text: str, file: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of a CSV table."""
    try:
        table = csv.DictReader(StringIO(text, newline=""), strict=True)
        columns = list(table.fieldnames or ())
        rows = [{name: tables.unescape_formula(value) for name, value in row.items()} for row in table]
    except csv.Error as err:
        raise InvalidLedgerError(f"{file} cannot be read: {err}") from err
    if not columns or len(set(columns)) < len(columns):
        raise InvalidLedgerError(f"{file} cannot be read: its first line must name each column once")
    return columns, rows


def _yaml_with(file: Path, record_id: str, changes: dict[str, str]) -> str:
    from ruamel.yaml import YAML

    editor = YAML()  # keeps comments and order
    editor.width = 110
    editor.preserve_quotes = True
    editor.indent(mapping=2, sequence=2, offset=0)
    records = editor.load(file.read_text("utf-8-sig"))
    for record in records:
        if record["id"] == record_id:
            record["revoked"] = date.fromisoformat(changes["revoked"])
            record["revocation"] = changes["revocation"]
    buffer = StringIO()
    editor.dump(records, buffer)
    return buffer.getvalue()


def _csv_with(file: Path, record_id: str, changes: dict[str, str]) -> str:
    text = file.read_bytes().decode("utf-8-sig")
    columns, rows = _table(text, file)
    columns += [name for name in changes if name not in columns]
    buffer = StringIO(newline="")
    ending = "\r\n" if "\r\n" in text else "\n"
    writer = csv.DictWriter(buffer, columns, lineterminator=ending)
    writer.writeheader()
    for row in rows:
        cells = row | changes if row["id"] == record_id else row
        writer.writerow({name: tables.escape_formula(value) for name, value in cells.items()})
    return buffer.getvalue()
