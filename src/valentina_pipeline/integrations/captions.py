"""captions.csv: machine captions of the portraits, people's edits and verdicts, with editor and time.

Reruns and the review page write it, and people edit it in any program. Each writer keeps the others' work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from valentina_pipeline.common import atomic_files
from valentina_pipeline.integrations import tables

BY_MACHINE = ("sha256", "source_name", "machine")
BY_HAND = ("human", "verdict", "editor", "edited", "seen")
COLUMNS = (*BY_MACHINE, *BY_HAND)

ACCEPTED, REJECTED = "accepted", "rejected"
VERDICTS = ("", ACCEPTED, REJECTED)


class InvalidCaptionsError(ValueError):
    """The file is invalid or an edit is impossible; the message says what to do."""


def read(path: Path) -> pd.DataFrame:
    """Return the table; all cells are text, "" where empty.

    Returns:
        `COLUMNS`: the portrait's sha256 and source name, and the machine caption; the person's caption,
        verdict ("accepted", "rejected"), name, time (UTC, ISO 8601) and the sha256 of the PNG shown.

    Raises:
        InvalidCaptionsError: the file is not a table, columns are missing or unknown, an image has two
            rows, or a verdict is invalid.
    """
    remedy = "correct it, or `git checkout` the last valid version"
    try:
        # utf-8-sig: spreadsheet programs save a byte order mark
        table = tables.from_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as err:  # errors of pandas and of decoding UTF-8
        raise InvalidCaptionsError(f"{path} cannot be read ({' '.join(str(err).split())}): {remedy}") from err
    unknown, missing = set(table.columns) - set(COLUMNS), {"sha256", "machine", "human"} - set(table.columns)
    if unknown or missing:
        raise InvalidCaptionsError(
            f"{path} has the columns {', '.join(table.columns)}; allowed are {', '.join(COLUMNS)}: {remedy}"
        )
    table = table.reindex(columns=list(COLUMNS), fill_value="")
    for duplicate in table["sha256"][table["sha256"].duplicated()]:
        raise InvalidCaptionsError(f"{path} has two rows for {duplicate}: remove one")
    for column in ("human", "verdict"):
        table[column] = table[column].str.strip()
    for verdict in sorted(set(table["verdict"]) - set(VERDICTS)):
        raise InvalidCaptionsError(
            f"{path}: invalid verdict {verdict!r}: it must be {ACCEPTED}, {REJECTED} or empty: {remedy}"
        )
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """Replace the file atomically."""
    atomic_files.replace(path, tables.to_csv(table))


def merge_machine_captions(path: Path, machine: pd.DataFrame) -> None:
    """Update the machine captions and keep people's edits.

    An edited row without its image is kept at the end: the image may return.

    Args:
        path: the file; created where missing.
        machine: table with the columns `BY_MACHINE`.
    """
    with atomic_files.lock_folder(path.parent):
        table = machine.reindex(columns=list(COLUMNS), fill_value="")
        if path.exists():
            before = read(path).set_index("sha256")
            edited = before[(before["human"] != "") | (before["verdict"] != "")]
            for column in BY_HAND:
                table[column] = table["sha256"].map(edited[column]).fillna("")
            gone = edited[~edited.index.isin(table["sha256"])].reset_index()
            table = pd.concat([table, gone[list(COLUMNS)]], ignore_index=True)
        write(path, table)


@dataclass(frozen=True)
class Edit:
    """Edit of a portrait's row.

    Attributes:
        before: column -> value shown to the person.
        after: column -> new value, for human, verdict, seen.
    """

    before: Mapping[str, str]
    after: Mapping[str, str]


def edit(path: Path, edits: Mapping[str, Edit], editor: str) -> None:
    """Apply edits to all these rows, or to none where one fails.

    Args:
        path: the file.
        edits: by sha256.
        editor: name of the person.

    Raises:
        InvalidCaptionsError: a row is missing or has changed meanwhile.
    """
    about = {"editor": editor, "edited": datetime.now(UTC).isoformat(timespec="seconds")}
    with atomic_files.lock_folder(path.parent):
        table = read(path).set_index("sha256")
        for sha256, change in edits.items():
            if sha256 not in table.index:
                raise InvalidCaptionsError(f"the row of {sha256} was removed: reload the page")
            for column, value in change.before.items():
                if (now := table.at[sha256, column]) != value:
                    raise InvalidCaptionsError(f"another edit wrote {now!r} meanwhile: reload the page")
            for column, value in {**change.after, **about}.items():
                table.at[sha256, column] = value
        write(path, table.reset_index())


def find_superseded(table: pd.DataFrame, present: set[str]) -> dict[str, str]:
    """Return edits whose image was replaced: sha256 of the new image -> sha256 of the old one.

    Args:
        table: from `read`.
        present: sha256 of the current portraits.
    """
    gone = table[~table["sha256"].isin(present) & (table["source_name"] != "")]
    former = dict(zip(gone["source_name"], gone["sha256"], strict=True))
    here = table[table["sha256"].isin(present)]
    return {
        sha: former[name]
        for sha, name in zip(here["sha256"], here["source_name"], strict=True)
        if name in former
    }
