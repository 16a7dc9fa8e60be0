"""Rights ledgers: a YAML list or CSV table of records a source, that people and `kedro revoke` edit."""

import json
from collections.abc import Iterator
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

from valentina_pipeline.domain.content import REVOKED
from valentina_pipeline.domain.rights import BadLedger, RightsRecord, records
from valentina_pipeline.integrations import files, tables

SUFFIXES = (".csv", ".yml", ".yaml")

PLACE = "conf/base/rights"
"""In a project: a folder of ledgers a concept."""


def read(folder: Path) -> tuple[RightsRecord, ...]:
    """Return the records of all ledgers in a folder, by file name and then as they stand.

    Raises:
        BadLedger: there is none, one cannot be read, or two records have one id.
    """
    found: dict[str, Path] = {}
    known: list[RightsRecord] = []
    for file in ledgers(folder):
        for record in read_file(file):
            if record.id in found:
                raise BadLedger(f"{file} and {found[record.id]} both have a record {record.id!r}: rename one")
            found[record.id] = file
            known.append(record)
    return tuple(known)


def ledgers(folder: Path) -> list[Path]:
    """Return the files of a folder that are ledgers.

    Raises:
        BadLedger: there is none.
    """
    if not folder.is_dir():
        raise BadLedger(f"{folder} is missing: say there who allows what, in a .yml or .csv file a source")
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())


def read_file(file: Path) -> tuple[RightsRecord, ...]:
    """Return the records of one ledger.

    Raises:
        BadLedger: it cannot be read, or a record is not what it has to be.
    """
    import pandas as pd

    try:
        text = file.read_text("utf-8-sig")
        if file.suffix == ".csv":
            table = tables.from_csv(StringIO(text), dtype=str, keep_default_na=False)
            table["synthetic"] = table.get("synthetic", pd.Series(dtype=str)).str.lower()
        else:
            table = pd.DataFrame(_listed(text, file), dtype=object)
    except FileNotFoundError as err:
        raise BadLedger(f"{file} is missing: say there whose pictures these are") from err
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as err:
        raise BadLedger(f"{file} cannot be read: {err}") from err
    return records(table, str(file)) if len(table) else ()


def revoke(folder: Path, record_id: str, reason: str, day: date) -> Path:
    """Mark a record as revoked in its ledger, whose other lines stay as they are; return the file.

    Raises:
        BadLedger: no ledger has the record, or it is revoked already.
    """
    for file in ledgers(folder):
        for record in read_file(file):
            if record.id != record_id:
                continue
            if record.revoked is not None:
                raise BadLedger(f"{record_id} was revoked on {record.revoked}: {record.revocation}")
            text = file.read_text("utf-8-sig")
            changes = {"revoked": day.isoformat(), "revocation": reason}
            edited = _csv_with if file.suffix == ".csv" else _yaml_with
            files.replace(file, edited(text, record_id, changes).encode())
            return file
    raise BadLedger(f"no ledger in {folder} has a record {record_id!r}")


def holding(folder: Path, record_id: str) -> Path:
    """Return which of the folders in `folder`, a concept's each, has a record.

    Raises:
        BadLedger: none of them.
    """
    for concept, records_of_it in _by_concept(folder):
        if any(record.id == record_id for record in records_of_it):
            return concept
    raise BadLedger(f"no ledger in {folder} has a record {record_id!r}")


def revoked(folder: Path) -> dict[str, str]:
    """Return why, for each record of the folders in `folder` that was revoked."""
    return {r.id: r.revocation for _, found in _by_concept(folder) for r in found if r.revoked is not None}


def _by_concept(folder: Path) -> Iterator[tuple[Path, tuple[RightsRecord, ...]]]:
    for place in sorted(place for place in folder.glob("*") if place.is_dir()):
        yield place, read(place)


def mark(package: Path, why: str) -> None:
    """Mark a package, so that nothing is drawn from it any more."""
    files.replace(package / REVOKED, (json.dumps({"revoked": why}, ensure_ascii=False) + "\n").encode())


def _listed(text: str, file: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        found = yaml.safe_load(text) or []
    except (yaml.YAMLError, ValueError, RecursionError) as err:  # a 30th of February, a thousand brackets
        raise BadLedger(f"{file} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadLedger(f"{file} has to be a list of records")
    return found


def _yaml_with(text: str, record_id: str, changes: dict[str, str]) -> str:
    from ruamel.yaml import YAML

    editor = YAML()  # keeps comments and order
    editor.width = 110
    editor.preserve_quotes = True
    editor.indent(mapping=2, sequence=2, offset=0)
    listed = editor.load(text)
    for record in listed:
        if record["id"] == record_id:
            record["revoked"] = date.fromisoformat(changes["revoked"])
            record["revocation"] = changes["revocation"]
    written = StringIO()
    editor.dump(listed, written)
    return written.getvalue()


def _csv_with(text: str, record_id: str, changes: dict[str, str]) -> str:
    table = tables.from_csv(StringIO(text), dtype=str, keep_default_na=False)
    for name, value in changes.items():
        if name not in table:
            table[name] = ""
        table.loc[table["id"] == record_id, name] = value
    return tables.to_csv(table).decode()
