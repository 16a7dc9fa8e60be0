"""captions.csv: what a machine said of each portrait, what a person made of it, and who that was and when.

Reruns and the review page write it, people edit it in any program; whoever writes keeps what others wrote.
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
    """The file is not what it has to be, or an edit cannot be made; the message says what to do."""


def read(path: Path) -> pd.DataFrame:
    """Return the table, all text, "" where nothing is said.

    Returns:
        `COLUMNS`: a portrait's sha256 and name at its source, the machine's caption; a person's caption,
        verdict ("accepted", "rejected"), name, time (UTC, ISO 8601) and the sha256 of the PNG they saw.

    Raises:
        InvalidCaptionsError: it is not a table, columns are missing or unknown, an image has two rows,
            or a verdict is invalid.
    """
    mend = "correct it, or `git checkout` the last good one"
    try:
        # utf-8-sig: spreadsheet programs put a mark at the start when they save
        table = tables.from_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as err:  # pandas' own errors and what is no UTF-8
        raise InvalidCaptionsError(f"{path} cannot be read ({' '.join(str(err).split())}): {mend}") from err
    unknown, missing = set(table.columns) - set(COLUMNS), {"sha256", "machine", "human"} - set(table.columns)
    if unknown or missing:
        raise InvalidCaptionsError(
            f"{path} has the columns {', '.join(table.columns)}; it needs {', '.join(COLUMNS)}: {mend}"
        )
    table = table.reindex(columns=list(COLUMNS), fill_value="")
    for twice in table["sha256"][table["sha256"].duplicated()]:
        raise InvalidCaptionsError(f"{path} has two rows for {twice}: remove one")
    for column in ("human", "verdict"):
        table[column] = table[column].str.strip()
    for verdict in sorted(set(table["verdict"]) - set(VERDICTS)):
        raise InvalidCaptionsError(
            f"{path} has the verdict {verdict!r}: it is {ACCEPTED}, {REJECTED} or empty: {mend}"
        )
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """Replace the file at once."""
    atomic_files.replace(path, tables.to_csv(table))


def merge_machine_captions(path: Path, machine: pd.DataFrame) -> None:
    """Write new machine captions beside what people wrote.

    A row with a person's work whose image has gone is kept at the end: the image may come back.

    Args:
        path: the file, which need not exist.
        machine: `BY_MACHINE`.
    """
    with atomic_files.alone(path.parent):
        table = machine.reindex(columns=list(COLUMNS), fill_value="")
        if path.exists():
            before = read(path).set_index("sha256")
            worked_on = before[(before["human"] != "") | (before["verdict"] != "")]
            for column in BY_HAND:
                table[column] = table["sha256"].map(worked_on[column]).fillna("")
            gone = worked_on[~worked_on.index.isin(table["sha256"])].reset_index()
            table = pd.concat([table, gone[list(COLUMNS)]], ignore_index=True)
        write(path, table)


@dataclass(frozen=True)
class Edit:
    """What a person does to a portrait's row.

    Attributes:
        before: column -> what the person saw there.
        after: column -> what it shall be: human, verdict, seen.
    """

    before: Mapping[str, str]
    after: Mapping[str, str]


def edit(path: Path, edits: Mapping[str, Edit], editor: str) -> None:
    """Change people's columns, of all these rows or of none.

    Args:
        path: the file.
        edits: by sha256.
        editor: who makes them.

    Raises:
        InvalidCaptionsError: there is no such row, or it says something else by now.
    """
    about = {"editor": editor, "edited": datetime.now(UTC).isoformat(timespec="seconds")}
    with atomic_files.alone(path.parent):
        table = read(path).set_index("sha256")
        for sha256, change in edits.items():
            if sha256 not in table.index:
                raise InvalidCaptionsError(f"{sha256} has no row any more: reload the page")
            for column, value in change.before.items():
                if (now := table.at[sha256, column]) != value:
                    raise InvalidCaptionsError(f"somebody wrote {now!r} meanwhile: reload the page")
            for column, value in {**change.after, **about}.items():
                table.at[sha256, column] = value
        write(path, table.reset_index())


def find_superseded(table: pd.DataFrame, present: set[str]) -> dict[str, str]:
    """Return edits whose image changed under them: the new image's sha256 -> the former's.

    Args:
        table: `read`'s.
        present: sha256 of the portraits there are.
    """
    gone = table[~table["sha256"].isin(present) & (table["source_name"] != "")]
    former = dict(zip(gone["source_name"], gone["sha256"], strict=True))
    here = table[table["sha256"].isin(present)]
    return {
        sha: former[name]
        for sha, name in zip(here["sha256"], here["source_name"], strict=True)
        if name in former
    }
